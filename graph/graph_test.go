package graph_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

const openCart = `mutation($id: ID) { openCart(input: {ownerId: "ada", currency: "EUR", commandId: $id}) {
  receipt { stream version position token duplicate } userErrors { code field } cart { id status version } } }`

const addItem = `mutation($cart: ID!, $price: MinorUnits!, $version: Int) { addItem(input: {cartId: $cart, sku: "tea", name: "Tea",
  quantity: 2, unitPrice: {amount: $price, currency: "EUR"}, expectedVersion: $version}) {
  receipt { version token } userErrors { code field } cart { version total { amount } items { lineTotal { amount } } } } }`

func (b *bundle) openCart() string {
	b.t.Helper()
	return b.post(openCart, nil).at(b.t, "openCart", "receipt", "stream").(string)
}

func TestMainPathFromCartToOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	added := b.post(addItem, map[string]any{"cart": id, "price": 450, "version": 1})
	equal(t, "total", added.at(t, "addItem", "cart", "total", "amount"), 900.0)
	out := b.post(`mutation($c: ID!) { checkOutCart(input: {cartId: $c}) { orderId cart { status } order(within: "PT20S") { id status cartId } } }`,
		map[string]any{"c": id})
	equal(t, "cart", out.at(t, "checkOutCart", "cart", "status"), "CHECKED_OUT")
	equal(t, "order", out.at(t, "checkOutCart", "order", "status"), "PLACED")
	orderID := out.at(t, "checkOutCart", "orderId")
	equal(t, "order's id", out.at(t, "checkOutCart", "order", "id"), orderID)
	paid := b.post(`mutation($o: ID!) { payOrder(input: {orderId: $o, reference: "r1"}) { receipt { token } order { status paymentReference } } }`,
		map[string]any{"o": orderID})
	equal(t, "paid", paid.at(t, "payOrder", "order", "status"), "PAID")
	node := b.post(`query($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }`, map[string]any{"ids": []any{orderID, "none-1", id, "event-1"}})
	equal(t, "node 0", node.at(t, "nodes", 0, "__typename"), "Order")
	equal(t, "node 1", node.at(t, "nodes", 1), nil)
	equal(t, "node 2", node.at(t, "nodes", 2, "id"), id)
	equal(t, "node 3", node.at(t, "nodes", 3, "__typename"), "Event")
}

func TestRefusalsAreData(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	for _, c := range []struct {
		name      string
		variables map[string]any
		code      string
	}{
		{"unknown id", map[string]any{"cart": "cart-none", "price": 1}, "CART_NOT_FOUND"},
		{"foreign id", map[string]any{"cart": "user-none", "price": 1}, "CART_NOT_FOUND"},
		{"rule", map[string]any{"cart": id, "price": -1}, "PRICE_OUT_OF_RANGE"},
		{"stale version", map[string]any{"cart": id, "price": 1, "version": 7}, "VERSION_CONFLICT"},
		{"negative version", map[string]any{"cart": id, "price": 1, "version": -1}, "INVALID_INPUT"},
	} {
		a := b.post(addItem, c.variables)
		equal(t, c.name, a.at(t, "addItem", "userErrors", 0, "code"), c.code)
		equal(t, c.name+": receipt", a.at(t, "addItem", "receipt"), nil)
		equal(t, c.name+": cart", a.at(t, "addItem", "cart"), nil)
	}
	long := b.post(openCart, map[string]any{"id": strings.Repeat("x", 101)})
	equal(t, "long command id", long.at(t, "openCart", "userErrors", 0, "code"), "TOO_LONG")
	register := `mutation { registerUser(input: {email: " Ada@Example.org", name: "Ada"}) { userErrors { code field } user { email } } }`
	b.post(register, nil)
	equal(t, "taken address", b.post(register, nil).at(t, "registerUser", "userErrors", 0, "code"), "EMAIL_TAKEN")
}

func TestSameCommandTwiceHasOneReceipt(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	first := b.post(openCart, map[string]any{"id": "c1"})
	again := b.post(openCart, map[string]any{"id": "c1"})
	equal(t, "token", again.at(t, "openCart", "receipt", "token"), first.at(t, "openCart", "receipt", "token"))
	equal(t, "duplicate", again.at(t, "openCart", "receipt", "duplicate"), true)
	other := b.post(`mutation { openCart(input: {ownerId: "eve", currency: "EUR", commandId: "c1"}) { receipt { stream } userErrors { code } } }`, nil)
	equal(t, "reused", other.at(t, "openCart", "userErrors", 0, "code"), "COMMAND_ID_REUSED")
	third := b.post(openCart, map[string]any{"id": "c1"}, "X-Actor", "someone else")
	equal(t, "duplicate for another actor", third.at(t, "openCart", "receipt", "duplicate"), false)
}

func TestCommittedCommandNeverLooksFailed(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.stop()
	a := b.post(`mutation($c: ID!) { abandonCart(input: {cartId: $c}) { receipt { version token } cart(within: "50ms") { id } } }`, map[string]any{"c": id})
	equal(t, "version", a.at(t, "abandonCart", "receipt", "version"), 2.0)
	equal(t, "cart", a.at(t, "abandonCart", "cart"), nil)
	equal(t, "code", a.code(), "PROJECTION_BEHIND")
	equal(t, "path", len(a.Errors[0].Path), 2)
	read := b.post(`query($c: ID!, $t: Token) { cart(id: $c, atLeast: $t, within: "PT0.05S") { version } }`,
		map[string]any{"c": id, "t": a.at(t, "abandonCart", "receipt", "token")})
	equal(t, "read at token", read.code(), "PROJECTION_BEHIND")
}

func TestLimitsAndTransport(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxBodyBytes: 20_000})
	post := func(document string) any { return b.post(document, nil).code() }
	equal(t, "introspection", post(`{ __schema { types { name } } }`), "INTROSPECTION_DISABLED")
	equal(t, "subscription by POST", post(`subscription { events { position } }`), "SUBSCRIPTION_NEEDS_STREAM")
	equal(t, "cost", post(`{ c: carts(first: 100) { nodes { items { sku lineTotal { amount } } } } carts(first: 100) { nodes { items { sku name quantity lineTotal { amount currency } unitPrice { amount currency } } } edges { node { items { sku name quantity lineTotal { amount currency } unitPrice { amount currency } } } } } }`),
		"COMPLEXITY_LIMIT_EXCEEDED")
	equal(t, "root fields", post("{"+aliases(21)+"}"), "ROOT_FIELD_LIMIT_EXCEEDED")
	equal(t, "tokens", post("{"+strings.Repeat("a ", 2_500)+"}"), "GRAPHQL_PARSE_FAILED")
	equal(t, "bad scalar", b.post(`query($p: Position!) { event(position: $p) { id } }`, map[string]any{"p": "-1"}).code(), "BAD_USER_INPUT")
	equal(t, "beyond head", post(`{ events(after: 99) { nodes { id } } }`), "POSITION_BEYOND_HEAD")
	big := b.post("{ "+strings.Repeat(" ", 20_000)+"}", nil)
	equal(t, "big body", big.status, http.StatusRequestEntityTooLarge)
	foreign := b.post(openCart, nil, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	equal(t, "cross-site", foreign.status, http.StatusForbidden)
	get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/graphql?query=mutation%7BopenCart(input:%7BownerId:%22a%22,currency:%22EUR%22%7D)%7Breceipt%7Bposition%7D%7D%7D", http.NoBody)
	must(t, err)
	equal(t, "mutation by GET", b.do(get).status, http.StatusMethodNotAllowed)
}

func aliases(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(" a" + string(rune('a'+i)) + ": event(position: 1) { id }")
	}
	return s.String()
}

func TestEventsArePagedBySightOfTheLog(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.openCart()
	b.post(addItem, map[string]any{"cart": id, "price": 1})
	page := b.post(`query($s: String!) { events(stream: $s, first: 1) { nodes { position data metadata { correlationId } } head pageInfo { hasNextPage endCursor } } }`,
		map[string]any{"s": id}, "X-Request-Id", "r-1")
	equal(t, "first", page.at(t, "events", "nodes", 0, "position"), "1")
	equal(t, "more", page.at(t, "events", "pageInfo", "hasNextPage"), true)
	rest := b.post(`query($s: String!, $p: Position) { events(stream: $s, after: $p) { nodes { position } pageInfo { hasNextPage endCursor } } }`,
		map[string]any{"s": id, "p": page.at(t, "events", "pageInfo", "endCursor")})
	equal(t, "second", rest.at(t, "events", "nodes", 0, "position"), "3")
	equal(t, "no more", rest.at(t, "events", "pageInfo", "hasNextPage"), false)
}
