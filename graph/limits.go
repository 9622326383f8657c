package graph

import (
	"context"
	"encoding/json"
	"math"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

const (
	pageDefault = 20 // rows of a page that says neither first nor last
	listDefault = 10 // what a list without a size is taken for
)

// limits refuses operations that would be too much work, before any of it is done. Each fragment is measured once,
// however often it is spread, so that measuring is linear in the document.
type limits struct {
	depth, cost, rootFields int
	introspection           bool // allowed
}

var _ graphql.OperationContextMutator = limits{}

// ExtensionName names the extension to gqlgen.
func (limits) ExtensionName() string { return "Limits" }

// Validate lets gqlgen check the extension; there is nothing to check.
func (limits) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext refuses the operation when it is over a limit.
func (l limits) MutateOperationContext(_ context.Context, oc *graphql.OperationContext) *gqlerror.Error {
	m := meter{variables: oc.Variables}
	got := m.selections(oc.Operation.SelectionSet, false)
	switch {
	case got.introspects && !l.introspection:
		return coded(codeNoIntrospection, "introspection is off in production; the schema is a file of the project")
	case got.roots > l.rootFields:
		return coded(codeRootFieldLimit, "the operation has %d root fields, and at most %d are allowed", got.roots, l.rootFields)
	case got.depth > l.depth:
		return coded(codeDepthLimit, "the operation is %d fields deep, and at most %d are allowed", got.depth, l.depth)
	case got.cost > l.cost:
		return coded(codeCostLimit, "the operation may return %d fields, and at most %d are allowed", got.cost, l.cost)
	}
	return nil
}

// measure is the size of a selection set.
type measure struct {
	depth, cost int
	introspects bool
	roots       int // fields on the level of the set itself, those of fragments included
}

type meter struct {
	variables map[string]any
	fragments map[fragment]measure
}

// fragment is a fragment at a place that has its size from outside, or not.
type fragment struct {
	name  string
	sized bool
}

// selections measures a set. Sized says that its lists were multiplied where a page size was given.
func (m *meter) selections(set ast.SelectionSet, sized bool) measure {
	var sum measure
	for _, selection := range set {
		var one measure
		switch s := selection.(type) {
		case *ast.Field:
			one = m.field(s, sized)
		case *ast.InlineFragment:
			one = m.selections(s.SelectionSet, sized)
		case *ast.FragmentSpread:
			one = m.spread(s, sized)
		}
		sum.depth = max(sum.depth, one.depth)
		sum.cost = add(sum.cost, one.cost)
		sum.roots = add(sum.roots, one.roots)
		sum.introspects = sum.introspects || one.introspects
	}
	return sum
}

func (m *meter) spread(s *ast.FragmentSpread, sized bool) measure {
	key := fragment{s.Name, sized}
	if known, ok := m.fragments[key]; ok {
		return known
	}
	if s.Definition == nil {
		return measure{}
	}
	one := m.selections(s.Definition.SelectionSet, sized)
	if m.fragments == nil {
		m.fragments = map[fragment]measure{}
	}
	m.fragments[key] = one
	return one
}

// field leaves introspection out: the validator bounds its depth, and in production it is off.
func (m *meter) field(f *ast.Field, sized bool) measure {
	if f.Name == "__schema" || f.Name == "__type" {
		return measure{cost: 1, roots: 1, introspects: true}
	}
	if len(f.SelectionSet) == 0 {
		return measure{depth: 1, cost: 1, roots: 1}
	}
	size, given := m.size(f)
	if !given && !sized && f.Definition != nil && f.Definition.Type.Elem != nil {
		size = listDefault
	}
	below := m.selections(f.SelectionSet, given)
	return measure{depth: below.depth + 1, cost: add(1, multiply(below.cost, size)), roots: 1, introspects: below.introspects}
}

// size is how many objects a field asks for by its arguments, if it has such.
func (m *meter) size(f *ast.Field) (size int, given bool) {
	if f.Definition == nil {
		return 1, false
	}
	paged := f.Definition.Arguments.ForName("first") != nil
	if ids := f.Arguments.ForName("ids"); ids != nil {
		return max(1, m.length(ids.Value)), true
	}
	if !paged {
		return 1, false
	}
	for _, name := range [...]string{"first", "last"} {
		if arg := f.Arguments.ForName(name); arg != nil {
			if n, ok := m.number(arg.Value); ok {
				return max(1, n), true
			}
		}
	}
	return pageDefault, true
}

func (m *meter) number(v *ast.Value) (int, bool) {
	value, err := v.Value(m.variables)
	if err != nil {
		return 0, false
	}
	switch n := value.(type) {
	case int64:
		return clamp(n), true
	case int:
		return n, true
	case float64:
		return clamp(int64(min(n, math.MaxInt32))), true
	case json.Number:
		i, err := n.Int64()
		return clamp(i), err == nil
	}
	return 0, false
}

func (m *meter) length(v *ast.Value) int {
	value, err := v.Value(m.variables)
	if err != nil {
		return 1
	}
	if list, ok := value.([]any); ok {
		return len(list)
	}
	return 1
}

func clamp(n int64) int { return int(max(0, min(n, math.MaxInt32))) }

// add and multiply end at the greatest int instead of beginning anew below zero.
func add(a, b int) int {
	if a > math.MaxInt-b {
		return math.MaxInt
	}
	return a + b
}

func multiply(a, b int) int {
	if b != 0 && a > math.MaxInt/b {
		return math.MaxInt
	}
	return a * b
}
