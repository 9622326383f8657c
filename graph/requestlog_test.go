package graph_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
)

// operations are the lines of the log about operations.
func (l *logged) operations() []string {
	var lines []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, `msg="GraphQL operation"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestEachOperationLeavesOneLineInTheLog(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{LogRequests: true})
	const secret = "do-not-log-me"
	for _, c := range []struct {
		document string
		want     []string
	}{
		{
			`mutation Open { openCart(input: {ownerId: "` + secret + `", currency: "EUR"}) { receipt { version } } }`,
			[]string{"operation=Open", "kind=mutation", "correlation_id=r-1", "duration="},
		},
		{`query Head { events(after: "999") { head } }`, []string{"operation=Head", "kind=query", "codes=[POSITION_BEYOND_HEAD]"}},
		{`query Wrong { ` + strings.ReplaceAll(secret, "-", "_") + ` }`, []string{"kind=unknown", "codes=[GRAPHQL_VALIDATION_FAILED]"}},
		{`query Deep { __schema { types { name } } }`, []string{"operation=Deep", "kind=query", "codes=[INTROSPECTION_DISABLED]"}},
	} {
		before := len(b.log.operations())
		b.post(c.document, map[string]any{"unused": secret}, "X-Request-Id", "r-1")
		lines := b.log.operations()[before:]
		if len(lines) != 1 {
			t.Fatalf("%s left %d lines: %v", c.document, len(lines), lines)
		}
		for _, want := range c.want {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s left %s, which lacks %s", c.document, lines[0], want)
			}
		}
	}
	if text := strings.ReplaceAll(b.log.String(), "_", "-"); strings.Contains(text, secret) {
		t.Fatalf("the log says what clients sent: %s", text)
	}
}

func TestAStreamLeavesItsLineAtItsEnd(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{LogRequests: true})
	b.openCart()
	stream := b.follow(`subscription Watch { events(after: "0") { position } }`)
	stream.expect("id: 1", "event: next", `data: {"data":{"events":{"position":"1"}}}`)
	for _, line := range b.log.operations() {
		if strings.Contains(line, "Watch") {
			t.Fatalf("an open stream has left %s", line)
		}
	}
	stream.close()
	for deadline := time.Now().Add(patience); ; {
		lines := b.log.operations()
		if last := lines[len(lines)-1]; strings.Contains(last, "operation=Watch kind=subscription") && strings.Contains(last, "results=1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log has %v", lines)
		}
	}
}

func TestOperationsAreNotLoggedUnlessAskedFor(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	equal(t, "status", b.post(`{ __typename }`, nil).status, http.StatusOK)
	equal(t, "lines", len(b.log.operations()), 0)
}
