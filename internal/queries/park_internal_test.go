package queries

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
)

// An event wakes those whom it concerns, and they go on right before it; nobody else is woken or stays behind in the index.
func TestEventWakesWhomItConcerns(t *testing.T) {
	t.Parallel()
	tail := NewTail(nil, TailConfig{})
	tail.newest = spot{position: 10}
	park := func(f EventFilter) *parking {
		w := tail.park(&follower{tail: tail, filter: f, at: spot{position: 10}})
		require.NotNil(t, w)
		return w
	}
	crowd := make([]*parking, 10_000)
	for i := range crowd {
		crowd[i] = park(EventFilter{Stream: fmt.Sprintf("s-%d", i/2)})
	}
	both := park(EventFilter{Stream: "s-7", Types: []string{"b"}})
	types := park(EventFilter{Types: []string{"a", "b", "c"}})
	require.Nil(t, tail.park(&follower{tail: tail, at: spot{position: 9}, filter: EventFilter{Stream: "s-7"}}), "the tail is further")

	tail.wake(&eventstore.Event{Position: 15, Stream: "s-7", Type: "a"}, spot{position: 14})
	for i, w := range crowd {
		require.Len(t, w.from, map[bool]int{true: 1}[i/2 == 7])
	}
	require.EqualValues(t, 14, (<-crowd[14].from).position)
	require.EqualValues(t, 14, (<-types.from).position)
	require.Empty(t, both.from, "of its stream, and not of its type")

	tail.wake(&eventstore.Event{Position: 16, Stream: "s-7", Type: "b"}, spot{position: 15})
	require.EqualValues(t, 15, (<-both.from).position)
	require.Empty(t, crowd[14].from, "woken once")
	require.Empty(t, tail.byType)
	require.NotContains(t, tail.byStream, "s-7")

	for _, w := range crowd[:14] {
		tail.unpark(w)
	}
	tail.wakeAll()
	require.Empty(t, crowd[0].from)
	require.EqualValues(t, 10, (<-crowd[16].from).position, "nothing was looked at")
	require.Empty(t, tail.byStream)
}

// Pages grow as long as more follows, and shrink to the bytes that they may have.
func TestPagesAdapt(t *testing.T) {
	t.Parallel()
	f := &follower{tail: NewTail(nil, TailConfig{Page: 200, PageBytes: 1000})}
	page := func(n, bytes int) int {
		events := make([]eventstore.Event, n)
		for i := range events {
			events[i].Data = make([]byte, bytes)
		}
		f.adapt(events)
		return f.limit()
	}
	require.Equal(t, firstPage, f.limit())
	require.Equal(t, 128, page(64, 1))
	require.Equal(t, 200, page(128, 2), "at most")
	require.Equal(t, 200, page(150, 2), "the end")
	require.Equal(t, 20, page(200, 50))
	require.Equal(t, 1, page(20, 50_000), "one at least")
	require.Equal(t, 2, page(1, 10))
}
