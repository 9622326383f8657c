package graph_test

import (
	"testing"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/pgtest"
)

// lose puts back what the database held, as a failover does, and has the server notice.
func (b *bundle) lose(back func()) {
	b.t.Helper()
	_, raised := b.store.Epoch()
	back()
	must(b.t, b.store.Review(b.t.Context()))
	<-raised
}

// A failover loses the newest event. Subscriptions that told of it end with LOG_DIVERGED, and all others go on.
func TestSubscriptionsGoOnUnlessTheyToldOfWhatIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	kept, lost := b.openCart(), b.openCart() // 1, 2
	b.settle()
	back := pgtest.Remember(t, b.pool)
	subscribe := func(document string, told int) *socket {
		s := b.connect()
		s.subscribe("1", document, nil)
		for range told {
			s.receive("next")
		}
		return s
	}
	others := `subscription { events(after: "0", stream: "` + kept + `") { position } }`
	going := map[string]*socket{
		"events":        subscribe(others, 1),
		"cartChanged":   subscribe(`subscription { cartChanged(id: "`+kept+`") { version } }`, 1),
		"ordersChanged": subscribe(`subscription { ordersChanged { kind position } }`, 1),
	}
	ending := map[string]*socket{
		"events":         subscribe(`subscription { events(after: "0") { position } }`, 2),
		"cartChanged":    subscribe(`subscription { cartChanged(id: "`+lost+`") { version } }`, 1),
		"cartsChanged":   subscribe(`subscription { cartsChanged { kind } }`, 1),
		"activityLogged": subscribe(`subscription { activityLogged(after: "0") { position } }`, 2),
	}
	for i := 1; i <= 3; i++ { // 3 to 5
		b.post(addItem, in{"cart": lost, "price": i})
		for _, s := range ending {
			s.receive("next")
		}
	}

	b.lose(back)
	for field, s := range ending {
		equal(t, field, s.failed("1")["code"], any("LOG_DIVERGED"))
	}
	b.post(addItem, in{"cart": kept, "price": 1}) // 3
	equal(t, "events", going["events"].object("1", "events")["position"], any("3"))
	equal(t, "cartChanged", going["cartChanged"].object("1", "cartChanged")["version"], any(2.0))
	b.command("checkOutCart", in{"cartId": kept}, "cart { id }") // 4, and the order's 5
	equal(t, "ordersChanged", going["ordersChanged"].object("1", "ordersChanged")["kind"], any("CHANGE"))
}

// What was read before a failover and comes to the client after it is not told, or its end is: nothing of what is lost is
// shown beside what the log has instead, though that is as long again.
func TestNoSubscriptionMixesHistories(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart() // 1
	b.openCart()         // 2
	b.settle()
	const readCart, readActivity = "updated_at from cart", "recorded_at from activity"
	for _, c := range []struct {
		name, document, text string
		nth                  int // statement of this text that the failover happens after
		told                 int // messages before that
		code                 any // that the subscription ends with then; nil: it goes on with the state as it is
	}{
		{"a list", `subscription { cartsChanged(first: 1) { kind } }`, readCart, 2, 1, "LOG_DIVERGED"},
		{"activities", `subscription { activityLogged(after: "0") { position } }`, readActivity, 1, 0, "LOG_DIVERGED"},
		{"an object", `subscription { cartChanged(id: "` + cart + `") { version } }`, readCart, 1, 0, nil},
	} {
		drop := pgtest.Remember(t, b.pool)
		b.post(addItem, in{"cart": cart, "price": 1})
		b.post(addItem, in{"cart": cart, "price": 1})
		b.openCart()
		b.settle()
		held := b.asked.hold(c.text, c.nth)
		s := b.connect()
		s.subscribe("1", c.document, nil)
		for range c.told {
			s.receive("next")
		}
		<-held.reached
		b.lose(drop)
		for i := range 5 {
			b.post(addItem, in{"cart": b.openCart(), "price": i})
		}
		b.settle()
		close(held.proceed)
		if c.code != nil {
			equal(t, c.name, s.failed("1")["code"], c.code)
			continue
		}
		equal(t, c.name, s.object("1", "cartChanged")["version"], any(1.0))
		b.post(addItem, in{"cart": cart, "price": 1})
		equal(t, c.name, s.object("1", "cartChanged")["version"], any(2.0))
	}
}
