package graph_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
)

// largeEvents is a subscription whose every result has more than n times the event's data.
func largeEvents(n int) string {
	var document strings.Builder
	document.WriteString(`subscription($after: Position) { events(after: $after) { position`)
	for i := range n {
		fmt.Fprintf(&document, " a%d: data", i)
	}
	document.WriteString("} }")
	return document.String()
}

// bulk is how many events of largeEvents are more than the buffers between the two ends of a connection hold.
const bulk = 200

func (b *bundle) openLargeCarts() {
	b.t.Helper()
	b.each(bulk, func(int) string {
		return `openCart(input: {ownerId: "` + strings.Repeat("o", 100) + `", currency: "EUR"}) { userErrors { code } }`
	})
}

// slowConfig lets two subscriptions be open, so that a third tells when one of them has ended. Who reads is not slow, though
// the machine may stand still for a while.
func slowConfig() graph.Config {
	return graph.Config{MaxSubscriptions: 2, MaxAliases: 500, SlowAfter: 2 * time.Second, KeepAlive: time.Hour, StreamWriteTimeout: patience}
}

// othersGoOn reads everything by another subscription, and returns when there is place for a third.
func (b *bundle) othersGoOn() {
	b.t.Helper()
	other := b.connect()
	other.subscribe("other", `subscription { events(after: "0") { position } }`, nil)
	for position := 1; position <= bulk; position++ {
		equal(b.t, "the other's position", other.object("other", "events")["position"], any(strconv.Itoa(position)))
	}
	third := b.connect()
	for deadline := time.Now().Add(patience / 2); ; {
		third.subscribe("third", `subscription { events(after: "0") { position } }`, nil)
		if message := third.read(); message["type"] == "next" {
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatal("the slow one does not end")
		}
	}
	other.send(in{"type": "complete", "id": "other"})
	third.send(in{"type": "complete", "id": "third"})
}

// A client that does not read loses its subscription and nothing in between: what it was sent has no hole, the error says
// where that ends, and from there it goes on. Others are served meanwhile.
func TestSlowConsumersLearnWhereToGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t, slowConfig())
	b.openLargeCarts()
	s := b.connect()
	s.conn.SetReadLimit(1 << 20)
	s.subscribe("1", largeEvents(450), in{"after": "0"})
	b.othersGoOn()
	last := 0
	for message := s.read(); ; message = s.read() {
		if message["type"] == "error" {
			extensions := message["payload"].([]any)[0].(map[string]any)["extensions"].(map[string]any)
			equal(t, "code", extensions["code"], any("SLOW_CONSUMER"))
			equal(t, "last position", extensions["lastPosition"], any(strconv.Itoa(last)))
			break
		}
		last++
		equal(t, "position", positionIn(t, message, "events"), last)
	}
	if last == 0 || last >= bulk {
		t.Fatalf("it ended after %d of %d events", last, bulk)
	}
	s.subscribe("1", largeEvents(1), in{"after": strconv.Itoa(last)})
	for last++; last <= bulk; last++ {
		equal(t, "position after going on", s.object("1", "events")["position"], any(strconv.Itoa(last)))
	}
}

func TestSlowEventStreamsLearnWhereToGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t, slowConfig())
	b.openLargeCarts()
	s := b.follow(strings.Replace(strings.Replace(largeEvents(450), "($after: Position)", "", 1), "$after", `"0"`, 1))
	s.lines.Buffer(nil, 1<<20)
	b.othersGoOn()
	last := 0
	for line := s.lineAfterComments(); line != "event: next"; line = s.lineAfterComments() {
		last++
		equal(t, "id", line, "id: "+strconv.Itoa(last))
		s.expect("event: next")
		s.lineAfterComments()
	}
	if data := s.lineAfterComments(); !strings.Contains(data, `"code":"SLOW_CONSUMER"`) || !strings.Contains(data, fmt.Sprintf(`"lastPosition":"%d"`, last)) {
		t.Fatalf("after %d it ends with %s", last, data)
	}
	s.expect("event: complete", "data:", "end")
	if last == 0 || last >= bulk {
		t.Fatalf("it ended after %d of %d events", last, bulk)
	}
	again := b.followWith(`subscription { events(after: "0") { position } }`, "Last-Event-ID", strconv.Itoa(last))
	for last++; last <= bulk; last++ {
		again.expect("id: "+strconv.Itoa(last), "event: next", fmt.Sprintf(`data: {"data":{"events":{"position":"%d"}}}`, last))
	}
}

// Who reads nothing at all is dropped after the time for writing, over both kinds of streams.
func TestClientsThatStopReadingAreDropped(t *testing.T) {
	t.Parallel()
	cfg := slowConfig()
	cfg.MaxStreams, cfg.StreamWriteTimeout = 2, 2*time.Second
	b := setup(t, cfg)
	b.openLargeCarts()
	document := strings.Replace(strings.Replace(largeEvents(450), "($after: Position)", "", 1), "$after", `"0"`, 1)
	stalled := b.follow(document)
	defer stalled.close()
	socket := b.connect()
	socket.subscribe("1", document, nil)
	b.free() // takes the place of one of them, so that the next is the other's
	b.free()
	equal(t, "plain requests", b.post(`{ __typename }`, nil).status, http.StatusOK)
}
