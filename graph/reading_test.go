package graph_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/eventstore"
)

// ask posts a document with what extensions.headrace is to hold, unless that is nil.
func (b *bundle) ask(document string, variables, headrace map[string]any, headers ...string) answer {
	b.t.Helper()
	request := map[string]any{"query": document, "variables": variables}
	if headrace != nil {
		request["extensions"] = map[string]any{"headrace": headrace}
	}
	body, err := json.Marshal(request)
	must(b.t, err)
	post, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/graphql", bytes.NewReader(body))
	must(b.t, err)
	post.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		post.Header.Set(headers[i], headers[i+1])
	}
	return b.do(post)
}

// behind is a cart that the stopped read models do not have in its last version, and the tokens before and after that.
func (b *bundle) behind() (id, old, latest string) {
	b.t.Helper()
	opened := b.post(openCart, nil)
	id = opened.at(b.t, "openCart", "receipt", "stream").(string)
	b.settle()
	b.stop()
	added := b.post(`mutation($c: ID!) { addItem(input: {cartId: $c, sku: "tea", name: "Tea", quantity: 1, unitPrice: {amount: 1, currency: "EUR"}}) {
		receipt { token } } }`, in{"c": id})
	return id, opened.at(b.t, "openCart", "receipt", "token").(string), added.at(b.t, "addItem", "receipt", "token").(string)
}

const readCart = `query($c: ID!, $t: Token, $on: OnTimeout) { cart(id: $c, atLeast: $t, onTimeout: $on) { version } }`

// Wherever a request says its tokens, the highest counts, and for all that it reads.
func TestTheHighestTokenOfARequestCounts(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id, old, latest := b.behind()
	soon := []string{"Headrace-Within", "50ms"}
	with := func(more ...string) []string { return append(more, soon...) }
	equal(t, "what is there", b.ask(readCart, in{"c": id, "t": old}, in{"atLeast": old}, with("Headrace-At-Least", old)...).at(t, "cart", "version"), any(1.0))
	for name, a := range map[string]answer{
		"argument":              b.ask(readCart, in{"c": id, "t": latest}, nil, soon...),
		"header":                b.ask(readCart, in{"c": id}, nil, with("Headrace-At-Least", latest)...),
		"extension":             b.ask(readCart, in{"c": id}, in{"atLeast": latest}, soon...),
		"argument, then header": b.ask(readCart, in{"c": id, "t": old}, nil, with("Headrace-At-Least", latest)...),
		"header, then argument": b.ask(readCart, in{"c": id, "t": latest}, nil, with("Headrace-At-Least", old)...),
		"extension over header": b.ask(readCart, in{"c": id}, in{"atLeast": latest}, with("Headrace-At-Least", old)...),
		"header over extension": b.ask(readCart, in{"c": id}, in{"atLeast": old}, with("Headrace-At-Least", latest)...),
		"lists":                 b.ask(`{ carts { nodes { id } } }`, nil, in{"atLeast": latest}, soon...),
		"nodes":                 b.ask(`query($c: ID!) { node(id: $c) { id } }`, in{"c": id}, in{"atLeast": latest}, soon...),
		"another field's": b.ask(`query($c: ID!, $t: Token) { cart(id: $c) { id } carts(atLeast: $t, within: "50ms") { totalCount } }`,
			in{"c": id, "t": latest}, nil, soon...),
		"within a fragment": b.ask(`query($c: ID!, $t: Token) { cart(id: $c) { id } ...f } fragment f on Query { users(atLeast: $t) { totalCount } }`,
			in{"c": id, "t": latest}, nil, soon...),
	} {
		if a.code() != "PROJECTION_BEHIND" {
			t.Errorf("%s: %s", name, a.raw)
		}
		for _, part := range []string{"projection", "position", "wanted", "head", "millisecondsBehind"} {
			if len(a.Errors) > 0 && a.Errors[0].Extensions[part] == nil {
				t.Errorf("%s: no %s in %s", name, part, a.raw)
			}
		}
	}
	skipped := b.ask(`query($c: ID!, $t: Token, $no: Boolean = false) { cart(id: $c) { id } carts(atLeast: $t) @include(if: $no) { totalCount } }`,
		in{"c": id, "t": latest}, nil, soon...)
	equal(t, "a field that is left out", skipped.code(), nil)
	unread := b.ask(`{ event(position: 1) { id } __typename }`, nil, in{"atLeast": latest}, soon...)
	equal(t, "what no read model answers", unread.code(), nil)
	changed := b.ask(`mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { version } } }`, nil, in{"atLeast": latest}, soon...)
	equal(t, "a mutation that selects no object", changed.code(), nil)
	payload := b.ask(`mutation($c: ID!) { abandonCart(input: {cartId: $c}) { receipt { version } cart { id } } }`, in{"c": id}, in{"atLeast": latest}, soon...)
	equal(t, "a payload's object", payload.code(), any("PROJECTION_BEHIND"))
	equal(t, "the receipt beside it", payload.at(t, "abandonCart", "receipt", "version"), any(3.0))
}

func TestSubscriptionsBeginWithWhatTheRequestAskedFor(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id, _, latest := b.behind()
	follow := func(onTimeout string) string {
		return b.ask(`subscription($c: ID!) { cartChanged(id: $c) { version } }`, in{"c": id},
			in{"atLeast": latest, "within": "50ms", "onTimeout": onTimeout}, "Accept", "text/event-stream").raw
	}
	if text := follow("ERROR"); !strings.Contains(text, "PROJECTION_BEHIND") {
		t.Errorf("got %s", text)
	}
	list := b.ask(`subscription { cartsChanged { kind } }`, nil, in{"atLeast": latest, "within": "50ms"}, "Accept", "text/event-stream").raw
	if !strings.Contains(list, "PROJECTION_BEHIND") {
		t.Errorf("a live list: got %s", list)
	}
	// Nothing changes any more, so that the stream has to be left after its first message.
	stream := b.followWith(`subscription { cartChanged(id: "`+id+`") { version } }`,
		"Headrace-At-Least", latest, "Headrace-Within", "50ms", "Headrace-On-Timeout", "STALE")
	defer stream.close()
	text := ""
	for !strings.HasPrefix(text, "data:") && text != "end" {
		text = stream.lineAfterComments()
	}
	if !strings.Contains(text, `"version":1`) || !strings.Contains(text, `"stale":true`) {
		t.Errorf("got %s", text)
	}
}

// Tokens that cannot be of this log are told apart wherever they stand, also when they are not the highest.
func TestForeignTokensAreRefusedWhereverTheyStand(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.openCart()
	b.settle()
	head, err := b.store.Head(t.Context())
	must(t, err)
	other := head
	other.LogID, other.Position = uuid.New(), 1
	gone := head
	gone.EventID, gone.Position = uuid.New(), 1
	beyond := head
	beyond.Position += 5
	good := head.String()
	for name, c := range map[string]struct {
		token eventstore.Token
		code  string
	}{
		"another log": {other, "LOG_DIVERGED"}, "another event": {gone, "LOG_DIVERGED"}, "beyond the head": {beyond, "POSITION_BEYOND_HEAD"},
	} {
		for onTimeout, where := range map[string]answer{
			"argument":  b.ask(readCart, in{"c": id, "t": c.token.String(), "on": "STALE"}, nil, "Headrace-At-Least", good),
			"header":    b.ask(readCart, in{"c": id, "on": "STALE"}, in{"atLeast": good}, "Headrace-At-Least", c.token.String()),
			"extension": b.ask(readCart, in{"c": id, "t": good, "on": "STALE"}, in{"atLeast": c.token.String()}),
			"asOf":      b.ask(`query($c: ID!) { cart(id: $c, asOf: {version: 1}) { id } }`, in{"c": id}, in{"atLeast": c.token.String()}, "Headrace-At-Least", good),
			"history":   b.ask(`query($c: ID!) { history(id: $c) { totalCount } }`, in{"c": id}, in{"atLeast": c.token.String()}),
		} {
			if where.code() != c.code {
				t.Errorf("%s by %s: want %s, got %s", name, onTimeout, c.code, where.raw)
			}
		}
	}
}

// freshness is what the answer says of a view.
func (a answer) freshness(t *testing.T, view string) map[string]any {
	t.Helper()
	all, _ := a.Extensions["freshness"].(map[string]any)
	of, _ := all[view].(map[string]any)
	return of
}

func TestAStaleAnswerSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id, old, latest := b.behind()
	for name, a := range map[string]answer{
		"argument":             b.ask(readCart, in{"c": id, "t": latest, "on": "STALE"}, nil, "Headrace-Within", "30ms"),
		"header":               b.ask(readCart, in{"c": id}, nil, "Headrace-At-Least", latest, "Headrace-Within", "30ms", "Headrace-On-Timeout", "STALE"),
		"extension":            b.ask(readCart, in{"c": id}, in{"atLeast": latest, "within": "PT0.03S", "onTimeout": "STALE"}),
		"extension, header":    b.ask(readCart, in{"c": id, "t": latest}, in{"onTimeout": "STALE", "within": "30ms"}, "Headrace-On-Timeout", "ERROR"),
		"argument over header": b.ask(readCart, in{"c": id, "t": latest, "on": "STALE"}, in{"within": "30ms"}, "Headrace-On-Timeout", "ERROR"),
	} {
		equal(t, name, a.code(), nil)
		equal(t, name, a.at(t, "cart", "version"), any(1.0))
		equal(t, name+": stale", a.freshness(t, "cart")["stale"], any(true))
	}
	for name, a := range map[string]answer{
		"extension over header": b.ask(readCart, in{"c": id, "t": latest}, in{"onTimeout": "ERROR", "within": "30ms"}, "Headrace-On-Timeout", "STALE"),
		"argument over both":    b.ask(readCart, in{"c": id, "t": latest, "on": "ERROR"}, in{"onTimeout": "STALE", "within": "30ms"}, "Headrace-On-Timeout", "STALE"),
	} {
		equal(t, name, a.code(), any("PROJECTION_BEHIND"))
	}
	payload := b.ask(`mutation($c: ID!) { abandonCart(input: {cartId: $c}) { receipt { version } cart(within: "30ms", onTimeout: STALE) { version } } }`, in{"c": id}, nil)
	equal(t, "a payload's object", payload.at(t, "abandonCart", "cart", "version"), any(1.0))
	equal(t, "and that it is stale", payload.freshness(t, "cart")["stale"], any(true))
	current := b.ask(readCart, in{"c": id, "t": old, "on": "STALE"}, in{"freshness": true})
	equal(t, "what includes all that was asked for", current.freshness(t, "cart")["stale"], any(false))
	if a := b.ask(readCart, in{"c": id, "t": old, "on": "STALE"}, nil); a.Extensions != nil {
		t.Errorf("an answer that is not stale says unasked: %s", a.raw)
	}
}

func TestFreshnessIsTrue(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id, _, _ := b.behind()
	both := `query($c: ID!) { cart(id: $c) { id } again: carts { totalCount } users { totalCount } }`
	a := b.ask(both, in{"c": id}, nil, "Headrace-Freshness", "true")
	var position, head int64
	must(t, b.pool.QueryRow(t.Context(), `select position, (select max(position) from events) from checkpoints where name = 'cart_v1'`).Scan(&position, &head))
	got := a.freshness(t, "cart")
	equal(t, "position", got["position"], any(strconv.FormatInt(position, 10)))
	equal(t, "head", got["head"], any(strconv.FormatInt(head, 10)))
	equal(t, "events behind", got["eventsBehind"], any(float64(head-position)))
	equal(t, "stale, with nothing asked for", got["stale"], any(false))
	if ms, _ := got["millisecondsBehind"].(float64); ms < 0 {
		t.Errorf("%v ms behind", ms)
	}
	if a.freshness(t, "user") == nil || a.freshness(t, "order") != nil {
		t.Errorf("the views that were read, and no others: %s", a.raw)
	}
	// Another process appends and nobody here knows of it: the head is the log's all the same.
	_, err := b.pool.Exec(t.Context(), `insert into events select position + 1, version + 1, recorded_at, gen_random_uuid(), stream, type, schema_version, data, metadata
		from events order by position desc limit 1`)
	must(t, err)
	equal(t, "head", b.ask(both, in{"c": id}, in{"freshness": true}).freshness(t, "cart")["head"], any(strconv.FormatInt(head+1, 10)))
	if a := b.ask(both, in{"c": id}, in{"freshness": false}, "Headrace-Freshness", "false"); a.Extensions != nil {
		t.Errorf("unasked: %s", a.raw)
	}
	always := setup(t, graph.Config{Freshness: true})
	if a := always.ask(both, in{"c": id}, nil); a.freshness(t, "cart") == nil {
		t.Errorf("always: %s", a.raw)
	}
}

func TestWhatCannotBeReadOfARequestIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	ask := `{ carts { totalCount } }`
	for name, a := range map[string]answer{
		"token":             b.ask(ask, nil, nil, "Headrace-At-Least", "abc"),
		"duration":          b.ask(ask, nil, nil, "Headrace-Within", "soon"),
		"long duration":     b.ask(ask, nil, nil, "Headrace-Within", "31s"),
		"on timeout":        b.ask(ask, nil, nil, "Headrace-On-Timeout", "stale"),
		"freshness":         b.ask(ask, nil, nil, "Headrace-Freshness", "1"),
		"extension: token":  b.ask(ask, nil, in{"atLeast": 5}),
		"extension: within": b.ask(ask, nil, in{"within": "-1s"}),
		"extension: on":     b.ask(ask, nil, in{"onTimeout": true}),
		"extension: fresh":  b.ask(ask, nil, in{"freshness": "yes"}),
		"extension: typo":   b.ask(ask, nil, in{"atleast": "x"}),
	} {
		if a.code() != "BAD_USER_INPUT" || a.Data != nil || len(a.Errors[0].Message) < 20 {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	text := b.do(b.raw(`{"query": "{ carts { totalCount } }", "extensions": {"headrace": "x"}}`))
	equal(t, "no object", text.code(), any("BAD_USER_INPUT"))
	equal(t, "nothing said", b.ask(ask, nil, in{"atLeast": nil}).code(), nil)
}

func (b *bundle) raw(body string) *http.Request {
	post, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/graphql", strings.NewReader(body))
	must(b.t, err)
	post.Header.Set("Content-Type", "application/json")
	return post
}
