package graph_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/headrace/headrace/graph"
)

// socket is a client that speaks graphql-transport-ws.
type socket struct {
	t    *testing.T
	ctx  context.Context
	conn *websocket.Conn
}

// dial opens a WebSocket and does not begin to speak.
func (b *bundle) dial() *socket {
	b.t.Helper()
	return b.dialWith(websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
}

func (b *bundle) dialWith(options websocket.DialOptions) *socket {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	conn, response, err := websocket.Dial(ctx, b.url+"/graphql", &options)
	must(b.t, err)
	if response.Body != nil {
		b.t.Cleanup(func() { _ = response.Body.Close() })
	}
	b.t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t: b.t, ctx: ctx, conn: conn}
}

// connect opens a WebSocket that is ready for subscriptions.
func (b *bundle) connect() *socket {
	b.t.Helper()
	s := b.dial()
	s.send(in{"type": "connection_init"})
	s.receive("connection_ack")
	return s
}

func (s *socket) send(message in) {
	s.t.Helper()
	must(s.t, wsjson.Write(s.ctx, s.conn, message))
}

func (s *socket) subscribe(id, document string, variables in) {
	s.t.Helper()
	s.send(in{"type": "subscribe", "id": id, "payload": in{"query": document, "variables": variables}})
}

// receive demands that the next message is of this type.
func (s *socket) receive(want string) map[string]any {
	s.t.Helper()
	message := s.read()
	if message["type"] != want {
		s.t.Fatalf("received %v, want %s", message, want)
	}
	return message
}

// read returns the next message, or nil when there comes none. Other goroutines than the test's may call it.
func (s *socket) read() map[string]any {
	var message map[string]any
	if wsjson.Read(s.ctx, s.conn, &message) != nil {
		return nil
	}
	return message
}

// failed demands that this operation ends with an error, and returns the error's extensions.
func (s *socket) failed(id string) map[string]any {
	s.t.Helper()
	message := s.receive("error")
	equal(s.t, "operation", message["id"], any(id))
	return message["payload"].([]any)[0].(map[string]any)["extensions"].(map[string]any)
}

// text is the next message as it came.
func (s *socket) text() string {
	s.t.Helper()
	text, err := json.Marshal(s.read())
	must(s.t, err)
	return string(text)
}

// next demands a result of this subscription, without errors, and returns a field of its data.
func (s *socket) next(id, field string) any {
	s.t.Helper()
	message := s.receive("next")
	equal(s.t, "subscription", message["id"], any(id))
	payload := message["payload"].(map[string]any)
	if payload["errors"] != nil {
		s.t.Fatalf("the result has errors: %v", payload)
	}
	return payload["data"].(map[string]any)[field]
}

// object is next of one that is an object.
func (s *socket) object(id, field string) map[string]any {
	s.t.Helper()
	object, ok := s.next(id, field).(map[string]any)
	if !ok {
		s.t.Fatalf("%s is no object", field)
	}
	return object
}

// closed reads until the server has closed the socket and returns its code.
func (s *socket) closed() websocket.StatusCode {
	for {
		if _, _, err := s.conn.Read(s.ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// refused demands that no WebSocket is opened, and returns the answer's status and header.
func (b *bundle) refused(options websocket.DialOptions) (int, http.Header) {
	b.t.Helper()
	conn, response, err := websocket.Dial(b.t.Context(), b.url+"/graphql", &options)
	if err == nil {
		_ = conn.CloseNow()
		b.t.Fatal("the socket is open")
	}
	if response == nil {
		b.t.Fatal(err)
	}
	must(b.t, response.Body.Close())
	return response.StatusCode, response.Header
}

func TestSubscriptionsShareASocket(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	tea, cup := b.openCart(), b.openCart()
	b.settle()
	s := b.connect()
	document := `subscription($id: ID!) { cartChanged(id: $id) { id version } }`
	s.subscribe("t", document, in{"id": tea})
	equal(t, "tea", s.object("t", "cartChanged")["id"], any(tea))
	s.subscribe("c", document, in{"id": cup})
	equal(t, "cup", s.object("c", "cartChanged")["id"], any(cup))
	b.post(addItem, in{"cart": cup, "price": 1})
	equal(t, "cup's change", s.object("c", "cartChanged")["version"], any(2.0))

	// What the client completes is not told any more; the other goes on.
	s.send(in{"type": "complete", "id": "c"})
	s.subscribe("q", `{ event(position: 1) { position } }`, nil)
	equal(t, "query over the socket", s.object("q", "event")["position"], any("1"))
	equal(t, "end", s.receive("complete")["id"], any("q"))
	b.post(addItem, in{"cart": cup, "price": 1})
	b.post(addItem, in{"cart": tea, "price": 1})
	equal(t, "tea's change", s.object("t", "cartChanged")["version"], any(2.0))

	// An id may be used again after its end, and an error ends the subscription that it belongs to.
	s.subscribe("c", document, in{"id": cup})
	equal(t, "cup again", s.object("c", "cartChanged")["version"], any(3.0))
	s.subscribe("bad", `subscription { nothing }`, nil)
	failed := s.receive("error")
	equal(t, "refused", failed["id"], any("bad"))
	s.send(in{"type": "ping"})
	s.receive("pong") // and no complete after the error
}

func TestSubscriptionsOfASocketAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxSocketStreams: 2, MaxStreams: 1})
	id := b.openCart()
	b.settle()
	s := b.connect()
	document := `subscription($id: ID!) { cartChanged(id: $id) { version } }`
	for _, name := range []string{"1", "2"} {
		s.subscribe(name, document, in{"id": id})
		s.object(name, "cartChanged")
	}
	s.subscribe("3", document, in{"id": id})
	equal(t, "code", s.failed("3")["code"], any("TOO_MANY_STREAMS"))
	status, _ := b.refused(websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
	equal(t, "a second socket", status, http.StatusServiceUnavailable)
	equal(t, "second stream", b.post(`subscription { events { position } }`, nil, "Accept", "text/event-stream").code(), any("TOO_MANY_STREAMS"))
	equal(t, "plain requests", b.post(`{ event(position: 1) { position } }`, nil).code(), nil)
}

func TestDrainMakesClientsComeAgainElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.settle()
	busy, idle, mute := b.connect(), b.connect(), b.dial()
	busy.subscribe("1", `subscription($id: ID!) { cartChanged(id: $id) { version } }`, in{"id": id})
	busy.object("1", "cartChanged")
	codes := make(chan websocket.StatusCode)
	for _, s := range []*socket{busy, idle, mute} {
		go func() { codes <- s.closed() }()
	}
	must(t, b.handler.Drain(busy.ctx))
	for range 3 {
		equal(t, "close code", <-codes, websocket.StatusServiceRestart)
	}
	status, header := b.refused(websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
	equal(t, "a socket after the drain", status, http.StatusServiceUnavailable)
	equal(t, "when to come again", header.Get("Retry-After"), "1")
	equal(t, "queries while draining", b.post(`{ event(position: 1) { position } }`, nil).code(), nil)
}
