package queries_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// take reads a subscription until n events have come, and fails when they do not.
func take(t testing.TB, tail *queries.Tail, after *int64, f queries.EventFilter, n int) []eventstore.Event {
	t.Helper()
	ctx := deadline(t)
	events, err := tail.Events(ctx, after, f)
	require.NoError(t, err)
	got := make([]eventstore.Event, 0, n)
	for e, err := range events {
		require.NoError(t, err)
		if got = append(got, e.Event); len(got) == n {
			return got
		}
	}
	require.Failf(t, "the subscription ended", "%d of %d events", len(got), n)
	return nil
}

// Subscribers who begin anywhere, while events are being appended, each see every event after their beginning, once
// and in order; also with a memory so small that most is read from the log.
func TestTailHasNoHoleAndNoRepeat(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 8} {
		t.Run(fmt.Sprintf("keep %d", keep), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			tail := queries.NewTail(b.store, queries.TailConfig{Keep: keep, Page: 5})
			background(t, tail.Run)
			const writers, each = 4, 60
			b.append(t, "tally-0", counted{By: 1}, counted{By: 1})
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for i := range each {
						b.append(t, fmt.Sprintf("tally-%d", w), counted{By: i})
					}
				})
				all.Go(func() {
					after := int64(w)
					if w > 2 {
						after = 0
					}
					got := take(t, tail, &after, queries.EventFilter{}, writers*each+2-int(after))
					for i, e := range got {
						require.Equal(t, after+int64(i)+1, e.Position)
					}
				})
				all.Go(func() {
					from := int64(0)
					got := take(t, tail, &from, queries.EventFilter{Stream: fmt.Sprintf("tally-%d", w)}, each)
					for i, e := range got {
						require.Equal(t, int64(i)+1, e.Version)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestTailFromNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tail := queries.NewTail(b.store, queries.TailConfig{})
	background(t, tail.Run)
	b.append(t, "tally-a", counted{}, counted{})
	events, err := tail.Events(deadline(t), nil, queries.EventFilter{Types: []string{"tally.noted"}})
	require.NoError(t, err)
	b.append(t, "tally-a", counted{}, noted{Note: "first"})
	for e, err := range events {
		require.NoError(t, err)
		require.EqualValues(t, 4, e.Position)
		break
	}
	// Nobody subscribed for a while; the next finds what came meanwhile.
	b.append(t, "tally-a", counted{}, noted{Note: "second"})
	after := int64(4)
	got := take(t, tail, &after, queries.EventFilter{}, 2)
	require.EqualValues(t, 5, got[0].Position)
	require.EqualValues(t, 6, got[1].Position)
}

func TestTailBeyondTheHead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tail := queries.NewTail(b.store, queries.TailConfig{})
	at := b.append(t, "tally-a", counted{})
	_, err := tail.Events(t.Context(), ptr(at.Position+1), queries.EventFilter{})
	var beyond *eventstore.BeyondHeadError
	require.ErrorAs(t, err, &beyond)
	require.Equal(t, eventstore.BeyondHeadError{Position: 2, Head: 1}, *beyond)
}

// A subscriber who does not read holds up nobody, and finds everything when it reads again.
func TestTailSlowSubscriberSlowsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tail := queries.NewTail(b.store, queries.TailConfig{Keep: 4, Page: 3})
	background(t, tail.Run)
	const total = 50
	slow, proceed := make(chan int64, total), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		events, err := tail.Events(deadline(t), ptr(int64(0)), queries.EventFilter{})
		require.NoError(t, err)
		for e, err := range events {
			require.NoError(t, err)
			if slow <- e.Position; e.Position == total {
				return
			}
			<-proceed
		}
	})
	fast := make(chan []eventstore.Event, 1)
	all.Go(func() { fast <- take(t, tail, ptr(int64(0)), queries.EventFilter{}, total) })
	for range total {
		b.append(t, "tally-a", counted{By: 1})
	}
	require.Len(t, <-fast, total)
	close(proceed)
	all.Wait()
	for i := range int64(total) {
		require.Equal(t, i+1, <-slow)
	}
}

// Events that another process appends are found by looking.
func TestTailSeesOtherProcesses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, err := eventstore.Open(t.Context(), b.pool, b.registry, eventstore.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close(context.WithoutCancel(t.Context()))) }()
	tail := queries.NewTail(b.store, queries.TailConfig{})
	background(t, tail.Run)
	events, err := tail.Events(deadline(t), nil, queries.EventFilter{})
	require.NoError(t, err)
	_, err = other.Append(t.Context(), eventstore.Request{Stream: "tally-b", Events: []eventstore.Payload{counted{By: 9}}})
	require.NoError(t, err)
	for e, err := range events {
		require.NoError(t, err)
		require.Equal(t, "tally-b", e.Stream)
		break
	}
}
