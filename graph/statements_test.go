package graph_test

import (
	"fmt"
	"strings"
	"testing"

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

func TestListsAskAsOftenForOneRowAsForAHundred(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const rows = 100
	b.fill(rows)
	page := func(field, node string, totals string) string {
		return fmt.Sprintf("query($n: Int) { %s(first: $n) { %s nodes { %s } edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }",
			field, totals, node)
	}
	for _, c := range []struct {
		name, document string
		want           int
	}{
		{"carts", page("carts", wholeCart, "totalCount"), 2},
		{"orders", page("orders", wholeOrder, "totalCount"), 2},
		{"users", page("users", "id email name status version position registeredAt updatedAt", "totalCount"), 2},
		{"activity", page("activity", "id position userId stream type summary actor recordedAt", "totalCount"), 2},
		{"carts", page("carts", wholeCart, ""), 1},        // the total is counted only when asked for
		{"events", page("events", wholeEvent, "head"), 2}, // the head, and the page
	} {
		for _, n := range []int{1, rows} {
			b.asked.take()
			a := b.post(c.document, map[string]any{"n": n})
			equal(t, c.name+": rows", len(a.at(t, c.name, "nodes").([]any)), n)
			if asked := b.asked.take(); len(asked) != c.want {
				t.Errorf("%d %s took %d statements, want %d: %s", n, c.name, len(asked), c.want, strings.Join(asked, ";\n"))
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
	for _, n := range []int{1, 25} {
		var ids, types []string
		for i := range n {
			ids = append(ids, carts[i], orders[i], users[i], activities[i].(map[string]any)["id"].(string))
			types = append(types, "Cart", "Order", "User", "Activity")
		}
		b.asked.take()
		a := b.post(document, map[string]any{"ids": ids})
		for i := range ids {
			equal(t, "id", a.at(t, "nodes", i, "id"), ids[i])
			equal(t, "type", a.at(t, "nodes", i, "__typename"), types[i])
		}
		if asked := b.asked.take(); len(asked) != 4 {
			t.Errorf("%d ids took %d statements, want 4: %s", len(ids), len(asked), strings.Join(asked, ";\n"))
		}
	}
}
