package graph_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/outbox"
)

// curse has the views refuse what some events lead to: carts whose total is 666, those in XXX, and abandoned ones.
func (b *bundle) curse() {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), `alter table cart_v1 add constraint curse check (total <> 666 and currency <> 'XXX' and status <> 'ABANDONED') not valid`)
	must(b.t, err)
}

// lift ends that, and has what waits tried again.
func (b *bundle) lift() {
	b.t.Helper()
	_, err := b.pool.Exec(b.t.Context(), `alter table cart_v1 drop constraint curse`)
	must(b.t, err)
	asked, err := outbox.RetryParked(b.t.Context(), b.pool, "", "", "ada")
	must(b.t, err)
	if len(asked) == 0 {
		b.t.Fatal("nothing is parked")
	}
	b.unparked()
}

func (b *bundle) unparked() {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var left int
		must(b.t, b.pool.QueryRow(b.t.Context(), `select count(*) from parked_streams`).Scan(&left))
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d streams are still parked", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

const cursedItem = `mutation($c: ID!, $p: MinorUnits!) { addItem(input: {cartId: $c, sku: "tea", name: "Tea", quantity: 1,
	unitPrice: {amount: $p, currency: "EUR"}}) { userErrors { code } receipt { version token } cart(within: "30s") ` + health + ` } }`

const health = `{ id version degraded degradation { code message since position } }`

// degraded checks what is said of a cart.
func (a answer) degraded(t *testing.T, what string, want bool, path ...any) {
	t.Helper()
	equal(t, "error", a.code(), nil)
	c := a.at(t, path...).(map[string]any)
	equal(t, what+": degraded", c["degraded"], any(want))
	if !want {
		equal(t, what+": why", c["degradation"], nil)
		return
	}
	why := c["degradation"].(map[string]any)
	equal(t, what+": code", why["code"], any("EVENT_PARKED"))
	if strings.Contains(a.raw, "curse") || strings.Contains(a.raw, "constraint") {
		t.Fatalf("%s: the answer tells internals: %s", what, a.raw)
	}
}

func TestObjectsOfAParkedStreamSaySo(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	sound, bad := b.openCart(), b.openCart()
	b.settle()
	b.curse()
	payload := b.post(cursedItem, in{"c": bad, "p": 666})
	payload.degraded(t, "the payload", true, "addItem", "cart")
	equal(t, "the receipt's version", payload.at(t, "addItem", "receipt", "version"), any(2.0))
	equal(t, "the version of what is shown", payload.at(t, "addItem", "cart", "version"), any(1.0))
	equal(t, "the position", payload.at(t, "addItem", "cart", "degradation", "position"), any("3"))
	b.post(cursedItem, in{"c": sound, "p": 5}).degraded(t, "another's payload", false, "addItem", "cart")
	token := payload.at(t, "addItem", "receipt", "token")

	b.post(`query($c: ID!, $t: Token) { cart(id: $c, atLeast: $t) `+health+` }`, in{"c": bad, "t": token}).degraded(t, "with a token", true, "cart")
	b.post(`query($c: ID!) { cart(id: $c) `+health+` }`, in{"c": bad}).degraded(t, "a query", true, "cart")
	b.post(`query($c: ID!) { node(id: $c) { ... on Cart `+health+` } }`, in{"c": bad}).degraded(t, "a node", true, "node")
	b.post(`query($c: ID!) { cart(id: $c, asOf: {version: 2}) `+health+` }`, in{"c": bad}).degraded(t, "the past", false, "cart")
	list := b.post(`{ carts(orderBy: OPENED_AT_ASC) { nodes `+health+` edges { node `+health+` } } }`, nil)
	for i, want := range []bool{false, true} {
		list.degraded(t, "in a list", want, "carts", "nodes", i)
		list.degraded(t, "in a list's edges", want, "carts", "edges", i, "node")
	}
	fresh := b.post(`query($c: ID!) { cart(id: $c) { id } }`, in{"c": bad}, "Headrace-Freshness", "true")
	equal(t, "freshness", fresh.freshness(t, "cart")["parkedStreams"], any(1.0))

	b.lift()
	after := b.post(`query($c: ID!, $t: Token) { cart(id: $c, atLeast: $t) `+health+` }`, in{"c": bad, "t": token})
	after.degraded(t, "after the mend", false, "cart")
	equal(t, "version after the mend", after.at(t, "cart", "version"), any(2.0))
}

func TestAnObjectWhoseFirstEventWaits(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.settle()
	b.curse()
	a := b.post(`mutation { openCart(input: {ownerId: "ada", currency: "XXX"}) { receipt { stream token } cart(within: "30s") { id } } }`, nil)
	equal(t, "code", a.code(), any("OBJECT_DEGRADED"))
	id, token := a.at(t, "openCart", "receipt", "stream"), a.at(t, "openCart", "receipt", "token")
	asked := b.post(`query($c: ID!, $t: Token) { cart(id: $c, atLeast: $t) { id } }`, in{"c": id, "t": token})
	equal(t, "with a token", asked.code(), any("OBJECT_DEGRADED"))
	unasked := b.post(`query($c: ID!) { cart(id: $c) { id } }`, in{"c": id})
	equal(t, "without one", unasked.code(), nil)
	b.lift()
	equal(t, "after the mend", b.post(`query($c: ID!) { cart(id: $c) { id } }`, in{"c": id}).at(t, "cart", "id"), id)
}

func TestFollowersLearnThatAnObjectIsDegraded(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.settle()
	s, list := b.connect(), b.connect()
	s.subscribe("1", `subscription($c: ID!) { cartChanged(id: $c) `+health+` }`, in{"c": id})
	list.subscribe("2", `subscription { cartsChanged { kind carts `+health+` } }`, nil)
	follows := func(what string, version float64, degraded bool) {
		t.Helper()
		one := s.object("1", "cartChanged")
		equal(t, what+": version", one["version"], any(version))
		equal(t, what+": degraded", one["degraded"], any(degraded))
		rows := list.object("2", "cartsChanged")["carts"].([]any)
		equal(t, what+": version in the list", rows[0].(map[string]any)["version"], any(version))
		equal(t, what+": degraded in the list", rows[0].(map[string]any)["degraded"], any(degraded))
	}
	follows("before", 1, false)
	b.curse()
	b.post(cursedItem, in{"c": id, "p": 666})
	follows("parked", 1, true)
	b.lift()
	follows("mended", 2, false)

	// A skip changes nothing but that.
	b.curse()
	b.abandon(id)
	follows("parked again", 2, true)
	_, err := outbox.SkipParked(t.Context(), b.pool, "cart_v1", id, "ada", "of no use")
	must(t, err)
	follows("skipped", 2, false)
}

func TestAnETagKnowsOfDegradation(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: asSaid})
	id := b.openCart()
	b.settle()
	document := `query($c: ID!) { cart(id: $c) ` + health + ` }`
	sound := b.get(document, in{"c": id}, "").header.Get("ETag")
	b.curse()
	b.post(cursedItem, in{"c": id, "p": 666})
	a := b.get(document, in{"c": id}, sound)
	a.degraded(t, "the answer", true, "cart")
	degraded := a.header.Get("ETag")
	equal(t, "the same again", b.get(document, in{"c": id}, degraded).status, 304)
	_, err := outbox.SkipParked(t.Context(), b.pool, "cart_v1", id, "ada", "of no use")
	must(t, err)
	b.unparked()
	b.get(document, in{"c": id}, degraded).degraded(t, "after a skip", false, "cart")
}

// What says that rows are degraded is in memory: a list asks the database no more often than when all is well.
func TestDegradedRowsCostNoStatement(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const rows = 30
	carts := make([]string, rows)
	for i := range carts {
		carts[i] = b.openCart()
	}
	b.settle()
	b.curse()
	b.each(rows, func(i int) string {
		return fmt.Sprintf(`addItem(input: {cartId: %q, sku: "tea", name: "Tea", quantity: 1, unitPrice: {amount: 666, currency: "EUR"}}) { userErrors { code } cart(within: "30s") { id } }`, carts[i])
	})
	b.asked.take()
	a := b.post(`{ carts(first: 30) { nodes `+health+` } }`, nil)
	asked := 0
	for _, statement := range b.asked.take() {
		if strings.Contains(statement, " from cart") || strings.Contains(statement, "parked_streams p") {
			asked++
		}
	}
	for i := range rows {
		a.degraded(t, "the row", true, "carts", "nodes", i)
	}
	equal(t, "statements", asked, 1)
}
