package graph_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

func TestObjectsAreFollowed(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	s := b.connect()
	user := b.command("registerUser", in{"email": "ada@example.org", "name": "Ada"}, someUser).done(1).object["id"]
	s.subscribe("u", `subscription($id: ID!) { userChanged(id: $id) { id name version } }`, in{"id": user})
	equal(t, "snapshot", s.object("u", "userChanged")["version"], any(1.0))
	b.command("renameUser", in{"userId": user, "name": "Ada L."}, someUser).done(2)
	equal(t, "name", s.object("u", "userChanged")["name"], any("Ada L."))

	// An order is followed from before it is there.
	cart := b.openCart()
	b.post(addItem, in{"cart": cart, "price": 5})
	id := "order-" + strings.TrimPrefix(cart, "cart-")
	s.subscribe("o", `subscription($id: ID!) { orderChanged(id: $id) { id status version } }`, in{"id": id})
	out := b.command("checkOutCart", in{"cartId": cart}, "cart { id }").done(3)
	equal(t, "check-out", out.receipt["stream"], any(cart))
	equal(t, "placed", s.object("o", "orderChanged")["status"], any("PLACED"))
	b.command("payOrder", in{"orderId": id, "reference": "r"}, someOrder).done(2)
	equal(t, "paid", s.object("o", "orderChanged")["status"], any("PAID"))

	// Its end of a cart, whose snapshot a late subscriber gets.
	s.subscribe("c", `subscription($id: ID!) { cartChanged(id: $id) { status orderId } }`, in{"id": cart})
	ended := s.object("c", "cartChanged")
	equal(t, "cart", ended["status"], any("CHECKED_OUT"))
	equal(t, "cart's order", ended["orderId"], any(id))
}

func TestActivityIsLogged(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	ada := b.command("registerUser", in{"email": "ada@example.org", "name": "Ada"}, someUser).done(1).object["id"].(string)
	b.settle()
	all, own := b.connect(), b.connect()
	document := `subscription($u: ID) { activityLogged(userId: $u) { userId type position } }`
	all.subscribe("1", document, nil)
	own.subscribe("1", document, in{"u": ada})
	open := func(owner string) {
		b.post(`mutation($o: ID!) { openCart(input: {ownerId: $o, currency: "EUR"}) { receipt { position } } }`, in{"o": owner})
	}
	first := map[*socket]int{}
	for _, s := range []*socket{all, own} {
		first[s] = s.begun("activityLogged", func() { open(ada) })
	}
	before, err := b.store.Head(t.Context())
	must(t, err)
	for _, owner := range []string{"eve", ada, "eve", ada} {
		open(owner)
	}
	head := int(before.Position) + 4
	for position := first[all] + 1; position <= head; position++ {
		equal(t, "position", all.object("1", "activityLogged")["position"], any(strconv.Itoa(position)))
	}
	for position := first[own] + 1; position <= head; position++ {
		if position == head-3 || position == head-1 { // eve's
			continue
		}
		activity := own.object("1", "activityLogged")
		equal(t, "position", activity["position"], any(strconv.Itoa(position)))
		equal(t, "user", activity["userId"], any(ada))
	}
}

// begun returns the position of the first result of a subscription that begins from now. Since it begins at some time
// after its message, something is done again and again until it is told of.
func (s *socket) begun(field string, do func()) int {
	s.t.Helper()
	got := make(chan map[string]any, 1)
	go func() { got <- s.read() }()
	for {
		do()
		select {
		case message := <-got:
			return positionIn(s.t, message, field)
		default:
		}
	}
}

func number(t *testing.T, text any) int {
	t.Helper()
	n, err := strconv.Atoi(text.(string))
	must(t, err)
	return n
}

func positionIn(t *testing.T, message map[string]any, field string) int {
	t.Helper()
	data := message["payload"].(map[string]any)["data"].(map[string]any)
	return number(t, data[field].(map[string]any)["position"])
}

func TestEventsAreFilteredAndResumed(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart()                                                           // 1
	b.openCart()                                                                   // 2
	b.post(addItem, in{"cart": cart, "price": 1})                                  // 3
	b.command("registerUser", in{"email": "a@example.org", "name": "A"}, someUser) // 4
	s := b.connect()
	for name, c := range map[string]struct {
		arguments string
		want      []string
	}{
		"from the start": {`after: "0"`, []string{"1", "2", "3", "4"}},
		"as a number":    {`after: 0, types: ["cart.opened"]`, []string{"1", "2"}},
		"resumed":        {`after: "2"`, []string{"3", "4"}},
		"of a stream":    {`after: "0", stream: "` + cart + `"`, []string{"1", "3"}},
		"of types":       {`after: "0", types: ["cart.opened", "user.registered"]`, []string{"1", "2", "4"}},
		"of both":        {`after: "0", stream: "` + cart + `", types: ["cart.item_added"]`, []string{"3"}},
	} {
		t.Log(name)
		s.subscribe(name, `subscription { events(`+c.arguments+`) { position } }`, nil)
		for _, want := range c.want {
			equal(t, name, s.object(name, "events")["position"], any(want))
		}
		s.send(in{"type": "complete", "id": name})
	}
	for _, arguments := range []string{`after: "5"`, `after: 99, stream: "none"`} {
		s.subscribe("beyond", `subscription { events(`+arguments+`) { position } }`, nil)
		extensions := s.failed("beyond")
		equal(t, "code", extensions["code"], any("POSITION_BEYOND_HEAD"))
		equal(t, "head", extensions["head"], any("4"))
	}
	for _, arguments := range []string{`after: "-1"`, `after: "x"`, `after: 1.5`} {
		s.subscribe("bad", `subscription { events(`+arguments+`) { position } }`, nil)
		text := s.text()
		if !strings.Contains(text, "BAD_USER_INPUT") && !strings.Contains(text, "GRAPHQL_VALIDATION_FAILED") {
			t.Fatalf("%s is answered by %s", arguments, text)
		}
	}
}

func TestEventsFromNowLeaveThePastOut(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	b.openCart()
	s := b.connect()
	s.subscribe("1", `subscription { events { position type metadata { actor commandId correlationId } } }`, nil)
	position := s.begun("events", func() { b.post(openCart, nil, "X-Actor", "ada") })
	if position < 3 {
		t.Fatalf("position %d is of the past", position)
	}
	head, err := b.store.Head(t.Context())
	must(t, err)
	b.post(openCart, in{"id": "c9"}, "X-Actor", "eve", "X-Request-Id", "r-9")
	for position < int(head.Position)+1 {
		event := s.object("1", "events")
		position++
		equal(t, "position", event["position"], any(strconv.Itoa(position)))
		if position > int(head.Position) {
			metadata := event["metadata"].(map[string]any)
			equal(t, "actor", metadata["actor"], any("eve"))
			equal(t, "command id", metadata["commandId"], any("c9"))
			equal(t, "correlation id", metadata["correlationId"], any("r-9"))
		}
	}
}
