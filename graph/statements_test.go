package graph_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/headrace/headrace/graph"
)

// each sends a mutation of n aliases a0, a1, …, in several requests.
func (b *bundle) each(n int, field func(i int) string) []map[string]any {
	b.t.Helper()
	const perRequest = 20
	var out []map[string]any
	for from := 0; from < n; from += perRequest {
		var document strings.Builder
		document.WriteString("mutation {")
		for i := from; i < min(n, from+perRequest); i++ {
			fmt.Fprintf(&document, " a%d: %s", i, field(i))
		}
		a := b.post(document.String()+"}", nil)
		for i := from; i < min(n, from+perRequest); i++ {
			payload := a.at(b.t, fmt.Sprintf("a%d", i)).(map[string]any)
			if refused, _ := payload["userErrors"].([]any); len(refused) > 0 {
				b.t.Fatalf("command %d was refused: %v", i, refused)
			}
			out = append(out, payload)
		}
	}
	return out
}

// fill makes n users, and n carts with an order each.
func (b *bundle) fill(n int) (carts, orders, users []string) {
	b.t.Helper()
	stream := func(payload map[string]any) string { return payload["receipt"].(map[string]any)["stream"].(string) }
	for _, p := range b.each(n, func(i int) string {
		return fmt.Sprintf(`registerUser(input: {email: "u%d@example.org", name: "U %d"}) { userErrors { code } receipt { stream } }`, i, i)
	}) {
		users = append(users, stream(p))
	}
	for _, p := range b.each(n, func(i int) string {
		return fmt.Sprintf(`openCart(input: {ownerId: %q, currency: "EUR"}) { userErrors { code } receipt { stream } }`, users[i])
	}) {
		carts = append(carts, stream(p))
	}
	b.each(n, func(i int) string {
		return fmt.Sprintf(`addItem(input: {cartId: %q, sku: "tea", name: "Tea", quantity: %d, unitPrice: {amount: 100, currency: "EUR"}}) { userErrors { code } }`, carts[i], i+1)
	})
	for _, p := range b.each(n, func(i int) string {
		order := ""
		if i == n-1 { // the policy places orders in the order of the check-outs: with the last one all are there
			order = `order(within: "30s") { id }`
		}
		return fmt.Sprintf(`checkOutCart(input: {cartId: %q}) { userErrors { code } orderId %s }`, carts[i], order)
	}) {
		orders = append(orders, p["orderId"].(string))
	}
	b.settle()
	return carts, orders, users
}

// settle waits until all read models include all that is in the log.
func (b *bundle) settle() {
	b.t.Helper()
	head, err := b.store.Head(b.t.Context())
	must(b.t, err)
	a := b.post(`query($t: Token) { carts(atLeast: $t, within: "30s") { edges { cursor } } orders(atLeast: $t, within: "30s") { edges { cursor } }
		users(atLeast: $t, within: "30s") { edges { cursor } } activity(atLeast: $t, within: "30s") { edges { cursor } } }`,
		map[string]any{"t": head.String()})
	equal(b.t, "error", a.code(), nil)
}

const wholeCart = `id ownerId status currency orderId version position openedAt updatedAt total { amount currency }
	items { sku name quantity unitPrice { amount currency } lineTotal { amount currency } }`

const wholeOrder = `id cartId ownerId status currency paymentReference trackingCode reason version position placedAt updatedAt
	total { amount currency } items { sku name quantity unitPrice { amount currency } lineTotal { amount currency } }`

const wholeEvent = `id eventId position stream version type schemaVersion data recordedAt
	metadata { commandId actor correlationId causationId }`

// listCase asks for a list of $n objects, and says how many statements that may take whatever $n is.
type listCase struct {
	document string
	list     []any // where the objects are in the answer
	want     int
}

func page(field, node, totals string) string {
	return fmt.Sprintf("query($n: Int) { %s(first: $n) { %s nodes { %s } edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }",
		field, totals, node)
}

const wholeEntry = `version position type schemaVersion recordedAt actor commandId correlationId causationId data state { id ... on Cart { version } }`

// listCases are all lists that are read from the database, by their place in the schema. One that is missing here fails
// TestEveryListIsCounted. The cart is one that has a hundred events.
func listCases(cart string) map[string][]listCase {
	history := func(entry string) listCase {
		return listCase{
			fmt.Sprintf("query($n: Int) { history(id: %q, first: $n) { nodes { %s } edges { cursor node { version } } pageInfo { hasNextPage endCursor } totalCount } }", cart, entry),
			[]any{"history", "nodes"},
			3, // the object, its version, and the events
		}
	}
	return map[string][]listCase{
		"Query.carts": {
			{page("carts", wholeCart, "totalCount"), []any{"carts", "nodes"}, 2},
			{page("carts", wholeCart, ""), []any{"carts", "nodes"}, 1}, // the total is counted only when asked for
		},
		"Query.orders": {
			{page("orders", wholeOrder, "totalCount"), []any{"orders", "nodes"}, 2},
			{page("orders", wholeOrder+" fulfilment { status steps { name } }", ""), []any{"orders", "nodes"}, 2},
		},
		"Query.users":    {{page("users", "id email name status version position registeredAt updatedAt", "totalCount"), []any{"users", "nodes"}, 2}},
		"Query.activity": {{page("activity", "id position userId stream type summary actor recordedAt", "totalCount"), []any{"activity", "nodes"}, 2}},
		"Query.events":   {{page("events", wholeEvent, "head"), []any{"events", "nodes"}, 2}}, // the head, and the page
		"Query.nodes":    nil,                                                                 // TestNodesAskOncePerType
		"Query.history":  {history("version data"), history(wholeEntry)},

		"Query.deliveries": nil, // TestDeliveriesTakeOneStatement

		"CartsChange.carts":   nil, // TestLiveListsAskOncePerPart
		"OrdersChange.orders": nil,
	}
}

// inMemory are the lists of objects that come with the object that has them.
var inMemory = []string{"Cart.items", "Order.items", "Fulfilment.steps", "DryRun.events", "DryRun.messages"}

func TestEveryListIsCounted(t *testing.T) {
	t.Parallel()
	schema, cases := readSchema(t), listCases("")
	for name, typ := range schema.Types {
		if typ.BuiltIn || typ.Kind != ast.Object || strings.HasPrefix(name, "__") || strings.HasSuffix(name, "Connection") {
			continue // the edges and nodes of a connection are the connection's own
		}
		for _, field := range typ.Fields {
			of := schema.Types[field.Type.Name()]
			isList := (field.Type.Elem != nil && of.IsCompositeType()) || strings.HasSuffix(field.Type.Name(), "Connection")
			place := name + "." + field.Name
			_, counted := cases[place]
			if isList && !counted && !slices.Contains(inMemory, place) && field.Name != "userErrors" && !strings.HasPrefix(field.Name, "__") {
				t.Errorf("%s is a list, and nobody counts the statements that it takes", place)
			}
		}
	}
}

func TestListsAskAsOftenForOneRowAsForAHundred(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const rows = 100
	b.fill(rows)
	cart := b.openCart()
	b.each(rows-1, func(int) string {
		return fmt.Sprintf(`addItem(input: {cartId: %q, sku: "tea", name: "Tea", quantity: 1, unitPrice: {amount: 100, currency: "EUR"}}) { userErrors { code } }`, cart)
	})
	b.settle()
	for place, cases := range listCases(cart) {
		for _, c := range cases {
			for _, n := range []int{1, rows} {
				b.asked.take()
				a := b.post(c.document, map[string]any{"n": n})
				equal(t, place+": rows", len(a.at(t, c.list...).([]any)), n)
				if asked := b.asked.take(); len(asked) != c.want {
					t.Errorf("%d of %s took %d statements, want %d: %s", n, place, len(asked), c.want, strings.Join(asked, ";\n"))
				}
			}
		}
	}
}

func TestNodesAskOncePerType(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	carts, orders, users := b.fill(25)
	activities := b.post(`{ activity(first: 25) { nodes { id } } }`, nil).at(t, "activity", "nodes").([]any)
	document := `query($ids: [ID!]!) { nodes(ids: $ids) { id __typename ... on Cart { items { sku } } ... on Order { items { sku } } } }`
	for _, n := range []int{1, 20} {
		var ids, types []string
		for i := range n {
			ids = append(ids, carts[i], orders[i], users[i], activities[i].(map[string]any)["id"].(string), fmt.Sprintf("event-%d", n-i))
			types = append(types, "Cart", "Order", "User", "Activity", "Event")
		}
		b.asked.take()
		a := b.post(document, map[string]any{"ids": ids})
		for i := range ids {
			equal(t, "id", a.at(t, "nodes", i, "id"), ids[i])
			equal(t, "type", a.at(t, "nodes", i, "__typename"), types[i])
		}
		if asked := b.asked.take(); len(asked) != 5 {
			t.Errorf("%d ids took %d statements, want 5: %s", len(ids), len(asked), strings.Join(asked, ";\n"))
		}
	}
}

func TestAHundredEventsByIDAreOneStatement(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.each(100, func(i int) string {
		return fmt.Sprintf(`openCart(input: {ownerId: "o%d", currency: "EUR"}) { userErrors { code } }`, i)
	})
	b.settle()
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = fmt.Sprintf("event-%d", 100-i)
	}
	ids[7], ids[8] = "event-101", ids[9]
	b.asked.take()
	a := b.post(`query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Event { position stream } } }`, in{"ids": ids})
	if asked := b.asked.take(); len(asked) != 1 {
		t.Errorf("100 events took %d statements: %s", len(asked), strings.Join(asked, ";\n"))
	}
	equal(t, "one that is not there", a.at(t, "nodes", 7), nil)
	for i, id := range ids {
		if i != 7 {
			equal(t, "id", a.at(t, "nodes", i, "id"), any(id))
		}
	}
}

// The object of a payload is one statement more, and only where it is asked for.
func TestPayloadsReadTheirObjectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	reads := func(document string) int {
		t.Helper()
		b.asked.take()
		a := b.post(document, nil)
		equal(t, document, a.code(), nil)
		n := 0
		for _, statement := range b.asked.take() {
			if strings.Contains(statement, " from cart where") {
				n++
			}
		}
		return n
	}
	const open = `mutation { a: openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { version } %s } b: openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { version } %s } }`
	equal(t, "without the object", reads(fmt.Sprintf(open, "", "")), 0)
	equal(t, "with the object", reads(fmt.Sprintf(open, `cart(within: "30s") { id items { sku } }`, "")), 1)
	equal(t, "with both", reads(fmt.Sprintf(open, `cart(within: "30s") { id }`, `cart(within: "30s") { id total { amount } }`)), 2)
}

func TestLiveListsAskOncePerPart(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const rows = 60
	_, _, users := b.fill(rows)
	snapshot := func(field, rest string, filter in) (objects, asked int) {
		t.Helper()
		b.asked.take()
		s := b.connect()
		s.subscribe("1", fmt.Sprintf("subscription($f: %s) { %s(filter: $f, first: 100) { kind it: %s } }", filter["type"], field, rest), in{"f": filter["filter"]})
		for {
			message := s.object("1", field)
			objects += len(message["it"].([]any))
			if message["kind"] == "SNAPSHOT_END" {
				statements := slices.DeleteFunc(b.asked.take(), func(sql string) bool {
					return strings.Contains(sql, "from events") // to follow the log, which begins after the snapshot
				})
				return objects, len(statements)
			}
		}
	}
	for _, c := range []struct{ field, filter, rest string }{
		{"cartsChanged", "CartFilter", "carts { " + wholeCart + " }"}, {"ordersChanged", "OrderFilter", "orders { " + wholeOrder + " }"},
	} {
		one, few := snapshot(c.field, c.rest, in{"type": c.filter, "filter": in{"ownerId": users[0]}})
		all, many := snapshot(c.field, c.rest, in{"type": c.filter, "filter": nil})
		equal(t, c.field+": objects of one", one, 1)
		equal(t, c.field+": objects", all, rows)
		if many != few {
			t.Errorf("%s takes %d statements for one object and %d for %d", c.field, few, many, rows)
		}
	}
}
