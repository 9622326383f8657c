package queries_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/queries"
)

type live struct {
	*bundle
	progress *queries.Progress
	tail     *queries.Tail
	feed     *queries.Feed
}

func setupLive(t *testing.T) *live {
	l := &live{bundle: setup(t)}
	l.progress = l.bundle.progress()
	l.tail = queries.NewTail(l.store, queries.TailConfig{})
	l.feed = queries.NewFeed(l.store, l.tail, l.progress, l.bundle.tally)
	background(t, l.tail.Run)
	background(t, l.feed.Run)
	return l
}

func next(t testing.TB, changes <-chan queries.Change) queries.Change {
	t.Helper()
	select {
	case c, open := <-changes:
		require.True(t, open)
		return c
	case <-deadline(t).Done():
		require.Fail(t, "no change came")
		return queries.Change{}
	}
}

// Whoever reads the row when told sees every state's successor in the end, never an older one than told of.
func TestFeedTellsWhatTheViewIncludes(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.serve(t, l.progress, l.bundle.tally)
	const streams, each = 5, 30
	var all sync.WaitGroup
	for s := range streams {
		changes, err := l.feed.Watch(deadline(t), "tally", streamName(s))
		require.NoError(t, err)
		all.Go(func() {
			for range each {
				l.append(t, streamName(s), counted{By: 1})
			}
		})
		all.Go(func() {
			for {
				change := next(t, changes)
				row, err := queries.One[tally](t.Context(), l.reads, "read tally", sqlTally, streamName(s))
				require.NoError(t, err)
				if row == nil {
					continue
				}
				require.LessOrEqual(t, row.Count, each)
				l.notOlder(t, row, change)
				if row.Count == each {
					return
				}
			}
		})
	}
	all.Wait()
}

// notOlder requires that a row has all events of its stream up to a change.
func (l *live) notOlder(t *testing.T, row *tally, change queries.Change) {
	var n int64
	err := l.pool.QueryRow(t.Context(), `select count(*) from events where stream = $1 and position <= $2`, row.ID, change.Position).Scan(&n)
	require.NoError(t, err)
	require.GreaterOrEqual(t, row.Version, n)
}

// Nobody is told before the view includes the change, and then the changes not taken are one.
func TestFeedWaitsForTheViewAndMerges(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	changes, err := l.feed.Watch(deadline(t), "tally", "tally-a")
	require.NoError(t, err)
	whole, err := l.feed.Watch(deadline(t), "tally", "")
	require.NoError(t, err)
	require.EqualValues(t, 0, next(t, changes).Position, "the first comes in any case")
	require.EqualValues(t, 0, next(t, whole).Position)

	l.append(t, "tally-b", counted{By: 1})
	for range 5 {
		l.append(t, "tally-a", counted{By: 1})
	}
	require.Empty(t, changes, "the view includes nothing yet")
	at := l.project(t, l.bundle.tally)
	l.progress.Advance(l.bundle.tally.Checkpoint(), at)
	for got := int64(0); got < at.Position; {
		c := next(t, changes)
		require.Equal(t, "tally-a", c.Key)
		require.Greater(t, c.Position, got)
		got = c.Position
	}
	for next(t, whole).Position < at.Position {
	}
	require.Empty(t, changes)
}

// A watcher who takes nothing holds up nobody.
func TestFeedSlowWatcherSlowsNobody(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.serve(t, l.progress, l.bundle.tally)
	slow, err := l.feed.Watch(deadline(t), "tally", "tally-a")
	require.NoError(t, err)
	quick, err := l.feed.Watch(deadline(t), "tally", "tally-a")
	require.NoError(t, err)
	var last int64
	for range 20 {
		last = l.append(t, "tally-a", counted{By: 1}).Position
		for next(t, quick).Position < last {
		}
	}
	for next(t, slow).Position < last {
	}
}

func TestFeedEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.serve(t, l.progress, l.bundle.tally)
	for range 3 { // comes and goes: the feed starts and stops its reading
		ctx, cancel := context.WithCancel(t.Context())
		changes, err := l.feed.Watch(ctx, "tally", "tally-a")
		require.NoError(t, err)
		next(t, changes)
		at := l.append(t, "tally-a", counted{By: 1})
		for next(t, changes).Position < at.Position {
		}
		cancel()
		for range changes { // drained until closed
		}
	}
	var unknown *queries.UnknownProjectionError
	_, err := l.feed.Watch(t.Context(), "telly", "x")
	require.ErrorAs(t, err, &unknown)
}
