package graph_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	"github.com/headrace/headrace/graph"
)

// page reads carts, oldest first, and returns their owners.
func (b *bundle) page(arguments string) (owners []string, info map[string]any, a answer) {
	b.t.Helper()
	a = b.post(fmt.Sprintf(`{ carts(orderBy: OPENED_AT_ASC, %s) { edges { cursor node { ownerId } } nodes { ownerId }
		pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount } }`, arguments), nil)
	if a.code() != nil {
		return nil, nil, a
	}
	edges := a.at(b.t, "carts", "edges").([]any)
	for i := range edges {
		owners = append(owners, a.at(b.t, "carts", "edges", i, "node", "ownerId").(string))
		equal(b.t, "node", a.at(b.t, "carts", "nodes", i, "ownerId"), any(owners[i]))
	}
	info = a.at(b.t, "carts", "pageInfo").(map[string]any)
	if n := len(edges); n > 0 {
		equal(b.t, "startCursor", info["startCursor"], a.at(b.t, "carts", "edges", 0, "cursor"))
		equal(b.t, "endCursor", info["endCursor"], a.at(b.t, "carts", "edges", n-1, "cursor"))
	}
	return owners, info, a
}

func owners(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("o%02d", i))
	}
	return out
}

func TestConnectionsWalkBothWays(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const rows, size = 25, 10
	b.each(rows, func(i int) string {
		return fmt.Sprintf(`openCart(input: {ownerId: "o%02d", currency: "EUR"}) { userErrors { code } }`, i)
	})
	b.settle()
	check := func(arguments string, from, to int, next, previous bool) map[string]any {
		t.Helper()
		got, info, a := b.page(arguments)
		equal(t, arguments+": code", a.code(), nil)
		if !slices.Equal(got, owners(from, to)) {
			t.Fatalf("%s: %v, want %v", arguments, got, owners(from, to))
		}
		equal(t, arguments+": hasNextPage", info["hasNextPage"], any(next))
		equal(t, arguments+": hasPreviousPage", info["hasPreviousPage"], any(previous))
		equal(t, arguments+": totalCount", a.at(t, "carts", "totalCount"), any(float64(rows)))
		return info
	}
	check("filter: {}", 0, 20, true, false) // the default size
	one := check("first: 10", 0, 10, true, false)
	two := check(fmt.Sprintf("first: 10, after: %q", one["endCursor"]), 10, 20, true, true)
	three := check(fmt.Sprintf("first: 10, after: %q", two["endCursor"]), 20, 25, false, true)
	check(fmt.Sprintf("first: 10, after: %q", three["endCursor"]), 25, 25, false, true)
	check("last: 10", 15, 25, false, true)
	back := check(fmt.Sprintf("last: 10, before: %q", two["startCursor"]), 0, 10, true, false)
	equal(t, "cursor either way", back["endCursor"], one["endCursor"])
	check(fmt.Sprintf("first: 100, after: %q, before: %q", one["endCursor"], three["startCursor"]), 10, 20, false, true)
	check("first: 0", 0, 0, true, false)
	check(`first: 100, filter: {status: [OPEN, ABANDONED]}`, 0, 25, false, false)

	// A row that comes in front does not shift the pages after a cursor.
	b.openCart()
	b.settle()
	newest := b.post(fmt.Sprintf(`{ carts(first: 1, orderBy: OPENED_AT_ASC, after: %q) { nodes { ownerId } } }`, one["endCursor"]), nil)
	equal(t, "row after the cursor", newest.at(t, "carts", "nodes", 0, "ownerId"), any("o10"))
	filtered := b.post(`{ carts(filter: {ownerId: "o07"}) { totalCount nodes { ownerId } } }`, nil)
	equal(t, "filtered total", filtered.at(t, "carts", "totalCount"), any(1.0))
	empty := b.post(`{ carts(filter: {ownerId: "nobody"}) { totalCount nodes { id } pageInfo { startCursor endCursor } } }`, nil)
	equal(t, "empty total", empty.at(t, "carts", "totalCount"), any(0.0))
	equal(t, "empty page's cursor", empty.at(t, "carts", "pageInfo", "endCursor"), nil)
}

func TestPagesThatCannotBe(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	b.settle()
	_, info, _ := b.page("first: 1")
	cursor := info["endCursor"].(string)
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	must(t, err)
	text[len(text)-1] ^= 0xff
	for _, field := range []string{"carts", "orders", "users", "activity"} {
		for _, arguments := range []string{
			"first: 1, last: 1", "first: -1", "last: -1", "first: 101", "last: 101", `after: ""`, `after: "nonsense"`, `before: "AAAA"`,
			fmt.Sprintf("after: %q", base64.RawURLEncoding.EncodeToString(text)), fmt.Sprintf("before: %q", cursor[:len(cursor)-4]),
			fmt.Sprintf("after: %q", cursor), // of another list or order
			"first: 1.5", "first: \"1\"", "orderBy: NOTHING",
		} {
			a := b.post(fmt.Sprintf(`{ %s(%s) { edges { cursor } } }`, field, arguments), nil)
			if code := a.code(); code != "BAD_USER_INPUT" && code != "GRAPHQL_VALIDATION_FAILED" {
				t.Errorf("%s(%s) is answered by %s", field, arguments, a.raw)
			}
		}
	}
	for _, arguments := range []string{"first: 0", "first: -1", "first: 101", "after: -1", `after: "x"`} {
		equal(t, "events "+arguments, b.post(fmt.Sprintf(`{ events(%s) { head } }`, arguments), nil).code(), any("BAD_USER_INPUT"))
	}
}

func TestOrdersAndUsersAreListedAsAsked(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	carts, orders, users := b.fill(3) // totals grow from one to the next
	first := func(field, arguments string) any {
		t.Helper()
		return b.post(fmt.Sprintf("{ %s(%s) { nodes { id } } }", field, arguments), nil).at(t, field, "nodes", 0, "id")
	}
	b.command("payOrder", in{"orderId": orders[1], "reference": "r"}, someOrder).done(2)
	b.settle()
	equal(t, "dearest", first("orders", "orderBy: TOTAL_DESC"), any(orders[2]))
	equal(t, "cheapest", first("orders", "orderBy: TOTAL_ASC"), any(orders[0]))
	equal(t, "last placed", first("orders", "first: 3"), any(orders[2]))
	equal(t, "first placed", first("orders", "orderBy: PLACED_AT_ASC"), any(orders[0]))
	equal(t, "last changed", first("orders", "orderBy: UPDATED_AT_DESC"), any(orders[1]))
	equal(t, "longest unchanged", first("orders", "orderBy: UPDATED_AT_ASC"), any(orders[0]))
	equal(t, "paid", first("orders", "filter: {status: [PAID]}"), any(orders[1]))
	equal(t, "of a cart", first("orders", fmt.Sprintf("filter: {cartId: %q}", carts[2])), any(orders[2]))
	equal(t, "of an owner", first("orders", fmt.Sprintf("filter: {ownerId: %q}", users[0])), any(orders[0]))
	equal(t, "by name", first("users", "orderBy: NAME_ASC"), any(users[0]))
	equal(t, "by name, backwards", first("users", "orderBy: NAME_DESC"), any(users[2]))
	equal(t, "first registered", first("users", "orderBy: REGISTERED_AT_ASC"), any(users[0]))
	equal(t, "by address", first("users", `filter: {email: " U1@EXAMPLE.org"}`), any(users[1]))
	equal(t, "active", first("users", `filter: {status: [ACTIVE]}`), any(users[2]))
	stream := b.post(fmt.Sprintf(`{ activity(stream: %q, orderBy: POSITION_ASC) { nodes { type } totalCount } }`, orders[1]), nil)
	equal(t, "first activity", stream.at(t, "activity", "nodes", 0, "type"), any("order.placed"))
	equal(t, "activities", stream.at(t, "activity", "totalCount"), any(2.0))
	typed := b.post(`{ activity(types: ["user.registered"]) { totalCount } }`, nil)
	equal(t, "registrations", typed.at(t, "activity", "totalCount"), any(3.0))
}
