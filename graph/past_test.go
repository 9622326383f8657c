package graph_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/identity"
)

// many lets one request have as many fields as a test likes.
func many() graph.Config {
	return graph.Config{MaxRootFields: 1000, MaxAliases: 1000, MaxCost: 1_000_000, MaxTokens: 100_000, MaxDocumentBytes: 1 << 20}
}

// drawCommand is a field of a mutation with a random command on a cart, some of which are refused.
func drawCommand(t *rapid.T, cart, more string) string {
	input := fmt.Sprintf("cartId: %q %s", cart, more)
	sku := rapid.SampledFrom([]string{"tea", "cup", "pot"}).Draw(t, "sku")
	quantity := rapid.IntRange(0, 3).Draw(t, "quantity")
	switch kind := rapid.IntRange(0, 12).Draw(t, "kind"); {
	case kind < 6:
		return fmt.Sprintf(`addItem(input: {%s, sku: %q, name: "A %s", quantity: %d, unitPrice: {amount: %d, currency: "EUR"}})`, input, sku, sku, quantity, quantity*100)
	case kind < 9:
		return fmt.Sprintf(`changeQuantity(input: {%s, sku: %q, quantity: %d})`, input, sku, quantity)
	case kind < 11:
		return fmt.Sprintf(`removeItem(input: {%s, sku: %q})`, input, sku)
	case kind == 11:
		return fmt.Sprintf(`abandonCart(input: {%s})`, input)
	default:
		return fmt.Sprintf(`checkOutCart(input: {%s})`, input)
	}
}

// Whatever happens to a cart: what it was as of each version, position and time, and in its history, is what its read
// model had then.
func TestThePastIsWhatTheReadModelHadThen(t *testing.T) {
	t.Parallel()
	b := setup(t, many())
	rapid.Check(t, func(rt *rapid.T) {
		opened := b.post(`mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { stream position } cart { `+wholeCart+` } } }`, nil)
		id := opened.at(t, "openCart", "receipt", "stream").(string)
		seen := []map[string]any{opened.at(t, "openCart", "cart").(map[string]any)}

		var commands strings.Builder
		n := rapid.IntRange(1, 8).Draw(rt, "commands")
		for i := range n {
			fmt.Fprintf(&commands, " c%d: %s { receipt { version } cart { %s } }", i, drawCommand(rt, id, ""), wholeCart)
		}
		a := b.post("mutation {"+commands.String()+"}", nil)
		for i := range n {
			// One that was refused, or had no effect, made no version.
			if cart, _ := a.at(t, fmt.Sprint("c", i), "cart").(map[string]any); cart != nil && cart["version"] != float64(len(seen)) {
				seen = append(seen, cart)
			}
		}

		var ask strings.Builder
		for i, cart := range seen {
			fmt.Fprintf(&ask, " v%d: cart(id: %q, asOf: {version: %d}) { %s }", i, id, i+1, wholeCart)
			fmt.Fprintf(&ask, " p%d: cart(id: %q, asOf: {position: %q}) { %s }", i, id, cart["position"], wholeCart)
			fmt.Fprintf(&ask, " t%d: cart(id: %q, asOf: {time: %q}) { %s }", i, id, cart["updatedAt"], wholeCart)
		}
		past := b.post(`{`+ask.String()+fmt.Sprintf(` history(id: %q) { nodes { version position recordedAt state { ... on Cart { %s } } } }`, id, wholeCart)+`}`, nil)
		if past.code() != nil || a.code() != nil {
			rt.Fatalf("%s, after %s", past.raw, a.raw)
		}
		for i, cart := range seen {
			same(rt, fmt.Sprint("version ", i+1), past.at(t, fmt.Sprint("v", i)), cart)
			same(rt, fmt.Sprint("position ", cart["position"]), past.at(t, fmt.Sprint("p", i)), cart)
			same(rt, fmt.Sprint("time ", cart["updatedAt"]), past.at(t, fmt.Sprint("t", i)), cart)
			same(rt, fmt.Sprint("history ", i), past.at(t, "history", "nodes", i), map[string]any{
				"version": float64(i + 1), "position": cart["position"], "recordedAt": cart["updatedAt"], "state": cart,
			})
		}
	})
}

func same(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, got, want any,
) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if string(g) != string(w) {
		t.Fatalf("%s is %s, want %s", what, g, w)
	}
}

func TestTheBoundsOfThePast(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxFold: 3})
	id := b.openCart()
	for range 3 {
		b.post(addItem, in{"cart": id, "price": 1})
	}
	first, err := eventAt(b, 1)
	must(t, err)
	ask := func(asOf string) answer {
		return b.post(fmt.Sprintf(`query($c: ID!) { cart(id: $c, asOf: {%s}) { version } }`, asOf), in{"c": id})
	}
	moment := func(d time.Duration) string { return fmt.Sprintf("time: %q", first.Add(d).Format(time.RFC3339Nano)) }
	equal(t, "when it was recorded", ask(moment(0)).at(t, "cart", "version"), any(1.0))
	equal(t, "a moment before", ask(moment(-time.Microsecond)).at(t, "cart"), nil)
	equal(t, "long before", ask(`time: "0001-01-01T00:00:00Z"`).at(t, "cart"), nil)
	equal(t, "before the log", ask(`position: 0`).at(t, "cart"), nil)
	equal(t, "before it began", ask(`version: 0`).at(t, "cart"), nil)
	equal(t, "no cart", b.post(`{ cart(id: "cart-none", asOf: {version: 3}) { id } }`, nil).at(t, "cart"), nil)
	equal(t, "another's id", b.post(`{ cart(id: "user-none", asOf: {version: 3}) { id } }`, nil).at(t, "cart"), nil)
	equal(t, "no id", b.post(`query($c: ID!) { cart(id: $c, asOf: {version: 3}) { id } }`, in{"c": "cart-\x00"}).at(t, "cart"), nil)
	for asOf, code := range map[string]string{
		`position: 5`:                     "POSITION_BEYOND_HEAD",
		`version: 5`:                      "HISTORY_TOO_LONG",
		`version: 4`:                      "HISTORY_TOO_LONG",
		`position: 4`:                     "HISTORY_TOO_LONG",
		`version: -1`:                     "BAD_USER_INPUT",
		`time: "2999-01-01T00:00:00Z"`:    "TIME_IN_FUTURE",
		`version: 1, position: 1`:         "GRAPHQL_VALIDATION_FAILED",
		``:                                "GRAPHQL_VALIDATION_FAILED",
		`position: null`:                  "GRAPHQL_VALIDATION_FAILED",
		`version: 1, time: null`:          "GRAPHQL_VALIDATION_FAILED",
		`version: 99999999999999999999, `: "GRAPHQL_VALIDATION_FAILED",
	} {
		if a := ask(asOf); a.code() != code {
			t.Errorf("%s: want %s, got %s", asOf, code, a.raw)
		}
	}
	for name, asOf := range map[string]in{"two": {"version": 1, "position": "1"}, "none": {}, "null": {"version": nil}} {
		a := b.post(`query($c: ID!, $at: AsOf) { cart(id: $c, asOf: $at) { version } }`, in{"c": id, "at": asOf})
		if code := a.code(); code != "BAD_USER_INPUT" && code != "GRAPHQL_VALIDATION_FAILED" {
			t.Errorf("%s by variable: %s", name, a.raw)
		}
	}
	equal(t, "as of no moment in particular", b.post(`query($c: ID!, $at: AsOf) { cart(id: $c, asOf: $at) { version } }`, in{"c": id, "at": nil}).at(t, "cart", "version"), any(4.0))
	short := b.openCart()
	beyond := b.post(`query($c: ID!) { cart(id: $c, asOf: {version: 2}) { version } }`, in{"c": short})
	equal(t, "a version that is not there", beyond.code(), any("VERSION_BEYOND_HEAD"))
	equal(t, "which is there", beyond.Errors[0].Extensions["version"], any(1.0))
	states := b.post(`query($c: ID!) { history(id: $c) { nodes { version state { id } } } }`, in{"c": id})
	equal(t, "states of a long history", states.code(), any("HISTORY_TOO_LONG"))
	equal(t, "its events", states.at(t, "history", "nodes", 3, "version"), any(4.0))
}

func eventAt(b *bundle, position int64) (time.Time, error) {
	var at time.Time
	err := b.pool.QueryRow(b.t.Context(), `select recorded_at from events where position = $1`, position).Scan(&at)
	return at, err
}

// With atLeast, what is asked of the past does not wait for a read model: the log includes all that a token stands for.
func TestThePastWaitsForNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id, _, latest := b.behind()
	a := b.ask(`query($c: ID!, $t: Token) { cart(id: $c, asOf: {version: 2}, atLeast: $t, within: "30s") { version } history(id: $c) { totalCount } }`,
		in{"c": id, "t": latest}, in{"freshness": true})
	equal(t, "version", a.at(t, "cart", "version"), any(2.0))
	equal(t, "history", a.at(t, "history", "totalCount"), any(2.0))
	if a.Extensions != nil {
		t.Errorf("no read model was read: %s", a.raw)
	}
	// One that its read model does not know at all yet.
	opened := b.post(`mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { stream } } }`, nil).at(t, "openCart", "receipt", "stream")
	equal(t, "a new one", b.post(`query($c: ID!) { history(id: $c) { totalCount } }`, in{"c": opened}).at(t, "history", "totalCount"), any(1.0))
}

func TestHistoryIsPaged(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	for i := range 6 {
		b.post(addItem, in{"cart": id, "price": i}, "X-Actor", "ada", "X-Request-Id", fmt.Sprint("r-", i))
	}
	whole := `{ edges { cursor node { version type actor commandId correlationId causationId schemaVersion data state { ... on Cart { version items { sku quantity } } } } }
		nodes { version } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount }`
	ask := func(arguments string) map[string]any {
		page, _ := b.post(fmt.Sprintf(`{ history(id: %q %s) %s }`, id, arguments, whole), nil).at(t, "history").(map[string]any)
		return page
	}
	versions := func(page map[string]any) (out []int) {
		for i, edge := range page["edges"].([]any) {
			node := edge.(map[string]any)["node"].(map[string]any)
			version := int(node["version"].(float64))
			equal(t, "state", node["state"].(map[string]any)["version"], any(float64(version)))
			equal(t, "cursor", edge.(map[string]any)["cursor"], any(fmt.Sprint(version)))
			equal(t, "node", page["nodes"].([]any)[i].(map[string]any)["version"], any(float64(version)))
			out = append(out, version)
		}
		return out
	}
	for arguments, want := range map[string]string{
		"":                          "[1 2 3 4 5 6 7] false false",
		", first: 3":                "[1 2 3] true false",
		`, first: 3, after: "3"`:    "[4 5 6] true true",
		`, first: 3, after: "6"`:    "[7] false true",
		`, first: 3, after: "7"`:    "[] false true",
		", last: 2":                 "[6 7] false true",
		`, last: 2, before: "6"`:    "[4 5] true true",
		`, last: 5, before: "3"`:    "[1 2] true false",
		`, after: "2", before: "5"`: "[3 4] true true",
		", first: 0":                "[] true false",
	} {
		page := ask(arguments)
		info := page["pageInfo"].(map[string]any)
		if got := fmt.Sprint(versions(page), info["hasNextPage"], info["hasPreviousPage"]); got != want || page["totalCount"] != 7.0 {
			t.Errorf("%s: %s, want %s", arguments, got, want)
		}
	}
	last := ask(", last: 1")["edges"].([]any)[0].(map[string]any)["node"].(map[string]any)
	equal(t, "type", last["type"], any("cart.item_added"))
	equal(t, "actor", last["actor"], any("ada"))
	equal(t, "request", last["correlationId"], any("r-5"))
	equal(t, "data", last["data"].(map[string]any)["sku"], any("tea"))
	for _, none := range []string{"cart-none", "event-1", "activity-1-1", "nothing", ""} {
		equal(t, none, b.post(`query($id: ID!) { history(id: $id) { totalCount } }`, in{"id": none}).at(t, "history"), nil)
	}
	for _, wrong := range []string{", first: -1", ", first: 101", ", first: 1, last: 1", `, after: "x"`, `, before: "-1"`} {
		equal(t, wrong, b.post(fmt.Sprintf(`{ history(id: %q %s) { totalCount } }`, id, wrong), nil).code(), any("BAD_USER_INPUT"))
	}
}

// Orders and users have a past as carts have.
func TestEveryTypeHasAPast(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	carts, orders, users := b.fill(1)
	b.post(`mutation($o: ID!) { payOrder(input: {orderId: $o, reference: "r"}) { order { id } } }`, in{"o": orders[0]})
	a := b.post(`query($c: ID!, $o: ID!, $u: ID!) {
		cart(id: $c, asOf: {version: 2}) { status items { sku } } order(id: $o, asOf: {version: 1}) { status } user(id: $u, asOf: {version: 1}) { status }
		c: history(id: $c) { nodes { type state { __typename id } } } o: history(id: $o) { nodes { type causationId state { __typename ... on Order { status } } } }
		u: history(id: $u) { nodes { type state { __typename id } } } }`, in{"c": carts[0], "o": orders[0], "u": users[0]})
	equal(t, "cart", a.at(t, "cart", "status"), any("OPEN"))
	equal(t, "order", a.at(t, "order", "status"), any("PLACED"))
	equal(t, "user", a.at(t, "user", "status"), any("ACTIVE"))
	equal(t, "cart's last", a.at(t, "c", "nodes", 2, "type"), any("cart.checked_out"))
	equal(t, "cart's state", a.at(t, "c", "nodes", 2, "state", "id"), any(carts[0]))
	equal(t, "order's state", a.at(t, "o", "nodes", 1, "state", "status"), any("PAID"))
	equal(t, "why it was placed", a.at(t, "o", "nodes", 0, "causationId") != nil, true)
	equal(t, "user's state", a.at(t, "u", "nodes", 0, "state", "__typename"), any("User"))
}

// A page costs as many statements whether it has one event or a hundred, and folds only when a state is selected.
func TestHistoryAsksAsOftenForOneEventAsForAHundred(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.each(110, func(i int) string {
		return fmt.Sprintf(`addItem(input: {cartId: %q, sku: "tea", name: "Tea", quantity: 1, unitPrice: {amount: 1, currency: "EUR"}}) { userErrors { code } }`, id)
	})
	b.settle()
	for _, c := range []struct {
		node string
		want int
	}{
		{"version data metadata: actor", 3},              // whether it may be seen, the version, and the page
		{"version state { ... on Cart { version } }", 4}, // and the events before the page, in one
	} {
		for _, n := range []int{1, 100} {
			b.asked.take()
			a := b.post(`query($c: ID!, $n: Int) { history(id: $c, first: $n, after: "10") { nodes { `+c.node+` } edges { node { `+c.node+` } } } }`, in{"c": id, "n": n})
			equal(t, "entries", len(a.at(t, "history", "nodes").([]any)), n)
			if asked := b.asked.take(); len(asked) != c.want {
				t.Errorf("%d of %s took %d statements: %s", n, c.node, len(asked), strings.Join(asked, ";\n"))
			}
		}
	}
}

// Who may not see an object sees nothing of its past either.
func TestThePastIsForThoseWhoSeeThePresent(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: func(ctx context.Context, r *http.Request, _ map[string]any) (context.Context, time.Time, error) {
		return identity.NewContext(ctx, identity.Identity{Subject: r.Header.Get("X-Actor")}), time.Time{}, nil
	}})
	opened := b.post(openCart, nil, "X-Actor", "ada")
	id := opened.at(t, "openCart", "receipt", "stream")
	document := `query($c: ID!) { cart(id: $c) { id } past: cart(id: $c, asOf: {version: 1}) { id } history(id: $c) { totalCount nodes { state { id } } } }`
	own := b.post(document, in{"c": id}, "X-Actor", "ada")
	equal(t, "own", own.at(t, "past", "id"), id)
	equal(t, "own history", own.at(t, "history", "nodes", 0, "state", "id"), id)
	other, none := b.post(document, in{"c": id}, "X-Actor", "eve"), b.post(document, in{"c": "cart-none"}, "X-Actor", "eve")
	same(t, "another's", other.Data, none.Data)
	for field := range maps.Keys(other.Data) {
		equal(t, field, other.at(t, field), nil)
	}
}
