package graph_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/identity"
)

const followCarts = `subscription($f: CartFilter, $n: Int, $a: Position) {
	cartsChanged(filter: $f, first: $n, after: $a) { kind carts { id version status } removed unchanged position } }`

// listed is a message of a live list of carts.
type listed struct {
	kind               string
	carts              map[string]float64 // versions by id
	removed, unchanged []string
	position           string // "" while the snapshot is not complete
}

func (s *socket) listed(id string) listed {
	s.t.Helper()
	object := s.object(id, "cartsChanged")
	texts := func(field string) (out []string) {
		for _, text := range object[field].([]any) {
			out = append(out, text.(string))
		}
		return out
	}
	l := listed{kind: object["kind"].(string), carts: map[string]float64{}, removed: texts("removed"), unchanged: texts("unchanged")}
	l.position, _ = object["position"].(string)
	for _, cart := range object["carts"].([]any) {
		cart := cart.(map[string]any)
		l.carts[cart["id"].(string)] = cart["version"].(float64)
	}
	return l
}

// shows demands what a message says; ids and versions are those of the carts in it.
func (l listed) shows(t *testing.T, kind string, carts map[string]float64, removed, unchanged []string) {
	t.Helper()
	slices.Sort(l.unchanged)
	slices.Sort(unchanged)
	if l.kind != kind || !maps.Equal(l.carts, carts) || !slices.Equal(l.removed, removed) || !slices.Equal(l.unchanged, unchanged) {
		t.Fatalf("the message is %+v, want %s of %v, without %v, unchanged %v", l, kind, carts, removed, unchanged)
	}
}

func (b *bundle) abandon(cart string) {
	b.t.Helper()
	b.command("abandonCart", in{"cartId": cart}, "cart { id }")
}

func TestLiveListTellsWhatChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	first, second, third, ended := b.openCart(), b.openCart(), b.openCart(), b.openCart()
	b.abandon(ended) // 5
	b.settle()
	s, open := b.connect(), in{"status": []string{"OPEN"}}
	s.subscribe("1", followCarts, in{"f": open, "n": 2})
	part := s.listed("1")
	part.shows(t, "SNAPSHOT", map[string]float64{third: 1, second: 1}, nil, nil)
	equal(t, "position of a part", part.position, "")
	part = s.listed("1")
	part.shows(t, "SNAPSHOT_END", map[string]float64{first: 1}, nil, nil)
	equal(t, "position", part.position, "5")

	b.post(addItem, in{"cart": second, "price": 1}) // 6
	change := s.listed("1")
	change.shows(t, "CHANGE", map[string]float64{second: 2}, nil, nil)
	equal(t, "position", change.position, "6")
	b.abandon(first) // 7
	s.listed("1").shows(t, "CHANGE", nil, []string{first}, nil)
	fourth := b.openCart() // 8
	last := s.listed("1")
	last.shows(t, "CHANGE", map[string]float64{fourth: 1}, nil, nil)
	equal(t, "position", last.position, "8")

	// Whoever comes again with a position is told what changed since, and of all else that it is still there.
	s.subscribe("2", followCarts, in{"f": open, "a": "5"})
	s.listed("2").shows(t, "SNAPSHOT_END", map[string]float64{second: 2, fourth: 1}, nil, []string{third})
	s.subscribe("3", followCarts, in{"f": open, "a": last.position, "n": 2})
	s.listed("3").shows(t, "SNAPSHOT", nil, nil, []string{fourth, third})
	s.listed("3").shows(t, "SNAPSHOT_END", nil, nil, []string{second})

	// An empty list is complete at once. Orders have theirs too.
	s.subscribe("4", `subscription { ordersChanged(filter: {status: [PLACED]}) { kind orders { id status } removed } }`, nil)
	equal(t, "no orders", s.object("4", "ordersChanged")["kind"], any("SNAPSHOT_END"))
	s.send(in{"type": "complete", "id": "1"})
	s.send(in{"type": "complete", "id": "2"})
	s.send(in{"type": "complete", "id": "3"})
	b.command("checkOutCart", in{"cartId": second}, "cart { id }")
	id := "order-" + strings.TrimPrefix(second, "cart-")
	for {
		message := s.read()
		if message["id"] != "4" {
			continue // sent before the server knew that they are complete
		}
		orders := message["payload"].(map[string]any)["data"].(map[string]any)["ordersChanged"].(map[string]any)["orders"].([]any)
		equal(t, "order", orders[0].(map[string]any)["id"], any(id))
		break
	}
	b.command("payOrder", in{"orderId": id, "reference": "r"}, someOrder)
	removed := s.object("4", "ordersChanged")["removed"].([]any)
	equal(t, "no longer placed", removed[0], any(id))
}

func TestLiveListsHaveLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxLiveRows: 2})
	b.openCart()
	b.openCart()
	b.settle()
	s := b.connect()
	for i, c := range []struct {
		variables in
		code      string
	}{
		{in{"n": 0}, "BAD_USER_INPUT"},
		{in{"n": 1001}, "BAD_USER_INPUT"},
		{in{"a": "3"}, "POSITION_BEYOND_HEAD"},
	} {
		id := fmt.Sprint("refused ", i)
		s.subscribe(id, followCarts, c.variables)
		s.fails(id, c.code)
	}
	s.subscribe("1", followCarts, nil)
	equal(t, "rows", len(s.listed("1").carts), 2)
	b.openCart()
	s.fails("1", "LIST_TOO_LARGE")
	s.subscribe("2", followCarts, nil)
	s.fails("2", "LIST_TOO_LARGE")
}

// fails demands that a subscription ends with an error.
func (s *socket) fails(id, code string) {
	s.t.Helper()
	equal(s.t, "code of "+id, s.failed(id)["code"], any(code))
}

// asActor takes the header X-Actor for who asks, with no right but their own.
func asActor(ctx context.Context, r *http.Request, _ map[string]any) (context.Context, time.Time, error) {
	return identity.NewContext(ctx, identity.Identity{Subject: r.Header.Get("X-Actor")}), time.Time{}, nil
}

// Who may see only their own are told of that and of nothing else, not even that something is not theirs.
func TestLiveListShowsWhatMayBeSeen(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: asActor})
	open := func(who string) string {
		document := `mutation($o: ID!) { openCart(input: {ownerId: $o, currency: "EUR"}) { receipt { stream } cart(within: "30s") { id } } }`
		return b.post(document, in{"o": who}, "X-Actor", who).at(t, "openCart", "receipt", "stream").(string)
	}
	abandon := func(who, cart string) {
		a := b.post(`mutation($c: ID!) { abandonCart(input: {cartId: $c}) { receipt { version } } }`, in{"c": cart}, "X-Actor", who)
		equal(t, "abandoned", a.at(t, "abandonCart", "receipt", "version"), any(2.0))
	}
	adas, eves := open("ada"), open("eve")
	s := b.connectAs("ada")
	s.subscribe("1", followCarts, nil)
	s.listed("1").shows(t, "SNAPSHOT_END", map[string]float64{adas: 1}, nil, nil)
	s.subscribe("2", followCarts, in{"f": in{"status": []string{"OPEN"}, "ownerId": "eve"}})
	s.listed("2").shows(t, "SNAPSHOT_END", nil, nil, nil)
	open("eve")
	abandon("eve", eves)
	abandon("ada", adas)
	s.listed("1").shows(t, "CHANGE", map[string]float64{adas: 2}, nil, nil)
	nobody := b.connectAs("")
	nobody.subscribe("1", followCarts, nil)
	if text := nobody.text(); !strings.Contains(text, "UNAUTHENTICATED") {
		t.Fatalf("nobody is answered by %s", text)
	}
}

// connectAs is connect with an actor.
func (b *bundle) connectAs(actor string) *socket {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	conn, response, err := websocket.Dial(ctx, b.url+"/graphql", &websocket.DialOptions{
		Subprotocols: []string{"graphql-transport-ws"}, HTTPHeader: http.Header{"X-Actor": {actor}},
	})
	must(b.t, err)
	if response.Body != nil {
		b.t.Cleanup(func() { _ = response.Body.Close() })
	}
	b.t.Cleanup(func() { _ = conn.CloseNow() })
	s := &socket{t: b.t, ctx: ctx, conn: conn}
	s.send(in{"type": "connection_init"})
	s.receive("connection_ack")
	return s
}

// copied is a client's copy of a live list.
type copied struct {
	filter   in
	carts    map[string]float64
	position any // nil: nothing yet
}

// follow keeps the copy for as long as leave says, which is asked when the list is whole.
func (c *copied) follow(s *socket, leave func(l listed) bool) {
	s.t.Helper()
	s.subscribe("1", followCarts, in{"f": c.filter, "a": c.position, "n": 3})
	named := map[string]bool{}
	for {
		l := s.listed("1")
		for cart, version := range l.carts {
			c.carts[cart], named[cart] = version, true
		}
		for _, cart := range l.unchanged {
			if _, has := c.carts[cart]; !has {
				s.t.Errorf("%s is unchanged, and was never told", cart)
			}
			named[cart] = true
		}
		for _, cart := range l.removed {
			if _, has := c.carts[cart]; !has {
				s.t.Errorf("%s is removed, and was never told", cart)
			}
			delete(c.carts, cart)
		}
		if l.kind == "SNAPSHOT_END" {
			maps.DeleteFunc(c.carts, func(cart string, _ float64) bool { return !named[cart] })
		}
		if l.position != "" {
			c.position = l.position
		}
		if l.kind != "SNAPSHOT" && leave(l) {
			_ = s.conn.CloseNow()
			return
		}
	}
}

// Clients that come, go and come again while carts change have the list that a new client gets, in the end.
func TestLiveListsMissNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	filters := []in{nil, {"status": []string{"OPEN"}}, {"ownerId": "ada", "status": []string{"OPEN", "ABANDONED"}}}
	var writing, following sync.WaitGroup
	for range 3 {
		writing.Go(func() {
			for i := range 30 {
				cart := b.openCart()
				b.post(addItem, in{"cart": cart, "price": 1})
				if i%2 == 0 {
					b.post(`mutation($c: ID!) { abandonCart(input: {cartId: $c}) { receipt { version } } }`, in{"c": cart})
					b.post(`mutation { openCart(input: {ownerId: "eve", currency: "EUR"}) { receipt { version } } }`, nil)
				}
			}
		})
	}
	written, end := make(chan struct{}), ""
	over := func() bool {
		select {
		case <-written:
			return true
		default:
			return false
		}
	}
	copies := make([]*copied, 12)
	for i := range copies {
		copies[i] = &copied{filter: filters[i%len(filters)], carts: map[string]float64{}}
		following.Go(func() {
			for !over() { // leaves after the first change: there is one, at the latest the end
				copies[i].follow(b.connect(), func(l listed) bool { return l.kind == "CHANGE" || over() })
			}
		})
	}
	writing.Wait()
	b.openCart()
	close(written)
	end = b.openCart()
	following.Wait()
	ended := func(carts map[string]float64) func(listed) bool {
		return func(listed) bool { _, has := carts[end]; return has }
	}
	for _, c := range copies {
		c.follow(b.connect(), ended(c.carts))
		fresh := &copied{filter: c.filter, carts: map[string]float64{}}
		fresh.follow(b.connect(), ended(fresh.carts))
		if !maps.Equal(c.carts, fresh.carts) {
			t.Errorf("the copy of %v is %v, want %v", c.filter, c.carts, fresh.carts)
		}
	}
	counts := b.post(`{ a: carts { totalCount } b: carts(filter: {status: [OPEN]}) { totalCount }
		c: carts(filter: {ownerId: "ada", status: [OPEN, ABANDONED]}) { totalCount } }`, nil)
	for i, name := range []string{"a", "b", "c"} {
		equal(t, name, counts.at(t, name, "totalCount"), any(float64(len(copies[i].carts))))
	}
}
