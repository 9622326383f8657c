package graph_test

import (
	"net/http"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"github.com/headrace/headrace/graph"
)

func TestTheSchemaIsPublishedWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		cfg    graph.Config
		status int
	}{
		"in development":          {graph.Config{Development: true}, http.StatusOK},
		"in production":           {graph.Config{}, http.StatusNotFound},
		"in production by asking": {graph.Config{PublishSchema: true}, http.StatusOK},
	} {
		got := bare(t, want.cfg)(http.MethodGet, "/schema.graphql", "")
		equal(t, name, got.status, want.status)
	}
}

// What is published is what the server answers by: a tool that trusts it makes no request that is refused.
func TestThePublishedSchemaIsTheWholeSchema(t *testing.T) {
	t.Parallel()
	get := bare(t, graph.Config{PublishSchema: true})
	got := get(http.MethodGet, "/schema.graphql", "")
	published, err := gqlparser.LoadSchema(&ast.Source{Name: "schema.graphql", Input: got.raw})
	must(t, err)
	served := readSchema(t)
	equal(t, "types", len(published.Types), len(served.Types))
	for name, typ := range served.Types {
		other := published.Types[name]
		if other == nil {
			t.Errorf("%s is not published", name)
			continue
		}
		equal(t, name, other.Description, typ.Description)
		for _, field := range typ.Fields {
			if mirrored := other.Fields.ForName(field.Name); mirrored == nil || mirrored.Type.String() != field.Type.String() {
				t.Errorf("%s.%s is published as %v", name, field.Name, mirrored)
			}
		}
	}

	etag := got.header.Get("ETag")
	again := get(http.MethodGet, "/schema.graphql", "", "If-None-Match", etag)
	equal(t, "status of an unchanged schema", again.status, http.StatusNotModified)
	equal(t, "its bytes", len(again.raw), 0)
}
