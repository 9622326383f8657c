package graph_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
)

// eventStream is an open stream of server-sent events.
type eventStream struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
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

// lineAfterComments is the next line that is neither empty nor a sign of life.
func (s *eventStream) lineAfterComments() string {
	s.t.Helper()
	for {
		text, more := s.line()
		if !more {
			return "end"
		}
		if text != ":" {
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

func TestClientsThatStopReadingAreDropped(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxStreams: 2, KeepAlive: time.Hour, StreamWriteTimeout: 100 * time.Millisecond, MaxAliases: 500})
	b.each(200, func(int) string {
		return `openCart(input: {ownerId: "` + strings.Repeat("o", 100) + `", currency: "EUR"}) { userErrors { code } }`
	})
	var document strings.Builder // 200 events of some 80 KB each: more than the buffers between the two ends hold
	document.WriteString(`subscription { events(after: "0") {`)
	for i := range 450 {
		fmt.Fprintf(&document, " a%d: data", i)
	}
	document.WriteString("} }")
	stalled := b.follow(document.String())
	defer stalled.close()
	socket := b.connect()
	socket.subscribe("1", document.String(), nil)
	for _, what := range []string{"one is dropped", "both are dropped"} {
		for deadline := time.Now().Add(patience / 2); ; { // before the clients give up by themselves
			a := b.post(`{ event(position: 1) { type } }`, nil, "Accept", "text/event-stream")
			if a.status == http.StatusOK {
				break
			}
			equal(t, what, a.code(), any("TOO_MANY_STREAMS"))
			if time.Now().After(deadline) {
				t.Fatalf("not yet: %s", what)
			}
		}
		if what == "one is dropped" { // takes the free place, so that the next is the other's
			b.connect()
		}
	}
}
