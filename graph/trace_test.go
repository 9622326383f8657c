package graph_test

import (
	"encoding/json"
	"testing"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/eventstore"
)

func TestEventsKeepTheTraceContextOfTheirRequest(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	const open = `mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { position } } }`
	b.post(open, nil, "Traceparent", parent, "Tracestate", "a=1")
	b.post(open, nil)
	for i, want := range []eventstore.Trace{{Parent: parent, State: "a=1"}, {}} {
		var text []byte
		must(t, b.pool.QueryRow(t.Context(), `select metadata from events where position = $1`, i+1).Scan(&text))
		var metadata eventstore.Metadata
		must(t, json.Unmarshal(text, &metadata))
		if metadata.Trace != want {
			t.Errorf("event %d has %+v, want %+v", i+1, metadata.Trace, want)
		}
	}
}
