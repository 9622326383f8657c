package queries_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
)

// lose puts back what the database held, as a failover does, and has the store notice.
func (b *bundle) lose(t testing.TB, back func()) {
	t.Helper()
	before, _ := b.store.Epoch()
	back()
	require.NoError(t, b.store.Review(deadline(t)))
	now, _ := b.store.Epoch()
	require.Greater(t, now, before)
}

// until waits for what a test cannot be told of.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for ctx := deadline(t); !so(); time.Sleep(time.Millisecond) {
		require.NoError(t, ctx.Err(), what)
	}
}

// show has the view include the log.
func (l *live) show(t testing.TB) eventstore.Token {
	t.Helper()
	at := l.project(t, l.bundle.tally)
	l.progress.Advance(l.bundle.tally.Checkpoint(), at)
	return at
}

// Those who watch other rows than those whose events were lost are told of what comes, though the log is shorter than what
// somebody was told of before.
func TestWatchersGoOnAfterEventsWereLost(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.append(t, "tally-b", counted{By: 1})
	kept := l.show(t)
	back := pgtest.Remember(t, l.pool)
	lost, err := l.feed.Watch(deadline(t), "tally", "tally-a")
	require.NoError(t, err)
	other, err := l.feed.Watch(deadline(t), "tally", "tally-b")
	require.NoError(t, err)
	l.append(t, "tally-a", counted{By: 1}, counted{By: 1}, counted{By: 1})
	seen := l.show(t)
	for next(t, lost).Position < seen.Position {
	}
	late, err := l.feed.Watch(deadline(t), "tally", "tally-c") // waits for no more than what is there
	require.NoError(t, err)

	l.lose(t, back)
	l.append(t, "tally-b", counted{By: 1})
	again := l.show(t)
	require.Equal(t, kept.Position+1, again.Position)
	require.Less(t, again.Position, seen.Position)
	for _, changes := range []<-chan queries.Change{lost, other, late} { // each is told, to look at what it has
		for c := next(t, changes); c.Epoch != again.Epoch; c = next(t, changes) {
		}
	}
	for range 2 { // and no more waits for what is lost
		l.append(t, "tally-b", counted{By: 1})
		for at := l.show(t); next(t, other).Position < at.Position; {
		}
	}
}

// following runs a sequence of changes until it ends.
func following(t testing.TB, l *live, after eventstore.Token) (<-chan queries.Changes, <-chan error) {
	t.Helper()
	changes, err := l.feed.Changes(deadline(t), "tally", after)
	require.NoError(t, err)
	out, ended := make(chan queries.Changes, 100), make(chan error, 1)
	go func() {
		var last error
		for c, err := range changes {
			if last = err; err == nil {
				out <- c
			}
		}
		ended <- last
	}()
	return out, ended
}

func one[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-deadline(t).Done():
		require.Fail(t, "nothing came")
	}
	return v
}

// Who follows a view and waits for it to include what is then lost goes on with what the log has instead. Who was told of
// what is lost hears so at once. Both are asked before to look at what they have read.
func TestChangesGoOnAfterEventsWereLost(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.append(t, "tally-a", counted{By: 1})
	kept := l.show(t)
	back := pgtest.Remember(t, l.pool)
	waits, _ := following(t, l, kept)
	seen := l.append(t, "tally-a", counted{By: 1}, counted{By: 1}, counted{By: 1})
	until(t, "the view to be waited for", func() bool { return l.progress.Waiting("tally") > 0 })
	ahead, ended := following(t, l, seen)

	l.lose(t, back)
	look := queries.Changes{Position: kept.Position, Epoch: kept.Epoch}
	require.Equal(t, look, one(t, waits))
	require.Equal(t, queries.Changes{Position: seen.Position, Epoch: kept.Epoch}, one(t, ahead))
	require.True(t, isDiverged(one(t, ended)))
	l.append(t, "tally-c", counted{By: 1})
	again := l.show(t)
	require.Less(t, again.Position, seen.Position)
	require.Equal(t, queries.Changes{
		Keys: []string{"tally-c"}, Events: []int64{again.Position}, Position: again.Position, Epoch: again.Epoch,
	}, one(t, waits))

	// Where the log is as long again, the event still says which history it is of.
	l.append(t, "tally-c", counted{By: 1}, counted{By: 1}, counted{By: 1})
	l.show(t)
	_, err := l.feed.Changes(deadline(t), "tally", seen)
	if err == nil {
		_, ended := following(t, l, seen)
		err = one(t, ended)
	}
	require.True(t, isDiverged(err), err)
}

func isDiverged(err error) bool {
	return errors.As(err, new(*eventstore.DivergedError))
}

// A tail that had nobody to read for tells whoever comes of the log as it is, and not of what was lost meanwhile. Who began
// before that hears so, though the log is shorter now.
func TestAnIdleTailKeepsNothingOfWhatIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tail := queries.NewTail(b.store, queries.TailConfig{PollMax: 20 * time.Millisecond})
	background(t, tail.Run)
	b.append(t, "tally-a", counted{By: 1}, counted{By: 1})
	back := pgtest.Remember(t, b.pool)
	events, err := tail.Events(deadline(t), ptr(int64(0)), queries.EventFilter{})
	require.NoError(t, err)
	for e, err := range events {
		require.NoError(t, err)
		if e.Position == 2 {
			until(t, "the tail to read", func() bool { return !tail.Idle() })
			b.append(t, "tally-a", counted{By: 1}, counted{By: 1}, counted{By: 1})
		}
		if e.Position == 5 {
			break
		}
	}
	early, err := tail.Events(deadline(t), nil, queries.EventFilter{})
	require.NoError(t, err)
	until(t, "the tail to have nobody", tail.Idle)

	b.lose(t, back)
	b.append(t, "tally-b", counted{By: 1}, counted{By: 1})
	page, err := b.store.ReadLog(t.Context(), eventstore.LogQuery{After: 2})
	require.NoError(t, err)
	for i, e := range take(t, tail, ptr(int64(2)), queries.EventFilter{}, len(page.Events)) {
		require.Equal(t, page.Events[i], e)
	}
	until(t, "the tail to have nobody again", tail.Idle)
	var end error
	for _, end = range early {
		break
	}
	require.True(t, isDiverged(end), end)
}

// Events of a page that was read before the epoch of the log was raised say so, whenever they are taken: the mark of one
// that is lost is refused.
func TestEventsSayUnderWhichEpochTheyWereRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tail := queries.NewTail(b.store, queries.TailConfig{})
	background(t, tail.Run)
	kept := b.append(t, "tally-a", counted{By: 1})
	back := pgtest.Remember(t, b.pool)
	b.append(t, "tally-a", counted{By: 1}, counted{By: 1})
	events, err := tail.Events(deadline(t), ptr(int64(0)), queries.EventFilter{})
	require.NoError(t, err)
	var end error
	for e, err := range events {
		if end = err; err != nil {
			break
		}
		if e.Position == kept.Position {
			b.lose(t, back)
			b.append(t, "tally-b", counted{By: 1}, counted{By: 1}, counted{By: 1})
		}
		require.Equal(t, eventstore.Mark{Position: e.Position, Epoch: kept.Epoch, Log: b.store.Mark(0).Log}, e.Mark)
		err := b.store.CheckMark(t.Context(), e.Mark)
		require.Equal(t, e.Position > kept.Position, isDiverged(err), "%d: %v", e.Position, err)
	}
	require.True(t, isDiverged(end), end)
	for _, e := range take(t, tail, ptr(int64(0)), queries.EventFilter{}, 4) {
		require.Contains(t, []string{"tally-a", "tally-b"}, e.Stream)
	}
	again, err := tail.Events(deadline(t), ptr(kept.Position), queries.EventFilter{})
	require.NoError(t, err)
	for e, err := range again {
		require.NoError(t, err)
		require.NoError(t, b.store.CheckMark(t.Context(), e.Mark))
		require.Greater(t, e.Mark.Epoch, kept.Epoch)
		break
	}
}

// A row that was read for a change of before the epoch was raised does not answer for a position that the log comes to
// again.
func TestReadingsAreOfOneEpoch(t *testing.T) {
	t.Parallel()
	epoch := int32(1)
	s, x := queries.NewSharing(queries.SharingConfig{Epoch: func() int32 { return epoch }}), &table{}
	read := func(position int64, seen int32) int {
		rows, err := queries.Shared(t.Context(), s, "tally", []string{"a"}, position, seen, x.read)
		require.NoError(t, err)
		return rows[0].Count
	}
	require.Equal(t, 1, read(100, 1))
	epoch = 2
	require.Equal(t, 2, read(100, 1), "it is as it is now")
	require.Equal(t, 2, read(100, 1))
	require.Equal(t, 3, read(96, 2), "the view has come there since")
	require.Equal(t, 3, read(100, 1))
}
