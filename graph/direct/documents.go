package direct

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"weak"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Extension makes the executor write directly what it can. It keeps plans for as long as the executor keeps their
// documents, so that a selection is looked at once and not for every request. The zero value is ready.
type Extension struct {
	documents sync.Map // weak.Pointer[ast.QueryDocument] to *document
}

var _ graphql.OperationContextMutator = (*Extension)(nil)

const extensionName = "Direct"

// ExtensionName names the extension to gqlgen.
func (x *Extension) ExtensionName() string { return extensionName }

// Validate lets gqlgen check the extension; there is nothing to check.
func (x *Extension) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext puts the plans at hand.
func (x *Extension) MutateOperationContext(_ context.Context, oc *graphql.OperationContext) *gqlerror.Error {
	oc.Stats.SetExtension(extensionName, x.document(oc.Doc).plansFor(oc.Variables))
	return nil
}

// document finds what is known of a document.
func (x *Extension) document(d *ast.QueryDocument) *document {
	key := weak.Make(d)
	if known, ok := x.documents.Load(key); ok {
		return known.(*document)
	}
	known, kept := x.documents.LoadOrStore(key, &document{conditions: conditions(d)})
	if !kept {
		runtime.AddCleanup(d, func(key weak.Pointer[ast.QueryDocument]) { x.documents.Delete(key) }, key)
	}
	return known.(*document)
}

// maxConditions is how many variables may decide what a document selects for its plans to be kept: for each there are
// twice as many.
const maxConditions = 4

// document has the plans of a document: one set for each way in which @skip and @include may turn out.
type document struct {
	conditions []string // the variables that decide
	plans      [1 << maxConditions]plans
}

func (d *document) plansFor(variables map[string]any) *plans {
	if len(d.conditions) > maxConditions {
		return &plans{}
	}
	way := 0
	for i, name := range d.conditions {
		if yes, _ := variables[name].(bool); yes {
			way |= 1 << i
		}
	}
	return &d.plans[way]
}

// conditions finds the variables in directives.
func conditions(d *ast.QueryDocument) []string {
	var names []string
	var walk func(ast.SelectionSet)
	see := func(directives ast.DirectiveList, below ast.SelectionSet) {
		for _, directive := range directives {
			for _, argument := range directive.Arguments {
				if v := argument.Value; v.Kind == ast.Variable && !slices.Contains(names, v.Raw) {
					names = append(names, v.Raw)
				}
			}
		}
		walk(below)
	}
	walk = func(set ast.SelectionSet) {
		for _, selection := range set {
			switch s := selection.(type) {
			case *ast.Field:
				see(s.Directives, s.SelectionSet)
			case *ast.InlineFragment:
				see(s.Directives, s.SelectionSet)
			case *ast.FragmentSpread:
				see(s.Directives, nil)
			}
		}
	}
	for _, operation := range d.Operations {
		walk(operation.SelectionSet)
	}
	for _, fragment := range d.Fragments {
		walk(fragment.SelectionSet)
	}
	return names
}

// plans are the plans of one document under the same conditions.
type plans struct {
	mu   sync.RWMutex
	made map[place][]made
}

// place finds a selection among others by where it begins. Where a field is selected twice, the executor puts the
// selections together anew for every request, so that just the selections themselves stay the same.
type place struct {
	first ast.Selection
	name  string // of the type
}

type made struct {
	selection ast.SelectionSet
	plan      *Plan // nil: to be left to the executor
}

// PlanOf returns how the selection on the type is written, or nil when the executor must do it.
func PlanOf(oc *graphql.OperationContext, types Types, name string, selection ast.SelectionSet) *Plan {
	p, ok := oc.Stats.GetExtension(extensionName).(*plans)
	if !ok || len(selection) == 0 {
		return nil
	}
	at := place{selection[0], name}
	if plan, known := p.find(at, selection); known {
		return plan
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if plan, known := p.among(at, selection); known { // another was faster
		return plan
	}
	plan := newPlan(oc, types, name, selection)
	if p.made == nil {
		p.made = map[place][]made{}
	}
	p.made[at] = append(p.made[at], made{slices.Clone(selection), plan})
	return plan
}

func (p *plans) find(at place, selection ast.SelectionSet) (plan *Plan, known bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.among(at, selection)
}

func (p *plans) among(at place, selection ast.SelectionSet) (plan *Plan, known bool) {
	for _, m := range p.made[at] {
		if slices.Equal(m.selection, selection) {
			return m.plan, true
		}
	}
	return nil, false
}
