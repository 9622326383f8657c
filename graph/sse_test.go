package graph_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
)

// eventStream is an open stream of server-sent events.
type eventStream struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
	id    string // of the last event
}

// follow begins a stream by GET, as a browser's EventSource does.
func (b *bundle) follow(document string) *eventStream {
	b.t.Helper()
	return b.followWith(document)
}

// followWith is follow with headers, which come as names and values in turn.
func (b *bundle) followWith(document string, headers ...string) *eventStream {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/graphql?query="+url.QueryEscape(document), http.NoBody)
	must(b.t, err)
	request.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	must(b.t, err)
	b.t.Cleanup(func() { _ = response.Body.Close() })
	equal(b.t, "status", response.StatusCode, http.StatusOK)
	equal(b.t, "media type", response.Header.Get("Content-Type"), "text/event-stream; charset=utf-8")
	return &eventStream{t: b.t, lines: bufio.NewScanner(response.Body), close: func() { _ = response.Body.Close() }}
}

// line is the next line that is not empty; false says that the stream has ended.
func (s *eventStream) line() (string, bool) {
	for s.lines.Scan() {
		if text := s.lines.Text(); text != "" {
			return text, true
		}
	}
	return "", false
}

// lineAfterComments is the next line that is neither empty nor a sign of life. Of an id, it is the position.
func (s *eventStream) lineAfterComments() string {
	s.t.Helper()
	for {
		text, more := s.line()
		switch {
		case !more:
			return "end"
		case strings.HasPrefix(text, "id: "):
			s.id = strings.TrimPrefix(text, "id: ")
			text, _, _ = strings.Cut(text, ".")
			return text
		case text != ":":
			return text
		}
	}
}

func (s *eventStream) expect(lines ...string) {
	s.t.Helper()
	for _, want := range lines {
		equal(s.t, "line", s.lineAfterComments(), want)
	}
}

func TestEventStreamsFollowTheirProtocol(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{KeepAlive: 20 * time.Millisecond})
	b.openCart()
	b.follow(`{ event(position: 1) { type } }`).
		expect("event: next", `data: {"data":{"event":{"type":"cart.opened"}}}`, "event: complete", "data:", "end")
	invalid := b.follow(`subscription { nothing }`)
	invalid.expect("event: next")
	if data := invalid.lineAfterComments(); !strings.HasPrefix(data, `data: {"errors":[`) || strings.Contains(data, `"data":`) {
		t.Fatalf("an invalid subscription is answered by %s", data)
	}
	invalid.expect("event: complete", "data:", "end")
	beyond := b.follow(`subscription { events(after: "9") { type } }`)
	beyond.expect("event: next")
	if data := beyond.lineAfterComments(); !strings.Contains(data, "POSITION_BEYOND_HEAD") {
		t.Fatalf("a position beyond the head is answered by %s", data)
	}
	beyond.expect("event: complete", "data:", "end")

	live := b.follow(`subscription { events(after: "0") { position } }`)
	live.expect("id: 1", "event: next", `data: {"data":{"events":{"position":"1"}}}`)
	for range 3 {
		text, _ := live.line()
		equal(t, "sign of life", text, ":")
	}
	b.openCart()
	live.expect("id: 2", "event: next", `data: {"data":{"events":{"position":"2"}}}`)

	// A drained stream ends without being complete, so that its client comes again and resumes.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, b.handler.Drain(ctx))
	live.expect("end")
	refused := b.post(`subscription { events { position } }`, nil, "Accept", "text/event-stream")
	equal(t, "status while draining", refused.status, http.StatusServiceUnavailable)
	equal(t, "code while draining", refused.code(), any("DRAINING"))
}

// Browsers come again by themselves, with the address that they began with and the id of what they have seen.
func TestEventStreamsGoOnAfterTheLastEvent(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	cart := b.openCart()
	b.openCart()
	b.settle()
	events := `subscription { events(after: "0") { position } }`
	b.follow(events).expect("id: 1", "event: next", `data: {"data":{"events":{"position":"1"}}}`, "id: 2")
	again := b.followWith(events, "Last-Event-ID", "1")
	again.expect("id: 2", "event: next", `data: {"data":{"events":{"position":"2"}}}`)
	changes := `subscription { cartChanged(id: "` + cart + `") { version } }`
	first := b.follow(changes)
	first.expect("id: 1", "event: next", `data: {"data":{"cartChanged":{"version":1}}}`)
	second := b.followWith(changes, "Last-Event-ID", "1") // is not told again what it has
	b.post(addItem, in{"cart": cart, "price": 1})
	for _, s := range []*eventStream{first, second} {
		s.expect("id: 3", "event: next", `data: {"data":{"cartChanged":{"version":2}}}`)
	}
	for id, code := range map[string]string{"x": "BAD_USER_INPUT", "9": "POSITION_BEYOND_HEAD"} {
		s := b.followWith(events, "Last-Event-ID", id)
		s.expect("event: next")
		if data := s.lineAfterComments(); !strings.Contains(data, code) {
			t.Errorf("after %s comes %s", id, data)
		}
		s.expect("event: complete", "data:", "end")
	}
}

// Of those who take both, queries are answered plainly and subscriptions by events.
func TestEventStreamsAreForSubscriptionsFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	const both = "application/graphql-response+json, application/json, text/event-stream, multipart/mixed"
	a := b.post(`{ __typename }`, nil, "Accept", both)
	equal(t, "query", a.header.Get("Content-Type"), "application/graphql-response+json; charset=utf-8")
	s := b.followWith(`subscription { events(after: "0") { position } }`, "Accept", both)
	s.expect("id: 1", "event: next", `data: {"data":{"events":{"position":"1"}}}`)
	preferred := b.followWith(`{ __typename }`, "Accept", "text/event-stream, */*;q=0.1")
	preferred.expect("event: next", `data: {"data":{"__typename":"Query"}}`, "event: complete", "data:", "end")
	anything := b.post(`subscription { events { position } }`, nil, "Accept", "*/*")
	equal(t, "anything", anything.code(), any("SUBSCRIPTION_NEEDS_STREAM"))
}

// A stream whose login expires is cut off without being complete, so that its client comes again and logs in.
func TestLoginsEndEventStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: func(ctx context.Context, r *http.Request, _ map[string]any) (context.Context, time.Time, error) {
		if r.Header.Get("Authorization") == "" {
			return nil, time.Time{}, errors.New("secret")
		}
		ctx, _, err := auth.Off(ctx, r, nil)
		return ctx, time.Now().Add(time.Second), err
	}})
	refused := b.post(`subscription { events { position } }`, nil, "Accept", "text/event-stream")
	equal(t, "status", refused.status, http.StatusUnauthorized)
	equal(t, "code", refused.code(), any("UNAUTHENTICATED"))
	s := b.followWith(`subscription { cartChanged(id: "cart-none") { version } }`, "Authorization", "yes")
	s.expect("end")
}

// A connection is of use again after a stream on it has ended: nothing of the stream's times stays with it.
func TestConnectionsOutliveEventStreams(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{StreamWriteTimeout: time.Second})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	ask := func(accept string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/graphql?query=%7B__typename%7D", http.NoBody)
		must(t, err)
		request.Header.Set("Accept", accept)
		response, err := client.Do(request)
		must(t, err)
		text, err := io.ReadAll(response.Body)
		must(t, err)
		must(t, response.Body.Close())
		equal(t, accept, strings.Contains(string(text), `{"data":{"__typename":"Query"}}`), true)
	}
	ask("text/event-stream")
	for deadline := time.Now().Add(1200 * time.Millisecond); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		ask("application/json") // until the time for writing to the stream is over
	}
}
