package graph

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// etags gives queries the ETag of their answer without executing them: an answer is the same as long as nothing changed in
// the views that it is read from, and nothing in the log where it is read from events. It asks the database for the
// positions, so that it is right on every node, and before the answer is read, so that an answer is at most newer than its
// ETag says.
type etags struct {
	root   *root
	schema *ast.Schema
	build  string // of the program: another one may answer otherwise
}

func newETags(root *root, schema *ast.Schema) etags {
	e := etags{root: root, schema: schema}
	if info, ok := debug.ReadBuildInfo(); ok {
		e.build = info.String()
	}
	return e
}

// sources are what an operation is read from.
type sources struct {
	views map[string]bool
	log   bool
	known bool // everything is; else there is no ETag
}

// of is the ETag, or false when there is none: because it is not known what the answer is read from, because the answer
// says how fresh it is, or because what the request asked to include is not there in time.
func (e etags) of(ctx context.Context, oc *graphql.OperationContext) (string, bool) {
	asked, ok := oc.Stats.GetExtension(reads{}.ExtensionName()).(*reading)
	if !ok || asked.freshness {
		return "", false
	}
	asked.primary = true // a replica may show less than the positions that the ETag is made of
	from := e.sourcesOf(oc)
	if !from.known || !e.wait(ctx, asked, from) {
		return "", false
	}
	sum := sha256.New()
	who := identity.FromContext(ctx)
	roles := slices.Sorted(slices.Values(who.Roles))
	variables, err := json.Marshal(oc.Variables)
	if err != nil || e.addPositions(ctx, sum, from) != nil {
		return "", false
	}
	// As a JSON list the parts cannot be taken for each other.
	parts, err := json.Marshal([]any{oc.RawQuery, oc.OperationName, string(variables), who.Subject, roles, e.build})
	if err != nil {
		return "", false
	}
	sum.Write(parts)
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:18]) + `"`, true
}

// wait waits for what the request asked for, in all views at once, and at most as long as its most impatient field. The
// fields then do not wait anew.
func (e etags) wait(ctx context.Context, asked *reading, from *sources) bool {
	if len(asked.tokens) == 0 {
		return true
	}
	asked.began = time.Now()
	ctx, cancel := e.root.deadline(ctx, asked, &asked.shortest)
	defer cancel()
	highest := asked.tokens[len(asked.tokens)-1]
	if asked.judge(ctx, e.root.Store) != nil || e.root.Store.CheckToken(ctx, highest) != nil {
		return false
	}
	for view := range from.views {
		if e.root.Progress.Wait(ctx, view, highest) != nil {
			return false
		}
	}
	return true
}

func (e etags) addPositions(ctx context.Context, sum hash.Hash, from *sources) error {
	if from.log {
		head, err := e.root.Store.Head(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, "log", head)
	}
	views := slices.Sorted(maps.Keys(from.views))
	if len(views) == 0 {
		return nil
	}
	found, err := e.root.Progress.Freshness(ctx, views...)
	if err != nil {
		return err
	}
	for _, f := range found {
		changed, err := e.root.Feed.LastChange(ctx, f)
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, f.Checkpoint, changed, f.ParkedChanges)
	}
	return nil
}

// sourcesOf finds out what a query is read from by the types that it selects: what has an id comes from the view of its
// name, and events from the log.
func (e etags) sourcesOf(oc *graphql.OperationContext) *sources {
	s := &sources{views: map[string]bool{}, known: oc.Operation.Operation == ast.Query}
	for _, field := range graphql.CollectFields(oc, oc.Operation.SelectionSet, []string{"Query"}) {
		if field.Name == "__typename" {
			continue
		}
		s.known = s.known && field.Definition != nil && e.addRoot(s, field, oc.Variables)
	}
	return s
}

// addRoot reports whether a root field is known.
func (e etags) addRoot(s *sources, field graphql.CollectedField, variables map[string]any) bool {
	arguments := field.ArgumentMap(variables)
	if field.Name == "history" || arguments["asOf"] != nil {
		s.log = true
	}
	typ := e.schema.Types[field.Definition.Type.Name()]
	switch {
	case typ.Name == "Node" || field.Name == "history":
		e.addIDs(s, arguments["id"], arguments["ids"])
		return true
	case strings.HasSuffix(typ.Name, "Connection") && typ.Fields.ForName("nodes") != nil:
		typ = e.schema.Types[typ.Fields.ForName("nodes").Type.Name()]
	}
	return e.addType(s, typ) && e.addBelow(s, field.Selections)
}

// addBelow adds what has an id of its own within an object.
func (e etags) addBelow(s *sources, set ast.SelectionSet) bool {
	for _, selection := range set {
		ok := true
		switch x := selection.(type) {
		case *ast.Field:
			if x.Definition == nil || strings.HasPrefix(x.Name, "__") {
				continue
			}
			typ := e.schema.Types[x.Definition.Type.Name()]
			ok = (!isNode(typ) || e.addType(s, typ)) && e.addBelow(s, x.SelectionSet)
		case *ast.InlineFragment:
			ok = e.addBelow(s, x.SelectionSet)
		case *ast.FragmentSpread:
			ok = x.Definition != nil && e.addBelow(s, x.Definition.SelectionSet)
		}
		if !ok {
			return false
		}
	}
	return true
}

// addType reports whether it is known what objects of a type come from.
func (e etags) addType(s *sources, typ *ast.Definition) bool {
	return isNode(typ) && typ.Kind == ast.Object && e.addKind(s, strings.ToLower(typ.Name))
}

func (e etags) addKind(s *sources, kind string) bool {
	if _, known := e.root.rules.objects[kind]; !known {
		return false
	}
	if kind == eventKind {
		s.log = true
	} else {
		s.views[kind] = true
	}
	return true
}

// addIDs adds what the ids name. What they do not name is not there, whatever happens.
func (e etags) addIDs(s *sources, id, ids any) {
	list, _ := ids.([]any)
	for _, one := range append(slices.Clone(list), id, ids) {
		if text, ok := one.(string); ok {
			e.addKind(s, eventstore.Category(text))
		}
	}
}

func isNode(typ *ast.Definition) bool {
	return typ != nil && (typ.Name == "Node" || slices.Contains(typ.Interfaces, "Node"))
}
