package graph

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// rules is the table of who may ask what and see what. What stands in neither map is denied. See rules.go.
type rules struct {
	fields  map[string]fieldRule  // of root fields, by "Type.field"
	objects map[string]objectRule // of what has an id, by the first part of the id, which is the view's name
}

// eventKind is that of the log's own events.
const eventKind = "event"

// fieldRule says who may ask for a root field. The zero value lets nobody.
type fieldRule int

const (
	_         fieldRule = iota
	byObject            // everybody may ask; what may not be seen by the object's rule is as if it were not there
	byDecider           // everybody may send the command; the write model's May judges, on the state that it decides on
	signedIn            // whoever is somebody; the object's rule narrows what comes
	staffOnly           // who has the role identity.Staff
)

// objectRule says who sees an object, and narrows the filter of a list to what may be seen. It works on values whose
// types are known where it is made and where it is asked; others are seen by nobody.
type objectRule struct {
	see    func(who identity.Identity, object any) bool
	narrow func(who identity.Identity, filter any) any
}

// byAccess is the rule of a view.
func byAccess[R, F any](access queries.Access[R, F]) objectRule {
	return objectRule{
		see: func(who identity.Identity, object any) bool {
			row, ok := object.(*R)
			return ok && row != nil && access.See != nil && access.See(who, row)
		},
		narrow: func(who identity.Identity, filter any) any {
			f, ok := filter.(F)
			if !ok || access.Narrow == nil {
				return nil
			}
			return access.Narrow(who, f)
		},
	}
}

// sees reports whether who asks in this context may see the object of that kind. Every object goes through here on its
// way out: in find, list's narrowed, nodes, watch, readAt and the streams. A resolver that uses none of them asks here
// itself.
func (r *root) sees(ctx context.Context, kind string, object any) bool {
	rule, ok := r.rules.objects[kind]
	return ok && rule.see != nil && rule.see(identity.FromContext(ctx), object)
}

// visible is the row, or nil when there is none or it may not be seen: a client cannot tell which.
func visible[R any](ctx context.Context, r *root, view string, row *R, err error) (*R, error) {
	if err != nil || row == nil || !r.sees(ctx, view, row) {
		return nil, err
	}
	return row, nil
}

// narrowed is the filter with the condition that only what may be seen comes through.
func narrowed[F any](ctx context.Context, r *root, view string, filter F) (F, error) {
	if rule, ok := r.rules.objects[view]; ok && rule.narrow != nil {
		if f, ok := rule.narrow(identity.FromContext(ctx), filter).(F); ok {
			return f, nil
		}
	}
	return filter, fmt.Errorf("no rule says who sees what in a list of %s", view)
}

// stillValid is an error when the identity has run out since the stream began.
func stillValid(ctx context.Context) error {
	if identity.FromContext(ctx).Expired(time.Now()) {
		return coded(codeUnauthenticated, "the token has expired")
	}
	return nil
}

// refuse says which root fields of an operation may not be asked for, before anything of it is resolved.
func (r rules) refuse(ctx context.Context, oc *graphql.OperationContext) (refused gqlerror.List) {
	object := rootObject(oc.Operation.Operation)
	who := identity.FromContext(ctx)
	rootFields(oc, object, func(field *ast.Field) {
		if err := r.ask(who, object, field.Name); err != nil {
			err.Path = ast.Path{ast.PathName(field.Alias)}
			refused = append(refused, err)
		}
	})
	return refused
}

// missing names the root fields and the types of objects in a schema that have no rule. The server does not start with any.
func (r rules) missing(schema *ast.Schema) (names []string) {
	for _, object := range []*ast.Definition{schema.Query, schema.Mutation, schema.Subscription} {
		if object == nil {
			continue
		}
		for _, field := range object.Fields {
			if name := object.Name + "." + field.Name; r.fields[name] == 0 && !strings.HasPrefix(field.Name, "__") {
				names = append(names, name)
			}
		}
	}
	for _, object := range schema.GetPossibleTypes(schema.Types["Node"]) {
		if r.objects[kindOf(object.Name)].see == nil {
			names = append(names, object.Name)
		}
	}
	return names
}

// kindOf is how the ids of a type begin: its name with a small letter.
func kindOf(object string) string { return strings.ToLower(object[:1]) + object[1:] }

func rootObject(kind ast.Operation) string {
	switch kind {
	case ast.Mutation:
		return "Mutation"
	case ast.Subscription:
		return "Subscription"
	default:
		return "Query"
	}
}

// ask is nil when somebody may ask for a root field.
func (r rules) ask(who identity.Identity, object, field string) *gqlerror.Error {
	switch rule := r.fields[object+"."+field]; {
	case field == "__typename" || (object == "Query" && (field == "__schema" || field == "__type")):
		return nil // whether introspection is answered at all is a limit, not a right
	case rule == byObject || rule == byDecider || (rule == signedIn && !who.Anonymous()) || (rule == staffOnly && who.Has(identity.Staff)):
		return nil
	case rule == staffOnly:
		return forbidden(who, "only staff may ask for "+field)
	default:
		return forbidden(who, "not everybody may ask for "+field)
	}
}

// forbidden says no, and to nobody in particular that it takes somebody.
func forbidden(who identity.Identity, message string) *gqlerror.Error {
	if who.Anonymous() {
		return coded(codeUnauthenticated, "%s; say who you are", message)
	}
	return coded(codeForbidden, "%s", message)
}
