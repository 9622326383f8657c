package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

func TestEveryObjectIsANode(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	carts, orders, users := b.fill(1)
	list := b.post(`{ carts { nodes { id } } orders { nodes { id } } users { nodes { id } } activity(first: 1) { nodes { id } } events { nodes { id } } }`, nil)
	ids := map[string]string{"Cart": carts[0], "Order": orders[0], "User": users[0]}
	for typ, field := range map[string]string{"Cart": "carts", "Order": "orders", "User": "users", "Activity": "activity", "Event": "events"} {
		id := list.at(t, field, "nodes", 0, "id").(string)
		if want, known := ids[typ]; known {
			equal(t, typ, id, want)
		}
		a := b.post(`query($id: ID!) { node(id: $id) { __typename id } }`, in{"id": id})
		equal(t, id, a.at(t, "node", "__typename"), any(typ))
		equal(t, typ, a.at(t, "node", "id"), any(id))
	}
	whole := b.post(fmt.Sprintf(`query($c: ID!, $o: ID!, $u: ID!) { cart(id: $c) { %s } order(id: $o) { %s } user(id: $u) { name status }
		event(position: "1") { %s } node(id: $c) { ... on Cart { ownerId } } }`, wholeCart, wholeOrder, wholeEvent),
		in{"c": carts[0], "o": orders[0], "u": users[0]})
	equal(t, "error", whole.code(), nil)
	equal(t, "cart's owner", whole.at(t, "cart", "ownerId"), any(users[0]))
	equal(t, "cart's order", whole.at(t, "cart", "orderId"), any(orders[0]))
	equal(t, "order's cart", whole.at(t, "order", "cartId"), any(carts[0]))
	equal(t, "order's total", whole.at(t, "order", "total", "amount"), any(100.0))
	equal(t, "line's total", whole.at(t, "cart", "items", 0, "lineTotal", "amount"), any(100.0))
	equal(t, "node's owner", whole.at(t, "node", "ownerId"), any(users[0]))
	equal(t, "event's stream", whole.at(t, "event", "stream"), any(users[0]))
	equal(t, "event's data", whole.at(t, "event", "data", "name"), any("U 0"))
	equal(t, "event's actor", whole.at(t, "event", "metadata", "actor"), nil)
}

func TestNodesThatAreNot(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.settle()
	ids := []string{
		"", "cart", "cart-", "cart-none", "order-none", "user-none", "activity-", "activity-x", "activity-99", "event-", "event-0", "event--1", "event-x",
		"event-99", "event-99999999999999999999", "cart-\x00", "nothing-1", strings.Repeat("cart-", 1000), id, id,
	}
	a := b.post(`query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, in{"ids": ids})
	equal(t, "error", a.code(), nil)
	for i, asked := range ids {
		if asked != id {
			equal(t, asked, a.at(t, "nodes", i), nil)
			equal(t, asked, b.post(`query($id: ID!) { node(id: $id) { id } }`, in{"id": asked}).at(t, "node"), nil)
			continue
		}
		equal(t, asked, a.at(t, "nodes", i, "id"), any(id))
	}
	equal(t, "no ids", len(b.post(`{ nodes(ids: []) { id } }`, nil).at(t, "nodes").([]any)), 0)
	many := make([]string, 101)
	equal(t, "too many", b.post(`query($ids: [ID!]!) { nodes(ids: $ids) { id } }`, in{"ids": many}).code(), any("BAD_USER_INPUT"))
	for field, want := range map[string]any{`cart(id: "none") { id }`: nil, `order(id: "") { id }`: nil, `user(id: "x\u0000") { id }`: nil, `event(position: 99) { id }`: nil, `event(position: 0) { id }`: nil} {
		got := b.post("{ it: "+field+" }", nil)
		equal(t, field, got.code(), nil)
		equal(t, field, got.at(t, "it"), want)
	}
}

func TestReadYourOwnWrite(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	for range 10 {
		out := b.post(`mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { stream token version } } }`, nil)
		id, token := out.at(t, "openCart", "receipt", "stream"), out.at(t, "openCart", "receipt", "token")
		for _, document := range []string{
			`query($id: ID!, $t: Token) { it: cart(id: $id, atLeast: $t, within: "30s") { id } }`,
			`query($id: ID!, $t: Token) { it: node(id: $id, atLeast: $t, within: "30s") { id } }`,
		} {
			equal(t, document, b.post(document, in{"id": id, "t": token}).at(t, "it", "id"), id)
		}
		listed := b.post(`query($t: Token) { carts(first: 1, atLeast: $t, within: "PT30S") { nodes { id } } activity(first: 1, atLeast: $t, within: "30s") { nodes { stream } } }`, in{"t": token})
		equal(t, "newest cart", listed.at(t, "carts", "nodes", 0, "id"), id)
		equal(t, "newest activity", listed.at(t, "activity", "nodes", 0, "stream"), id)
	}
	long := b.post(`{ cart(id: "x", within: "31s") { id } }`, nil)
	equal(t, "too long a wait", long.code(), any("BAD_USER_INPUT"))
}
