package graph_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

const (
	followEvents   = `subscription($a: Position, $t: Token) { events(after: $a, afterToken: $t) { position } }`
	followActivity = `subscription($a: Position, $t: Token, $u: ID) { activityLogged(after: $a, afterToken: $t, userId: $u) { position userId } }`
)

// Events and activities go on after a position or a token, the later of both, and then live.
func TestSubscriptionsGoOnAfter(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	receipt := b.post(openCart, nil).at(t, "openCart", "receipt").(map[string]any) // 1
	b.post(openCart, nil)                                                          // 2
	b.post(`mutation { openCart(input: {ownerId: "eve", currency: "EUR"}) { receipt { version } } }`, nil)
	b.settle()
	s := b.connect()
	token, last := receipt["token"], 3
	for field, document := range map[string]string{"events": followEvents, "activityLogged": followActivity} {
		for _, c := range []struct {
			variables in
			after     int
		}{
			{in{"a": "0"}, 0}, {in{"a": "2"}, 2}, {in{"t": token}, 1}, {in{"a": "2", "t": token}, 2}, {in{"a": "0", "t": token}, 1},
		} {
			s := b.connect()
			s.subscribe("1", document, c.variables)
			for position := c.after + 1; position <= last; position++ {
				equal(t, field, s.object("1", field)["position"], any(strconv.Itoa(position)))
			}
			b.openCart()
			last++
			equal(t, field+", live", s.object("1", field)["position"], any(strconv.Itoa(last)))
		}
	}
	s.subscribe("eve", followActivity, in{"a": "0", "u": "eve"})
	equal(t, "eve's", s.object("eve", "activityLogged")["position"], any("3"))
	b.openCart()
	b.post(`mutation { openCart(input: {ownerId: "eve", currency: "EUR"}) { receipt { version } } }`, nil)
	equal(t, "eve's, live", s.object("eve", "activityLogged")["position"], any(strconv.Itoa(last+2)))
}

func TestSubscriptionsAfterWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	head, err := b.store.Head(t.Context())
	must(t, err)
	foreign, restored, ahead, other := head, head, head, head
	foreign.LogID, restored.Epoch, ahead.Position, other.EventID = uuid.New(), head.Epoch+1, 99, uuid.New()
	for _, document := range []string{followEvents, followActivity} {
		s := b.connect()
		for _, token := range []eventstore.Token{foreign, restored, other} {
			s.subscribe("1", document, in{"t": token.String()})
			s.fails("1", "LOG_DIVERGED")
		}
		s.subscribe("1", document, in{"t": ahead.String()})
		s.fails("1", "POSITION_BEYOND_HEAD")
		s.subscribe("1", document, in{"a": "2", "t": head.String()})
		s.fails("1", "POSITION_BEYOND_HEAD")
	}
}

// A client of an event stream that comes again with the id of the last event it saw goes on after that, whatever the
// arguments say that it began with.
func TestEventStreamsGoOnAfterTheLastEventID(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart() // 1
	b.openCart()         // 2
	b.openCart()         // 3
	b.settle()
	tells := func(document, lastSeen, id, data string) {
		t.Helper()
		stream := b.followWith(document, "Last-Event-ID", lastSeen)
		defer stream.close()
		stream.expect("id: "+id, "event: next", "data: "+data)
	}
	position := func(field, position string) string {
		return `{"data":{"` + field + `":{"position":"` + position + `"}}}`
	}
	for _, field := range []string{"events", "activityLogged"} {
		for _, arguments := range []string{"", `(after: "0")`, `(after: "1")`} {
			document := "subscription { " + field + arguments + " { position } }"
			tells(document, "2", "3", position(field, "3"))
		}
		tells("subscription { "+field+`(after: "2") { position } }`, "0", "3", position(field, "3"))
	}
	list := `{"data":{"cartsChanged":{"kind":"SNAPSHOT_END","position":"3","unchanged":%s}}}`
	document := `subscription { cartsChanged { kind position unchanged } }`
	tells(document, "3", "3", strings.Replace(list, "%s", b.ids("carts"), 1))
	tells(document, "0", "3", strings.Replace(list, "%s", "[]", 1))

	// An object's state that the client has is not told again.
	document = `subscription { cartChanged(id: "` + cart + `") { version } }`
	had := b.followWith(document, "Last-Event-ID", "1")
	b.post(addItem, in{"cart": cart, "price": 1}) // 4
	had.expect("id: 4", "event: next", `data: {"data":{"cartChanged":{"version":2}}}`)

	for _, document := range []string{
		`subscription { events { position } }`, `subscription { activityLogged { position } }`, `subscription { cartsChanged { kind } }`, document,
	} {
		for _, c := range []struct{ id, code string }{
			{"x", "BAD_USER_INPUT"}, {"-1", "BAD_USER_INPUT"}, {"01", "BAD_USER_INPUT"}, {"99999999999999999999", "BAD_USER_INPUT"}, {"99", "POSITION_BEYOND_HEAD"},
		} {
			stream := b.followWith(document, "Last-Event-ID", c.id)
			stream.expect("event: next")
			if data := stream.lineAfterComments(); !strings.Contains(data, c.code) {
				t.Fatalf("%s after %s is answered by %s", document, c.id, data)
			}
			stream.expect("event: complete", "data:", "end")
		}
	}
}

// ids are those of a list, as JSON.
func (b *bundle) ids(field string) string {
	b.t.Helper()
	var ids []string
	for _, node := range b.post("{ "+field+" { nodes { id } } }", nil).at(b.t, field, "nodes").([]any) {
		ids = append(ids, strconv.Quote(node.(map[string]any)["id"].(string)))
	}
	return "[" + strings.Join(ids, ",") + "]"
}

// Of the many who follow a cart each is told of every change, and the cart is read a few times and not once for each.
func TestFollowersShareReadings(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxSocketStreams: 150})
	const followers, changes = 300, 5
	cart := b.openCart()
	b.settle()
	var sockets []*socket
	for range followers / 150 {
		s := b.connect()
		sockets = append(sockets, s)
		for i := range 150 {
			s.subscribe(strconv.Itoa(i), `subscription($id: ID!) { cartChanged(id: $id) { version } }`, in{"id": cart})
		}
		for range 150 {
			s.receive("next")
		}
	}
	before := b.asked.count("from cart where id = $1")
	for range changes {
		b.post(addItem, in{"cart": cart, "price": 1})
	}
	for _, s := range sockets {
		for done := 0; done < 150; {
			payload := s.receive("next")["payload"].(map[string]any)
			if payload["data"].(map[string]any)["cartChanged"].(map[string]any)["version"] == 1.0+changes {
				done++
			}
		}
	}
	if n := b.asked.count("from cart where id = $1") - before; n > 10*changes {
		t.Fatalf("%d followers of %d changes read the cart %d times", followers, changes, n)
	}
}

// Whoever goes away leaves nothing behind; whoever is drained comes again elsewhere.
func TestSubscribersLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart()
	b.settle()
	documents := []string{
		`subscription { events { position } }`, `subscription { events(after: "0", stream: "` + cart + `") { position } }`,
		`subscription { activityLogged(after: "0") { position } }`, `subscription { cartsChanged { kind } }`,
		`subscription { ordersChanged { kind } }`, `subscription { cartChanged(id: "` + cart + `") { id } }`,
	}
	open := func() *socket {
		s := b.connect()
		for i, document := range documents {
			s.subscribe(strconv.Itoa(i), document, nil)
		}
		for range documents[1:] { // all but the first tell something at once
			s.receive("next")
		}
		return s
	}
	gone := func() {
		t.Helper()
		for deadline := time.Now().Add(patience); b.tail.Subscribers() > 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%d subscribers are left", b.tail.Subscribers())
			}
			b.openCart()
		}
	}
	for range 3 {
		s := open()
		if b.tail.Subscribers() == 0 {
			t.Fatal("nobody subscribes")
		}
		_ = s.conn.CloseNow()
		gone()
	}
	drained := open()
	closed := make(chan int, 1)
	go func() { closed <- int(drained.closed()) }()
	must(t, b.handler.Drain(drained.ctx))
	equal(t, "close code", <-closed, 1012)
	gone()
}

// Subscriptions of all kinds outlive the loss of every connection to the database, and miss nothing.
func TestSubscriptionsOutliveLostConnections(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart()
	b.settle()
	log, object, list, activity := b.connect(), b.connect(), b.connect(), b.connect()
	log.subscribe("1", `subscription { events(after: "1") { position } }`, nil)
	object.subscribe("1", `subscription($id: ID!) { cartChanged(id: $id) { version } }`, in{"id": cart})
	object.object("1", "cartChanged")
	list.subscribe("1", followCarts, nil)
	list.listed("1")
	activity.subscribe("1", followActivity, in{"a": "1"})
	killer, err := pgx.ConnectConfig(t.Context(), b.pool.Config().ConnConfig) // one of the pool may be dead since the last time
	must(t, err)
	defer killer.Close(t.Context())
	for version := 2.0; version < 6; version++ {
		_, err := killer.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid()`)
		must(t, err)
		position := strconv.Itoa(int(version))
		for deadline := time.Now().Add(patience); ; {
			a := b.post(`mutation($c: ID!, $i: ID) { addItem(input: {cartId: $c, sku: "tea", name: "Tea", quantity: 1,
				unitPrice: {amount: 1, currency: "EUR"}, commandId: $i}) { receipt { version } } }`, in{"c": cart, "i": "add " + position})
			if a.code() == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(a.raw)
			}
		}
		equal(t, "event", log.object("1", "events")["position"], any(position))
		equal(t, "activity", activity.object("1", "activityLogged")["position"], any(position))
		equal(t, "object", object.object("1", "cartChanged")["version"], any(version))
		equal(t, "list", list.listed("1").carts[cart], version)
	}
}

// What a client has seen of a history that the log lost is not taken for what stands at that position now.
func TestEventStreamsTellAPositionsHistoriesApart(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart()                          // 1
	b.openCart()                                  // 2
	b.post(addItem, in{"cart": cart, "price": 1}) // 3
	b.settle()
	events := `subscription { events(after: "1") { position } }`
	seen := b.follow(events)
	seen.expect("id: 2", "event: next", `data: {"data":{"events":{"position":"2"}}}`)
	kept := seen.id
	seen.expect("id: 3")
	lost := seen.id
	seen.close()

	pgtest.Lose(t, b.pool, 2)
	must(t, b.store.Review(t.Context()))
	b.openCart() // another 3
	b.openCart()
	at := b.store.Mark(3)
	foreign, unheard := at, at
	foreign.Log, unheard.Epoch = "ffffffff", at.Epoch-1
	for _, document := range []string{
		events, `subscription { activityLogged { position } }`, `subscription { cartsChanged { kind } }`, `subscription { cartChanged(id: "` + cart + `") { version } }`,
	} {
		for what, id := range map[string]string{
			"what is lost": lost, "another log": foreign.String(), "an epoch that the log never had": unheard.String(),
		} {
			stream := b.followWith(document, "Last-Event-ID", id)
			stream.expect("event: next")
			if data := stream.lineAfterComments(); !strings.Contains(data, "LOG_DIVERGED") {
				t.Fatalf("%s after %s is answered by %s", document, what, data)
			}
			stream.expect("event: complete", "data:", "end")
		}
	}
	for id, next := range map[string]string{kept: "3", at.String(): "4"} {
		again := b.followWith(events, "Last-Event-ID", id)
		again.expect("id: "+next, "event: next", `data: {"data":{"events":{"position":"`+next+`"}}}`)
		again.close()
	}
}
