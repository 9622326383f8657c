package graph_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// whoever takes the identity from headers or the payload of connection_init: X-Who and X-Roles. The name nobody is nobody;
// without a name everything is allowed, for what prepares a test.
func whoever(ctx context.Context, r *http.Request, payload map[string]any) (context.Context, time.Time, error) {
	name, roles := r.Header.Get("X-Who"), r.Header.Get("X-Roles")
	if said, ok := payload["who"].(string); ok {
		name = said
	}
	if said, ok := payload["roles"].(string); ok {
		roles = said
	}
	switch name {
	case "":
		return identity.NewContext(ctx, identity.Unrestricted("")), time.Time{}, nil
	case "nobody":
		return ctx, time.Time{}, nil
	}
	return identity.NewContext(ctx, identity.Identity{Subject: name, Roles: strings.Fields(roles)}), time.Time{}, nil
}

// connectWith opens a socket of somebody's.
func (b *bundle) connectWith(payload in) *socket {
	b.t.Helper()
	s := b.dial()
	s.send(in{"type": "connection_init", "payload": payload})
	s.receive("connection_ack")
	return s
}

// mine is what ada owns in these tests, and what must not get out: the texts that only her data hold.
type mine struct {
	user, cart, done, order string
	secrets                 []string
}

func (b *bundle) belongings() mine {
	b.t.Helper()
	var m mine
	stream := func(a answer, mutation string) string {
		b.t.Helper()
		equal(b.t, mutation, a.code(), nil)
		return a.at(b.t, mutation, "receipt", "stream").(string)
	}
	m.user = stream(b.post(`mutation { registerUser(input: {email: "ada@secret.example", name: "Ada Secret"}) { receipt { stream } } }`, nil), "registerUser")
	for _, cart := range []*string{&m.cart, &m.done} {
		*cart = stream(b.post(`mutation($o: ID!) { openCart(input: {ownerId: $o, currency: "EUR"}) { receipt { stream } } }`, in{"o": m.user}, "X-Who", m.user), "openCart")
		stream(b.post(`mutation($c: ID!) { addItem(input: {cartId: $c, sku: "secret-sku", name: "Secret", quantity: 1, unitPrice: {amount: 5, currency: "EUR"}})
			{ receipt { stream } } }`, in{"c": *cart}, "X-Who", m.user), "addItem")
	}
	out := b.post(`mutation($c: ID!) { checkOutCart(input: {cartId: $c}) { orderId order(within: "30s") { id ownerId } } }`, in{"c": m.done}, "X-Who", m.user)
	equal(b.t, "error", out.code(), nil)
	m.order = out.at(b.t, "checkOutCart", "order", "id").(string)
	_, err := b.store.Append(b.t.Context(), eventstore.Request{
		Stream: fulfilment.ForOrder(m.order), Expected: eventstore.NoStream, Events: []eventstore.Payload{fulfilment.Started{OwnerID: m.user}},
	})
	must(b.t, err)
	b.settle()
	m.secrets = []string{m.user, "secret-sku", "Ada Secret", "secret.example", m.cart, m.done, m.order, "cart.item_added"}
	return m
}

// leaks are the secrets in a text.
func (m mine) leaks(text string) (found []string) {
	for _, secret := range m.secrets {
		if strings.Contains(text, secret) {
			found = append(found, secret)
		}
	}
	return found
}

// nowhere are ids of nothing.
func (m mine) nowhere() in {
	return in{
		"user": "user-0", "cart": "cart-0", "order": "order-0", "ids": []string{"user-0", "cart-0", "order-0", "activity-9999", "event-9999"},
		"event": "event-9999", "fulfilment": "fulfilment-0",
	}
}

func (m mine) ids() in {
	return in{
		"user": m.user, "cart": m.cart, "order": m.order, "ids": []string{m.user, m.cart, m.order, "activity-2", "event-2"}, "event": "event-2",
		"fulfilment": fulfilment.ForOrder(m.order),
	}
}

// readings ask for every root field of queries as widely as they can. Those of subscriptions and mutations stand below.
func readings() map[string]string {
	const log = `nodes { id stream type data metadata { actor } }`
	return map[string]string{
		"node":       `query($cart: ID!) { node(id: $cart) { id ... on Cart { ownerId items { sku } } } }`,
		"nodes":      `query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }`,
		"cart":       `query($cart: ID!) { cart(id: $cart) { id ownerId items { sku } } past: cart(id: $cart, asOf: {version: 2}) { id ownerId } }`,
		"carts":      `query($user: ID) { carts(filter: {ownerId: $user}) { totalCount nodes { id ownerId items { sku } } edges { node { id } } } }`,
		"order":      `query($order: ID!) { order(id: $order) { id ownerId items { sku } } past: order(id: $order, asOf: {version: 1}) { id ownerId } }`,
		"orders":     `query($user: ID) { orders(filter: {ownerId: $user}) { totalCount nodes { id ownerId } } }`,
		"user":       `query($user: ID!) { user(id: $user) { id name email } past: user(id: $user, asOf: {version: 1}) { name } }`,
		"users":      `{ users { totalCount nodes { id name email } } byMail: users(filter: {email: "ada@secret.example"}) { totalCount nodes { id } } }`,
		"activity":   `query($user: ID, $cart: ID) { activity(userId: $user) { totalCount nodes { id userId summary } } it: activity(stream: $cart) { totalCount nodes { userId } } }`,
		"deliveries": `{ deliveries { name position owner reason } }`,
		"fulfilment": `query($fulfilment: ID!) { fulfilment(id: $fulfilment) { orderId status steps { note } } past: fulfilment(id: $fulfilment, asOf: {version: 1}) { orderId } }`,
		"history":    `query($cart: ID!) { history(id: $cart) { totalCount nodes { data state { id } } } }`,
		"event":      `{ event(position: 2) { id stream data } }`,
		"events":     `query($cart: String) { events(stream: $cart) { ` + log + ` } }`,
	}
}

func TestAStrangerReadsNothingOfAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: whoever})
	m := b.belongings()
	for _, field := range readSchema(t).Query.Fields {
		document, asked := readings()[field.Name]
		if !asked && !strings.HasPrefix(field.Name, "__") {
			t.Errorf("no stranger asks for the query %s here", field.Name)
		}
		if !asked {
			continue
		}
		for _, who := range []string{"user-eve", "nobody"} {
			got := b.post(document, m.ids(), "X-Who", who)
			if found := m.leaks(got.raw); len(found) > 0 || strings.Contains(got.raw, `"totalCount":1`) {
				t.Errorf("%s hears of %v by %s: %s", who, found, field.Name, got.raw)
			}
			// What is another's and what is not there are the same.
			if none := b.post(document, m.nowhere(), "X-Who", who); none.raw != got.raw {
				t.Errorf("%s can tell by %s that it is there: %s, and if not: %s", who, field.Name, got.raw, none.raw)
			}
		}
		// The same documents do bring data for those who may see it, or this would show nothing.
		for _, who := range [][]string{{"X-Who", m.user}, {"X-Who", "clerk", "X-Roles", "desk staff"}} {
			if raw := field.Name == "event" || field.Name == "events" || field.Name == "deliveries"; raw && who[1] == m.user {
				continue
			}
			got := b.post(document, m.ids(), who...)
			if got.code() != nil || len(m.leaks(got.raw)) == 0 && field.Name != "deliveries" { // which are nobody's
				t.Errorf("%s as %v: %s", field.Name, who, got.raw)
			}
		}
	}
	own := b.post(`{ event(position: 2) { id } }`, nil, "X-Who", m.user)
	equal(t, "the raw log for customers", own.code(), any("FORBIDDEN"))
	equal(t, "the raw log for nobody", b.post(`{ events { head } }`, nil, "X-Who", "nobody").code(), any("UNAUTHENTICATED"))
	// A forbidden filter does not widen what is seen, and pages and totals are those of what is seen.
	b.post(`mutation { openCart(input: {ownerId: "user-eve", currency: "EUR"}) { receipt { stream } } }`, nil, "X-Who", "user-eve")
	b.settle()
	eves := b.post(`{ carts { totalCount nodes { ownerId } pageInfo { hasNextPage } } }`, nil, "X-Who", "user-eve")
	equal(t, "eve's carts", eves.raw, `{"data":{"carts":{"totalCount":1,"nodes":[{"ownerId":"user-eve"}],"pageInfo":{"hasNextPage":false}}}}`)
}

func TestAStrangerDoesNothingWithWhatIsAnothers(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: whoever})
	m := b.belongings()
	before, err := b.store.Head(t.Context())
	must(t, err)
	price := in{"amount": 5, "currency": "EUR"}
	inputs := func(ids in) map[string]in {
		return map[string]in{
			"openCart": {"ownerId": m.user, "currency": "EUR"},
			"addItem":  {"cartId": ids["cart"], "sku": "x", "name": "X", "quantity": 1, "unitPrice": price},

			"changeQuantity": {"cartId": ids["cart"], "sku": "secret-sku", "quantity": 2},
			"removeItem":     {"cartId": ids["cart"], "sku": "secret-sku"},
			"checkOutCart":   {"cartId": ids["cart"]},
			"abandonCart":    {"cartId": ids["cart"]},
			"payOrder":       {"orderId": ids["order"], "reference": "r"},
			"shipOrder":      {"orderId": ids["order"]},
			"deliverOrder":   {"orderId": ids["order"]},
			"cancelOrder":    {"orderId": ids["order"], "reason": "r"},
			"refundOrder":    {"orderId": ids["order"], "reason": "r"},
			"renameUser":     {"userId": ids["user"], "name": "Eve"},
			"changeEmail":    {"userId": ids["user"], "email": "eve@example.org"},
			"deactivateUser": {"userId": ids["user"]},
		}
	}
	there, nowhere := inputs(m.ids()), inputs(m.nowhere())
	for _, field := range readSchema(t).Mutation.Fields {
		if field.Name == "registerUser" {
			continue // for everybody; see below
		}
		if there[field.Name] == nil {
			t.Errorf("no stranger tries the mutation %s here", field.Name)
			continue
		}
		document := fmt.Sprintf(`mutation($in: %s) { it: %s(input: $in) { receipt { stream version } userErrors { code message } } }`, field.Arguments[0].Type, field.Name)
		for _, also := range []in{{}, {"commandId": "c-1"}, {"expectedVersion": 77}, {"dryRun": true}} {
			for who, want := range map[string]string{"user-eve": "FORBIDDEN", "nobody": "UNAUTHENTICATED"} {
				got := b.post(document, in{"in": with(there[field.Name], also)}, "X-Who", who)
				equal(t, field.Name+" as "+who, got.code(), any(want))
				equal(t, "path", got.Errors[0].Path[0], any("it"))
				if found := m.leaks(got.raw); len(found) > 0 {
					t.Errorf("%s hears of %v by %s: %s", who, found, field.Name, got.raw)
				}
				if none := b.post(document, in{"in": with(nowhere[field.Name], also)}, "X-Who", who); none.raw != got.raw {
					t.Errorf("%s can tell by %s that it is there: %s, and if not: %s", who, field.Name, got.raw, none.raw)
				}
			}
		}
	}
	after, err := b.store.Head(t.Context())
	must(t, err)
	equal(t, "head", after.Position, before.Position)

	// Whoever registers is nobody yet, and does not see users: the receipt names the new one.
	joined := b.post(`mutation { registerUser(input: {email: "eve@example.org", name: "Eve"}) { receipt { stream } userErrors { code } user(within: "30s") { name } } }`, nil, "X-Who", "nobody")
	equal(t, "error", joined.code(), nil)
	equal(t, "user", joined.at(t, "registerUser", "user"), nil)
	eve := joined.at(t, "registerUser", "receipt", "stream").(string)
	renamed := b.post(`mutation($u: ID!) { renameUser(input: {userId: $u, name: "Eve E."}) { user(within: "30s") { name } } }`, in{"u": eve}, "X-Who", eve)
	equal(t, "name", renamed.at(t, "renameUser", "user", "name"), any("Eve E."))
}

func with(input, also in) in {
	out := in{}
	for _, values := range []in{input, also} {
		for name, value := range values {
			out[name] = value
		}
	}
	return out
}

func TestAStrangerFollowsNothingOfAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: whoever})
	m := b.belongings()
	documents := map[string]string{
		"cartChanged":    `subscription($cart: ID!) { cartChanged(id: $cart) { id ownerId items { sku } } }`,
		"cartsChanged":   `subscription { cartsChanged { kind carts { id ownerId items { sku } } removed } }`,
		"orderChanged":   `subscription($order: ID!) { orderChanged(id: $order) { id ownerId } }`,
		"ordersChanged":  `subscription($user: ID) { ordersChanged(filter: {ownerId: $user}) { kind orders { id ownerId } removed } }`,
		"userChanged":    `subscription($user: ID!) { userChanged(id: $user) { id name email } }`,
		"activityLogged": `subscription($user: ID) { activityLogged(userId: $user) { userId summary } }`,
		"events":         `subscription { events(after: "0") { stream type data } }`,
	}
	subscriptions := map[string]*ast.FieldDefinition{}
	owner, stranger := b.connectWith(in{"who": m.user}), b.connectWith(in{"who": "user-eve"})
	nobody := b.connectWith(in{"who": "nobody"})
	for _, field := range readSchema(t).Subscription.Fields {
		document, asked := documents[field.Name]
		if subscriptions[field.Name] = field; !asked {
			t.Errorf("no stranger asks for the subscription %s here", field.Name)
			continue
		}
		nobody.subscribe(field.Name, document, m.ids())
		refused := nobody.read()
		if equal(t, field.Name+" as nobody: "+asText(t, refused), code(refused), "UNAUTHENTICATED"); refused["type"] == "next" {
			nobody.receive("complete")
		}
		if field.Name != "events" {
			owner.subscribe(field.Name, document, m.ids())
			stranger.subscribe(field.Name, document, m.ids())
		}
	}
	for name := range documents {
		if subscriptions[name] == nil {
			t.Errorf("there is no subscription %s", name)
		}
	}
	b.change(m, "one")
	told := map[string]bool{}
	for len(told) < len(documents)-1 { // all but the raw log
		message := owner.read()
		if message == nil {
			t.Fatalf("the owner was told by %v only", told)
		}
		if text := asText(t, message); len(m.leaks(text)) > 0 {
			told[message["id"].(string)] = true
		} else if message["type"] == "error" {
			t.Fatalf("the owner is told %s", text)
		} else if message["type"] == "next" && len(told) == 0 {
			b.change(m, "again")
		}
	}
	stranger.subscribe("log", documents["events"], nil)
	stranger.subscribe("last", `{ carts { totalCount } }`, nil)
	for {
		message := stranger.read()
		if message == nil {
			t.Fatal("the stranger's socket was closed")
		}
		text := asText(t, message)
		if found := m.leaks(text); len(found) > 0 {
			t.Fatalf("the stranger hears of %v: %s", found, text)
		}
		if message["id"] == "log" && message["type"] != "complete" {
			equal(t, "the raw log", code(message), "FORBIDDEN")
		}
		if message["id"] == "last" && message["type"] == "next" {
			equal(t, "own carts", text, `{"id":"last","payload":{"data":{"carts":{"totalCount":0}}},"type":"next"}`)
			return
		}
	}
}

// change changes everything that ada has.
func (b *bundle) change(m mine, what string) {
	b.t.Helper()
	a := b.post(`mutation($c: ID!, $o: ID!, $u: ID!, $w: String!) {
		addItem(input: {cartId: $c, sku: $w, name: "Secret", quantity: 1, unitPrice: {amount: 5, currency: "EUR"}}) { receipt { position } }
		payOrder(input: {orderId: $o, reference: $w}) { receipt { position } }
		renameUser(input: {userId: $u, name: $w}) { receipt { position } } }`,
		in{"c": m.cart, "o": m.order, "u": m.user, "w": what}, "X-Who", m.user)
	equal(b.t, "error", a.code(), nil)
}

func asText(t *testing.T, message map[string]any) string {
	t.Helper()
	text, err := json.Marshal(message)
	must(t, err)
	return string(text)
}

// code is that of the first error in a message.
func code(message map[string]any) string {
	var m struct {
		Payload json.RawMessage
	}
	text, _ := json.Marshal(message)
	_ = json.Unmarshal(text, &m)
	var list []struct{ Extensions struct{ Code string } }
	if json.Unmarshal(m.Payload, &list) != nil {
		var response struct {
			Errors []struct{ Extensions struct{ Code string } }
		}
		_ = json.Unmarshal(m.Payload, &response)
		list = response.Errors
	}
	if len(list) == 0 {
		return ""
	}
	return list[0].Extensions.Code
}
