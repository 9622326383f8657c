package graph

import (
	"context"
	"encoding/json"
	"math"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

const (
	pageDefault = 20 // rows of a page that says neither first nor last
	listDefault = 10 // what a list without a size is taken for

	weightCount = 100 // of a field that counts all rows of a list
	weightWait  = 10  // of a field that waits for a read model
	weightFold  = 100 // of a field that folds an object's events

	maxErrors = 20 // of an answer without data: a document can be wrong in as many places as it has
)

// limits refuses operations that would be too much work, before any of it is done. Each fragment is measured once,
// however often it is spread, so that measuring is linear in the document.
type limits struct{ cfg *Config }

var _ graphql.OperationContextMutator = limits{}

// ExtensionName names the extension to gqlgen.
func (limits) ExtensionName() string { return "Limits" }

// Validate lets gqlgen check the extension; there is nothing to check.
func (limits) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext refuses the operation when it is over a limit.
func (l limits) MutateOperationContext(_ context.Context, oc *graphql.OperationContext) *gqlerror.Error {
	m := meter{variables: oc.Variables}
	got := m.selections(oc.Operation.SelectionSet)
	cost := got.total(listDefault)
	switch {
	case got.introspects && l.cfg.Introspection != On:
		return coded(codeNoIntrospection, "introspection is off in production; the schema is a file of the project")
	case got.roots > l.cfg.MaxRootFields:
		return coded(codeRootFieldLimit, "the operation has %d root fields, and at most %d are allowed", got.roots, l.cfg.MaxRootFields)
	case got.aliases > l.cfg.MaxAliases:
		return coded(codeAliasLimit, "the operation has %d aliases, and at most %d are allowed", got.aliases, l.cfg.MaxAliases)
	case got.depth > l.cfg.MaxDepth:
		return coded(codeDepthLimit, "the operation is %d fields deep, and at most %d are allowed", got.depth, l.cfg.MaxDepth)
	case cost > l.cfg.MaxCost:
		return coded(codeCostLimit, "the operation costs %d, one for each field that it may return, and at most %d are allowed", cost, l.cfg.MaxCost)
	}
	return nil
}

// measure is the size of a selection set.
type measure struct {
	cost        int // of the set but for its lists
	rows        int // what its lists cost for each of the objects that the field above asks for
	depth       int
	aliases     int
	roots       int // fields on the level of the set itself, those of fragments included
	introspects bool
}

// total is what the set costs when the field above asks for size objects.
func (m measure) total(size int) int { return add(m.cost, multiply(m.rows, size)) }

type meter struct {
	variables map[string]any
	fragments map[string]measure
}

func (m *meter) selections(set ast.SelectionSet) measure {
	var sum measure
	for _, selection := range set {
		var one measure
		switch s := selection.(type) {
		case *ast.Field:
			one = m.field(s)
		case *ast.InlineFragment:
			one = m.selections(s.SelectionSet)
		case *ast.FragmentSpread:
			one = m.spread(s)
		}
		sum.cost = add(sum.cost, one.cost)
		sum.rows = add(sum.rows, one.rows)
		sum.depth = max(sum.depth, one.depth)
		sum.aliases = add(sum.aliases, one.aliases)
		sum.roots = add(sum.roots, one.roots)
		sum.introspects = sum.introspects || one.introspects
	}
	return sum
}

func (m *meter) spread(s *ast.FragmentSpread) measure {
	if known, ok := m.fragments[s.Name]; ok {
		return known
	}
	if s.Definition == nil {
		return measure{}
	}
	one := m.selections(s.Definition.SelectionSet)
	if m.fragments == nil {
		m.fragments = map[string]measure{}
	}
	m.fragments[s.Name] = one
	return one
}

// field leaves what is below introspection out: the validator bounds its depth, and in production it is off.
func (m *meter) field(f *ast.Field) measure {
	one := measure{cost: m.weight(f), roots: 1}
	if f.Alias != f.Name {
		one.aliases = 1
	}
	if f.Name == "__schema" || f.Name == "__type" {
		one.introspects = true
		return one
	}
	one.depth = 1
	if len(f.SelectionSet) == 0 {
		return one
	}
	below := m.selections(f.SelectionSet)
	one.depth += below.depth
	one.aliases = add(one.aliases, below.aliases)
	one.introspects = below.introspects
	size, given := m.size(f)
	switch isList := f.Definition != nil && f.Definition.Type.Elem != nil; {
	case isList && given:
		one.cost = add(one.cost, multiply(below.total(listDefault), size))
	case isList: // as many as the field above asks for, if it does: the nodes of a page
		one.cost, one.rows = 0, add(one.cost, below.total(listDefault))
	case given:
		one.cost = add(one.cost, below.total(size))
	default:
		one.cost = add(one.cost, below.total(listDefault))
	}
	return one
}

// weight is what a field costs by itself: what @cost says, or more than one for what is known to be dear.
func (m *meter) weight(f *ast.Field) int {
	if f.Definition == nil {
		return 1
	}
	if cost := f.Definition.Directives.ForName("cost"); cost != nil {
		if weight, err := strconv.Atoi(cost.Arguments.ForName("weight").Value.Raw); err == nil {
			return weight
		}
	}
	waits, asked := f.Definition.Arguments.ForName("within") != nil, f.Definition.Arguments.ForName("atLeast") != nil
	switch {
	case f.Name == "totalCount":
		return weightCount
	case f.Arguments.ForName("asOf") != nil || f.Name == "history":
		return weightFold
	case waits && (!asked || f.Arguments.ForName("atLeast") != nil):
		return weightWait
	}
	return 1
}

// size is how many objects a field asks for by its arguments, if it has such.
func (m *meter) size(f *ast.Field) (size int, given bool) {
	if f.Definition == nil {
		return 1, false
	}
	if ids := f.Arguments.ForName("ids"); ids != nil {
		return max(1, m.length(ids.Value)), true
	}
	if f.Definition.Arguments.ForName("first") == nil {
		return 1, false
	}
	for _, name := range [...]string{"first", "last"} {
		if arg := f.Arguments.ForName(name); arg != nil {
			if n, ok := m.number(arg.Value); ok {
				return max(1, n), true
			}
		}
	}
	if f.ObjectDefinition != nil && f.ObjectDefinition.Name == "Subscription" {
		return partDefault, true
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
