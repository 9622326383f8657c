package graph_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph"
)

// hollow is a server with nothing behind it, which is enough for what a protocol says of operations that need nothing.
func hollow(t *testing.T, cfg graph.Config) *bundle {
	t.Helper()
	cfg.Logger = slogTo(&logged{})
	handler, err := graph.NewHandler(&graph.Resolver{}, cfg)
	must(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		end, done := context.WithTimeout(context.Background(), patience)
		defer done()
		must(t, handler.Drain(end))
		server.Close()
	})
	return &bundle{t: t, handler: handler, url: server.URL}
}

var (
	begin = in{"type": "connection_init"}
	ping  = in{"type": "ping"}
)

func subscribe(payload any) in { return in{"type": "subscribe", "id": "1", "payload": payload} }

func TestSocketsCloseWithTheProtocolsCodes(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{MaxBodyBytes: 1000})
	query := in{"query": "{ __typename }"}
	for _, c := range []struct {
		name     string
		messages []any
		code     websocket.StatusCode
	}{
		{"subscribe first", []any{subscribe(query)}, 4401},
		{"subscribe first, after a ping", []any{ping, subscribe(query)}, 4401},
		{"two beginnings", []any{begin, begin}, 4429},
		{"two beginnings, with an operation between them", []any{begin, subscribe(query), begin}, 4429},
		{"a beginning with a number", []any{in{"type": "connection_init", "payload": 7}}, 4400},
		{"a beginning with a list", []any{in{"type": "connection_init", "payload": []any{}}}, 4400},
		{"a ping with a text", []any{in{"type": "ping", "payload": "x"}}, 4400},
		{"a pong with a text", []any{begin, in{"type": "pong", "payload": "x"}}, 4400},
		{"no type", []any{begin, in{"id": "1"}}, 4400},
		{"a type that is no text", []any{begin, in{"type": 1}}, 4400},
		{"the predecessor's type", []any{begin, in{"type": "start", "id": "1"}}, 4400},
		{"the server's types", []any{begin, in{"type": "next", "id": "1"}}, 4400},
		{"another of the server's types", []any{begin, in{"type": "connection_ack"}}, 4400},
		{"a text", []any{begin, "subscribe"}, 4400},
		{"a list", []any{begin, []any{subscribe(query)}}, 4400},
		{"null", []any{nil}, 4400},
		{"no id", []any{begin, in{"type": "subscribe", "payload": query}}, 4400},
		{"an empty id", []any{begin, in{"type": "subscribe", "id": "", "payload": query}}, 4400},
		{"an id that is a number", []any{begin, in{"type": "subscribe", "id": 1, "payload": query}}, 4400},
		{"a long id", []any{begin, in{"type": "subscribe", "id": strings.Repeat("x", 257), "payload": query}}, 4400},
		{"no payload", []any{begin, in{"type": "subscribe", "id": "1"}}, 4400},
		{"no query", []any{begin, subscribe(in{})}, 4400},
		{"a query that is a number", []any{begin, subscribe(in{"query": 1})}, 4400},
		{"variables that are a list", []any{begin, subscribe(in{"query": "{ __typename }", "variables": []any{1}})}, 4400},
		{"extensions that are a text", []any{begin, subscribe(in{"query": "{ __typename }", "extensions": "x"})}, 4400},
		{"an operation name that is a number", []any{begin, subscribe(in{"query": "{ __typename }", "operationName": 1})}, 4400},
		{"complete without an id", []any{begin, in{"type": "complete"}}, 4400},
		{"too long", []any{begin, strings.Repeat("x", 2000)}, websocket.StatusMessageTooBig},
	} {
		s := b.dial()
		for _, message := range c.messages {
			must(t, wsjson.Write(s.ctx, s.conn, message))
		}
		equal(t, c.name, s.closed(), c.code)
	}
	s := b.dial()
	must(t, s.conn.Write(s.ctx, websocket.MessageText, []byte(`{"type": "connection_init"`)))
	equal(t, "half a message", s.closed(), websocket.StatusCode(4400))
	s = b.dial()
	must(t, s.conn.Write(s.ctx, websocket.MessageBinary, []byte(`{"type": "connection_init"}`)))
	equal(t, "bytes", s.closed(), websocket.StatusCode(4400))
}

// Another subprotocol is agreed on first, so that browsers show the code: they fail without one when none is agreed on.
func TestOtherSubprotocolsAreClosed(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{})
	for _, protocols := range [][]string{nil, {"graphql-ws"}, {"mqtt", "graphql-ws"}} {
		s := b.dialWith(websocket.DialOptions{Subprotocols: protocols})
		if len(protocols) > 0 {
			equal(t, "agreed on", s.conn.Subprotocol(), protocols[0])
		}
		equal(t, fmt.Sprint(protocols), s.closed(), websocket.StatusCode(4406))
	}
	s := b.dialWith(websocket.DialOptions{Subprotocols: []string{"graphql-ws", "graphql-transport-ws"}})
	equal(t, "of both", s.conn.Subprotocol(), "graphql-transport-ws")
	s.send(begin)
	s.receive("connection_ack")
}

func TestSocketsOfOtherOriginsAreRefused(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{Origins: []string{"https://shop.example"}})
	from := func(origin string) websocket.DialOptions {
		return websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}, HTTPHeader: http.Header{"Origin": {origin}}}
	}
	status, _ := b.refused(from("https://evil.example"))
	equal(t, "status", status, http.StatusForbidden)
	s := b.dialWith(from("https://shop.example"))
	s.send(begin)
	s.receive("connection_ack")
}

func TestBeginningsThatAreLetIn(t *testing.T) {
	t.Parallel()
	got := make(chan map[string]any, 1)
	b := hollow(t, graph.Config{Login: func(ctx context.Context, r *http.Request, payload map[string]any) (context.Context, time.Time, error) {
		if r.Header.Get("Sec-WebSocket-Protocol") == "" {
			t.Error("the login is not given the request of the upgrade")
		}
		got <- payload
		return ctx, time.Time{}, nil
	}})
	for payload, want := range map[any]int{nil: 0, "object": 1} {
		s := b.dial()
		message := in{"type": "connection_init", "payload": nil}
		if payload != nil {
			message["payload"] = in{"token": "t"}
		}
		s.send(message)
		s.receive("connection_ack")
		equal(t, "payload", len(<-got), want)
	}
}

// A ping may come at any time, and is answered with what it holds.
func TestPingsAreAnsweredAtAnyTime(t *testing.T) {
	t.Parallel()
	s := hollow(t, graph.Config{}).dial()
	for _, when := range []string{"before the beginning", "after it"} {
		s.send(in{"type": "pong"})
		s.send(ping)
		equal(t, when, s.receive("pong")["payload"], nil)
		s.send(in{"type": "ping", "payload": in{"at": 1}})
		equal(t, when+", with a payload", s.receive("pong")["payload"].(map[string]any)["at"], any(1.0))
		if when == "before the beginning" {
			s.send(begin)
			s.receive("connection_ack")
		}
	}
}

// Who says nothing is closed, and who is not let in in time.
func TestBeginningsAreBoundedInTime(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{InitTimeout: 100 * time.Millisecond})
	silent, chatty := b.dial(), b.dial()
	chatty.send(ping) // which begins nothing
	for _, s := range []*socket{silent, chatty} {
		equal(t, "silence", s.closed(), websocket.StatusCode(4408))
	}
	b = hollow(t, graph.Config{InitTimeout: 100 * time.Millisecond, Login: func(ctx context.Context, _ *http.Request, _ map[string]any) (context.Context, time.Time, error) {
		<-ctx.Done()
		return ctx, time.Time{}, ctx.Err()
	}})
	s := b.dial()
	s.send(begin)
	equal(t, "a login that takes too long", s.closed(), websocket.StatusCode(4408))
}

func TestRefusedAndExpiredLoginsEndSockets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		err     error
		expires time.Time
		code    websocket.StatusCode
	}{
		{"refused", errors.New("secret"), time.Time{}, 4403},
		{"refused in words", &gqlerror.Error{Message: "no", Extensions: map[string]any{"code": "FORBIDDEN"}}, time.Time{}, 4403},
		{"not looked at", &gqlerror.Error{Message: "later", Extensions: map[string]any{"code": "OVERLOADED"}}, time.Time{}, websocket.StatusTryAgainLater},
		{"expired before", nil, time.Now().Add(-time.Hour), 4403},
		{"expires soon", nil, time.Now().Add(100 * time.Millisecond), 4403},
	} {
		b := hollow(t, graph.Config{Login: func(ctx context.Context, _ *http.Request, _ map[string]any) (context.Context, time.Time, error) {
			return ctx, c.expires, c.err
		}})
		s := b.dial()
		s.send(begin)
		equal(t, c.name, s.closed(), c.code)
	}
}

// An id is free for the client as soon as it can see the end of its operation, and what it is used for next can be
// stopped like any other.
func TestIDsAreUsedAgainAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	s := b.connect()
	for range 50 {
		s.subscribe("1", `{ __typename }`, nil)
		equal(t, "answer", s.next("1", "__typename"), any("Query"))
		equal(t, "end", s.receive("complete")["id"], any("1"))
		s.subscribe("1", `{ nothing }`, nil)
		equal(t, "refusal", s.failed("1")["code"], any("GRAPHQL_VALIDATION_FAILED"))
		s.subscribe("1", `subscription { events(after: "0") { position } }`, nil)
		s.object("1", "events")
		s.send(in{"type": "complete", "id": "1"})
	}
	s.send(in{"type": "complete", "id": "1"}) // once more, which is no mistake
	s.send(ping)
	s.receive("pong") // so that the operation has ended
	b.openCart()      // is told to nobody
	s.send(ping)
	s.receive("pong")
}

func TestIDsOfOpenOperationsAreTaken(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	for _, document := range []string{`{ __typename }`, `subscription { events { position } }`, openCart} {
		s := b.connect()
		s.subscribe("1", `subscription { events(after: "0") { position } }`, nil)
		s.object("1", "events")
		s.subscribe("2", `{ __typename }`, nil) // another id is not
		s.next("2", "__typename")
		s.receive("complete")
		s.subscribe("1", document, nil)
		equal(t, document, s.closed(), websocket.StatusCode(4409))
	}
}

func TestMutationsWorkOverSockets(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	s := b.connect()
	s.subscribe("m", openCart, nil)
	receipt := s.object("m", "openCart")["receipt"].(map[string]any)
	equal(t, "version", receipt["version"], any(1.0))
	equal(t, "end", s.receive("complete")["id"], any("m"))
	s.subscribe("big", `query($x: String) { __typename }`, in{"x": strings.Repeat("x", 300<<10)})
	equal(t, "too many variables", s.failed("big")["code"], any("REQUEST_TOO_LARGE"))
}

// A peer that reads but answers no ping is told why it is closed. One that does not even read has its place taken.
func TestDeadPeersAreFoundAndClosed(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{KeepAlive: 50 * time.Millisecond, StreamWriteTimeout: time.Second, MaxStreams: 1})
	protocols := []string{"graphql-transport-ws"}
	s := b.dialWith(websocket.DialOptions{Subprotocols: protocols, OnPingReceived: func(context.Context, []byte) bool { return false }})
	equal(t, "who does not answer", s.closed(), websocket.StatusCode(4480))
	b.free() // does not read from here on
	b.free()
}

// free opens a WebSocket as soon as there is a place for it.
func (b *bundle) free() *socket {
	b.t.Helper()
	options := websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, response, err := websocket.Dial(b.t.Context(), b.url+"/graphql", &options)
		if err == nil {
			b.t.Cleanup(func() { _ = conn.CloseNow() })
			return &socket{t: b.t, ctx: b.t.Context(), conn: conn}
		}
		if response == nil {
			b.t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != http.StatusServiceUnavailable {
			b.t.Fatal(err)
		}
	}
	b.t.Fatal("no place becomes free")
	return nil
}

// Peers that answer pings are left alone however long they say nothing.
func TestQuietPeersAreKept(t *testing.T) {
	t.Parallel()
	pings := make(chan struct{}, 100)
	s := hollow(t, graph.Config{KeepAlive: 20 * time.Millisecond}).dialWith(websocket.DialOptions{
		Subprotocols: []string{"graphql-transport-ws"},
		OnPingReceived: func(context.Context, []byte) bool {
			select {
			case pings <- struct{}{}:
			default: // nobody counts any more
			}
			return true
		},
	})
	s.send(begin)
	s.receive("connection_ack")
	answered := make(chan string)
	go func() { answered <- fmt.Sprint(s.read()["type"]) }()
	for range 5 {
		select {
		case <-pings:
		case <-s.ctx.Done():
			t.Fatal("no ping comes")
		}
	}
	s.send(ping)
	equal(t, "after five pings", <-answered, "pong")
}

// Operations over all transports are admitted, or told when to come again.
func TestOperationsAreAdmitted(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{Admit: func(context.Context, *http.Request) (time.Duration, error) {
		return 1500 * time.Millisecond, errors.New("too many operations")
	}})
	for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
		a := b.post(`{ __typename }`, nil, "Accept", accept)
		equal(t, accept, a.status, http.StatusTooManyRequests)
		equal(t, "code", a.code(), any("RATE_LIMITED"))
		equal(t, "when", a.header.Get("Retry-After"), "2")
		equal(t, "when exactly", a.Errors[0].Extensions["retryAfterMs"], any(1500.0))
		equal(t, "text", a.Errors[0].Message, "too many operations")
	}
	s := b.connect()
	s.subscribe("1", `{ __typename }`, nil)
	equal(t, "code", s.failed("1")["code"], any("RATE_LIMITED"))
}
