package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

const allEvents = `subscription { events(after: "0") { position } }`

// begins reports whether a subscription under this id is let in; nil says that it is refused.
func (s *socket) begins(id string) (letIn bool) {
	s.t.Helper()
	s.subscribe(id, allEvents, nil)
	for {
		message := s.read()
		if message == nil {
			s.t.Fatal("the socket was closed")
		}
		if message["id"] != id {
			continue
		}
		text := fmt.Sprint(message)
		if strings.Contains(text, "TOO_MANY_STREAMS") {
			return false
		}
		return message["type"] == "next"
	}
}

func TestSubscriptionsOfOneSubjectAreBoundedOverAllItsSockets(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxSubjectSubscriptions: 3})
	b.openCart()
	one, two, other := b.connectAs("ada"), b.connectAs("ada"), b.connectAs("eve")
	equal(t, "first", one.begins("1"), true)
	equal(t, "second", one.begins("2"), true)
	equal(t, "third, on another socket", two.begins("1"), true)
	equal(t, "fourth", two.begins("2"), false)
	equal(t, "fourth, on the first socket", one.begins("3"), false)
	equal(t, "another's", other.begins("1"), true)
	one.send(in{"type": "complete", "id": "1"})
	for n := 10; !two.begins(fmt.Sprint(n)); n++ { // the server ends it soon after that
		if n > 10_000 {
			t.Fatal("one that has ended counts for ever")
		}
	}
	must(t, one.conn.CloseNow())
	for n := 20_000; !two.begins(fmt.Sprint(n)); n++ {
		if n > 30_000 {
			t.Fatal("those of a closed socket count for ever")
		}
	}
	stranger := b.connect() // has no subject
	for n := range 5 {
		equal(t, "a stranger's", stranger.begins(fmt.Sprint(n)), true)
	}
}

func TestSubscriptionsOfTheProcessAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{MaxSubscriptions: 2})
	b.openCart()
	s := b.connect()
	equal(t, "first", s.begins("1"), true)
	stream := b.follow(allEvents)
	stream.expect("id: 1", "event: next")
	equal(t, "third", s.begins("2"), false)
	equal(t, "query", b.post(`{ __typename }`, nil).code(), nil)
	stream.close()
	for n := 10; !s.begins(fmt.Sprint(n)); n++ {
		if n > 10_000 {
			t.Fatal("one that was cut off counts for ever")
		}
	}
}
