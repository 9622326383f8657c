package graph_test

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
)

func TestFaultsOfTheDatabaseAreMasked(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.settle()
	b.stop()
	_, err := b.pool.Exec(t.Context(), `drop table cart_v1 cascade`)
	must(t, err)
	a := b.post(`query($id: ID!) { cart(id: $id) { id } events(first: 1) { nodes { id } } }`, in{"id": id}, "X-Request-Id", "r-77")
	equal(t, "code", a.code(), any("INTERNAL_SERVER_ERROR"))
	equal(t, "path", a.Errors[0].Path[0], any("cart"))
	equal(t, "the other field", a.at(t, "events", "nodes", 0, "id"), any("event-1"))
	if strings.Contains(a.raw, "SQLSTATE") {
		t.Fatalf("the client is told: %s", a.raw)
	}
	logID, _ := a.Errors[0].Extensions["id"].(string)
	for _, part := range []string{logID, "SQLSTATE 42P01", "r-77", "path=cart"} {
		if part == "" || !strings.Contains(b.log.String(), part) {
			t.Fatalf("no %q in the log: %s", part, b.log)
		}
	}
	equal(t, "echoed id", a.header.Get("X-Request-Id"), "r-77")
}

// A resolver without anything behind it panics in every field.
func TestPanicsAreMasked(t *testing.T) {
	t.Parallel()
	log := &logged{}
	handler, err := graph.NewHandler(&graph.Resolver{}, graph.Config{Logger: slogTo(log), Login: auth.Off})
	must(t, err)
	for _, accept := range []string{"application/json", "text/event-stream"} {
		for _, document := range []string{
			`{ event(position: 1) { id } }`, `mutation { abandonCart(input: {cartId: \"x\"}) { receipt { version } } }`, `subscription { events { id } }`,
		} {
			if accept == "application/json" && strings.HasPrefix(document, "subscription") {
				continue
			}
			request := httptest.NewRequestWithContext(t.Context(), "POST", "/graphql", strings.NewReader(`{"query": "`+document+`"}`))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Accept", accept)
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			body := recorder.Body.String()
			if !strings.Contains(body, "INTERNAL_SERVER_ERROR") || strings.Contains(body, "nil pointer") || strings.Contains(body, ".go") {
				t.Errorf("%s over %s is answered by %s", document, accept, body)
			}
			if !strings.Contains(log.String(), "nil pointer") || !strings.Contains(log.String(), "goroutine") {
				t.Errorf("%s over %s is not logged whole: %s", document, accept, log)
			}
			log.mu.Lock()
			log.text = bytes.Buffer{}
			log.mu.Unlock()
		}
	}
}

func TestHaltedReadModelSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.settle()
	b.stop()
	_, err := b.pool.Exec(t.Context(), `update checkpoints set halted_at = now(), halt_reason = 'secret' where name = 'cart_v1'`)
	must(t, err)
	a := b.post(`mutation($id: ID!) { abandonCart(input: {cartId: $id}) { receipt { version } userErrors { code } cart(within: "30s") { version } } }`, in{"id": id})
	equal(t, "version", a.at(t, "abandonCart", "receipt", "version"), 2.0)
	equal(t, "code", a.code(), any("PROJECTION_HALTED"))
	equal(t, "position", a.Errors[0].Extensions["position"], any("1"))
	equal(t, "told", strings.Contains(a.raw, "secret"), false)
	old := b.post(`query($id: ID!) { cart(id: $id) { version } }`, in{"id": id})
	equal(t, "what it has", old.at(t, "cart", "version"), 1.0)
}

func TestTokensOfOtherHistoriesAreToldApart(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	head, err := b.store.Head(t.Context())
	must(t, err)
	foreign, restored, ahead := head, head, head
	foreign.LogID = uuid.New()
	restored.Epoch++
	ahead.Position = 99
	for _, c := range []struct {
		name  string
		token string
		code  any
	}{
		{"this log's", head.String(), nil},
		{"none at all", eventstore.Token{}.String(), nil},
		{"another log's", foreign.String(), "LOG_DIVERGED"},
		{"another epoch's", restored.String(), "LOG_DIVERGED"},
		{"beyond the head", ahead.String(), "POSITION_BEYOND_HEAD"},
		{"made up", "abc", "BAD_USER_INPUT"},
	} {
		for _, document := range []string{
			`query($t: Token) { cart(id: "cart-1", atLeast: $t, within: "30s") { id } }`,
			`query($t: Token) { orders(atLeast: $t, within: "PT30S") { totalCount } }`,
			`query($t: Token) { activity(atLeast: $t, within: "30s") { totalCount } }`,
			`query($t: Token) { node(id: "user-1", atLeast: $t, within: "30s") { id } }`,
		} {
			equal(t, c.name+" in "+document, b.post(document, in{"t": c.token}).code(), c.code)
		}
	}
}

// A request that ends before its append does has an unknown outcome, which the same command id finds out.
func TestUnknownOutcomeIsFoundOut(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{RequestTimeout: 3 * time.Second}) // within which it is sent
	blocker, err := b.pool.Begin(t.Context())
	must(t, err)
	_, err = blocker.Exec(t.Context(), `lock table events in share row exclusive mode`)
	must(t, err)
	a := b.post(openCart, in{"id": "c1"})
	equal(t, "code", a.code(), any("UNKNOWN_OUTCOME"))
	equal(t, "command id", a.Errors[0].Extensions["commandId"], any("c1"))
	must(t, blocker.Rollback(t.Context()))
	again := b.post(openCart, in{"id": "c1"})
	for deadline := time.Now().Add(patience); again.code() != nil && time.Now().Before(deadline); {
		again = b.post(openCart, in{"id": "c1"})
	}
	if again.code() != nil {
		t.Fatal(again.raw)
	}
	equal(t, "position", again.at(t, "openCart", "receipt", "position"), any("1"))
	head := b.post(`{ events { head } }`, nil)
	equal(t, "events", head.at(t, "events", "head"), any("1"))
}

// What the log cannot take is refused at once, with the time after which to try again, and nothing of it was written.
func TestAnOverloadedLogSaysSo(t *testing.T) {
	t.Parallel()
	b := setupWith(t, graph.Config{}, parts{store: eventstore.Config{QueueRequests: 2}})
	blocker, err := b.pool.Begin(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = blocker.Rollback(context.Background()) }) // the server waits for its writes when it closes
	_, err = blocker.Exec(t.Context(), `lock table events in share row exclusive mode`)
	must(t, err)
	const all = 12
	answers := make(chan answer, all)
	for range all {
		go func() { answers <- b.post(openCart, nil) }()
	}
	refused := 0
	for range all - 4 { // two wait, and those that are being written are one or two
		a := <-answers
		equal(t, "code", a.code(), any("OVERLOADED"))
		equal(t, "path", a.Errors[0].Path[0], any("openCart"))
		if after, _ := a.Errors[0].Extensions["retryAfterMs"].(float64); after <= 0 {
			t.Errorf("no time to try again after: %s", a.raw)
		}
		refused++
	}
	must(t, blocker.Rollback(t.Context()))
	carriedOut := 0
	for range all - refused {
		switch code := (<-answers).code(); code {
		case nil:
			carriedOut++
		case "OVERLOADED":
		default:
			t.Errorf("one that waited was answered with %v", code)
		}
	}
	if carriedOut < 2 {
		t.Errorf("%d of those that waited were carried out", carriedOut)
	}
	head, err := b.store.Head(t.Context())
	must(t, err)
	equal(t, "events", head.Position, int64(carriedOut))
}

// A unique key that is taken is a refusal, also where the write model has no words of its own for it. Who has it is not
// told.
func TestATakenClaimIsARefusal(t *testing.T) {
	t.Parallel()
	b := setupWith(t, graph.Config{}, parts{users: func(d *commands.Decider[user.Command, user.Event, user.State]) {
		effects := d.Effects
		d.Effects = func(before user.State, events []user.Event) commands.Effects {
			out := effects(before, events)
			for i := range out.Claim {
				out.Claim[i].Taken = nil
			}
			return out
		}
	}})
	const register = `mutation { registerUser(input: {email: "ada@example.org", name: "Ada"}) { receipt { stream } userErrors { code message field } user { id } } }`
	first := b.post(register, nil)
	owner := first.at(t, "registerUser", "receipt", "stream").(string)
	second := b.post(register, nil)
	equal(t, "top-level error", second.code(), nil)
	equal(t, "receipt", second.at(t, "registerUser", "receipt"), nil)
	equal(t, "code", second.at(t, "registerUser", "userErrors", 0, "code"), any("CLAIM_TAKEN"))
	equal(t, "user", second.at(t, "registerUser", "user"), nil)
	if strings.Contains(second.raw, owner) {
		t.Errorf("the owner is told: %s", second.raw)
	}
}
