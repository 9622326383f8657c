package graph

import (
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// maxOverlaps bounds what validation may have to compare. The rule that fields of one name must fit together compares
// them in pairs: 20,000 equal fields, a document of 40 KB, kept it busy for more than 8 seconds.
const maxOverlaps = 50_000

// check refuses a document that would be dear to validate. It looks at the text's form only, and gives up when it has
// seen enough, so that its own work is bounded too.
func check(document *ast.QueryDocument, maxDirectives int) *gqlerror.Error {
	s := survey{fragments: make(map[string]*ast.FragmentDefinition, len(document.Fragments)), maxDirectives: maxDirectives}
	for _, f := range document.Fragments {
		s.fragments[f.Name] = f
	}
	for _, f := range document.Fragments {
		s.look(f.Directives, f.SelectionSet)
		s.cycles(f)
	}
	for _, o := range document.Operations {
		s.look(o.Directives, o.SelectionSet)
	}
	if s.refused != nil {
		return s.refused
	}
	// Both are where validation begins to walk.
	for _, o := range document.Operations {
		s.compare([]ast.SelectionSet{o.SelectionSet})
	}
	for _, f := range document.Fragments {
		s.compare([]ast.SelectionSet{f.SelectionSet})
	}
	if s.overlaps > maxOverlaps {
		return coded(codeDocumentLimit, "the document has too many fields of the same names at the same places")
	}
	return nil
}

type survey struct {
	fragments     map[string]*ast.FragmentDefinition
	colours       map[string]colour
	maxDirectives int
	nesting       int // of inline fragments, at most
	overlaps      int
	refused       *gqlerror.Error
}

// colour says where the search for cycles is with a fragment.
type colour int

const (
	unseen colour = iota
	entered
	left
)

// look counts what can be counted without following fragments.
func (s *survey) look(directives ast.DirectiveList, set ast.SelectionSet) {
	s.directives(directives)
	s.set(set, 0)
}

func (s *survey) set(set ast.SelectionSet, nesting int) {
	s.nesting = max(s.nesting, nesting)
	for _, selection := range set {
		switch one := selection.(type) {
		case *ast.Field:
			s.directives(one.Directives)
			s.set(one.SelectionSet, 0)
		case *ast.InlineFragment:
			s.directives(one.Directives)
			s.set(one.SelectionSet, nesting+1)
		case *ast.FragmentSpread:
			s.directives(one.Directives)
		}
	}
}

func (s *survey) directives(list ast.DirectiveList) {
	if len(list) > s.maxDirectives && s.refused == nil {
		s.refused = coded(codeDirectiveLimit, "one place of the document has %d directives, and at most %d are allowed", len(list), s.maxDirectives)
	}
}

// cycles refuses fragments that spread themselves: everything after relies on there being an end.
func (s *survey) cycles(f *ast.FragmentDefinition) {
	if s.colours == nil {
		s.colours = map[string]colour{}
	}
	switch s.colours[f.Name] {
	case left:
		return
	case entered:
		if s.refused == nil {
			s.refused = coded("GRAPHQL_VALIDATION_FAILED", "Cannot spread fragment %q within itself.", f.Name)
		}
		return
	}
	s.colours[f.Name] = entered
	s.spreads(f.SelectionSet)
	s.colours[f.Name] = left
}

func (s *survey) spreads(set ast.SelectionSet) {
	for _, selection := range set {
		switch one := selection.(type) {
		case *ast.Field:
			s.spreads(one.SelectionSet)
		case *ast.InlineFragment:
			s.spreads(one.SelectionSet)
		case *ast.FragmentSpread:
			if f := s.fragments[one.Name]; f != nil {
				s.cycles(f)
			}
		}
	}
}

// compare counts the fields at each place of the answer and the pairs among those of one name, for every level of inline
// fragments, since validation looks at each by itself. It ends soon after the limit is passed.
func (s *survey) compare(sets []ast.SelectionSet) {
	groups := map[string][]ast.SelectionSet{}
	for _, set := range sets {
		s.gather(groups, set)
	}
	for _, group := range groups {
		s.overlaps += len(group) * (len(group) - 1) / 2 * (s.nesting + 1)
		if s.overlaps > maxOverlaps {
			return
		}
		s.compare(group)
	}
}

// gather adds the set's fields, those of its fragments included, by the names that the answer has them under.
func (s *survey) gather(groups map[string][]ast.SelectionSet, set ast.SelectionSet) {
	for _, selection := range set {
		if s.overlaps++; s.overlaps > maxOverlaps {
			return
		}
		switch one := selection.(type) {
		case *ast.Field:
			groups[one.Alias] = append(groups[one.Alias], one.SelectionSet)
		case *ast.InlineFragment:
			s.gather(groups, one.SelectionSet)
		case *ast.FragmentSpread:
			if f := s.fragments[one.Name]; f != nil {
				s.gather(groups, f.SelectionSet)
			}
		}
	}
}
