// Package direct writes objects whose fields are plain data straight into the response, without a goroutine, a context
// and a closure for each, as the executor needs them for fields that might do anything.
//
// It promises the same bytes as the executor would write, and leaves what it does not know to the executor: fields with
// arguments, resolvers or a context, directives of the schema, deferred fragments, values that are errors. Encoders are
// generated from the schema beside the executor's code, and this package is what they share. No field middleware runs
// for fields that are written directly. Everything here is safe for concurrent use, except an Encoder.
package direct

import (
	"strconv"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// Types are the object types that have encoders, by name.
type Types map[string]Type

// Type is what selections on an object type are judged by.
type Type struct {
	Satisfies []string         // the names under which fragments apply: its own, and its interfaces'
	Fields    map[string]Field // those that its encoder knows, by name
}

// Field is a field that an encoder knows.
type Field struct {
	Index int    // among the encoder's cases
	Type  string // of the objects that it leads to; empty for scalars and enums
}

// Plan is a selection on an object type as its encoder follows it.
type Plan struct {
	Steps []Step
	End   string // what follows the last step

	written atomic.Int64 // bytes, the last time: room for the next
}

// Step writes one field.
type Step struct {
	Key   string // with what comes before it: a brace or comma, and a type name that was selected
	Field int    // the index of the field
	Plan  *Plan  // of the objects below; nil for scalars and enums
}

// newPlan returns nil when the selection has something that must be left to the executor.
func newPlan(oc *graphql.OperationContext, types Types, name string, selection ast.SelectionSet) *Plan {
	of, ok := types[name]
	if !ok {
		return nil
	}
	plan := &Plan{}
	written := map[string]bool{}
	between := "{"
	for _, selected := range graphql.CollectFields(oc, selection, of.Satisfies) {
		if written[selected.Alias] { // the executor writes the first of a name, too
			continue
		}
		written[selected.Alias] = true
		key := plan.End + between + strconv.Quote(selected.Alias) + ":" // an alias has nothing to escape
		between = ","
		if selected.Name == "__typename" {
			plan.End = key + strconv.Quote(name)
			continue
		}
		field, known := of.Fields[selected.Name]
		if !known || len(selected.Deferrables) > 0 {
			return nil
		}
		step := Step{Key: key, Field: field.Index}
		if field.Type != "" {
			if step.Plan = newPlan(oc, types, field.Type, selected.Selections); step.Plan == nil {
				return nil
			}
		}
		plan.Steps, plan.End = append(plan.Steps, step), ""
	}
	if between == "{" {
		plan.End = between
	}
	plan.End += "}"
	return plan
}
