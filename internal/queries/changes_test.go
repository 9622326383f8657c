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

// replica is a copy of a view that is kept by its changes alone.
type replica struct {
	rows     map[string]int64 // versions
	position int64
}

// keep follows the view until it was told up to a position.
func (r *replica) keep(t *testing.T, l *live, until int64) {
	if r.position >= until { // it got more at once
		return
	}
	changes, err := l.feed.Changes(deadline(t), "tally", eventstore.Token{Position: r.position})
	if err != nil {
		t.Error(err)
		return
	}
	for c, err := range changes {
		if err != nil || c.Position <= r.position || c.Events[len(c.Events)-1] != c.Position {
			t.Errorf("%+v after %d: %v", c, r.position, err)
			return
		}
		r.position = c.Position
		rows, err := queries.Many(t.Context(), l.reads, "tallies", sqlTalliesByID, c.Keys, func(row *tally) string { return row.ID })
		if err != nil {
			t.Error(err)
			return
		}
		for i, row := range rows {
			if row == nil {
				delete(r.rows, c.Keys[i])
			} else {
				r.rows[row.ID] = row.Version
			}
		}
		if r.position >= until {
			return
		}
	}
	t.Errorf("the changes ended at %d", r.position)
}

// Whoever follows a whole view, and goes on where it stopped, has the view in the end, whenever it began and stopped.
func TestChangesMissNothing(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	l.serve(t, l.progress, l.bundle.tally)
	const writers, each = 4, 100
	var writing, following sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				events := []eventstore.Payload{counted{By: 1}, unrelated{}}
				if i%10 == 9 {
					events = []eventstore.Payload{thrown{}}
				}
				l.append(t, fmt.Sprintf("tally-%d-%d", w, i%5), events...)
			}
		})
	}
	replicas := make([]*replica, 10)
	for i := range replicas {
		replicas[i] = &replica{rows: map[string]int64{}}
		following.Go(func() {
			for stop := int64(20 * (i + 1)); stop < writers*each; stop += int64(20 * (i + 1)) {
				replicas[i].keep(t, l, stop)
			}
		})
	}
	writing.Wait()
	following.Wait()
	end := l.append(t, "tally-end", counted{By: 1})
	for _, r := range replicas {
		r.keep(t, l, end.Position)
		rows := l.rows(t, "tally")
		require.Len(t, r.rows, len(rows))
		for id, row := range rows {
			require.Equal(t, row.Version, r.rows[id], id)
		}
	}
	require.Zero(t, l.tail.Subscribers())
}

// Nothing is told before the view includes it, and then each key once.
func TestChangesWaitForTheViewAndMerge(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	start := l.append(t, "tally-a", counted{By: 1})
	changes, err := l.feed.Changes(deadline(t), "tally", start)
	require.NoError(t, err)
	told := make(chan queries.Changes)
	go func() {
		defer close(told)
		for c := range changes {
			told <- c
		}
	}()
	for _, stream := range []string{"tally-b", "tally-a", "tally-b", "tally-c"} {
		l.append(t, stream, counted{By: 1}, noted{Note: "x"})
	}
	select {
	case c := <-told:
		require.Failf(t, "told before the view includes it", "%+v", c)
	default:
	}
	at := l.project(t, l.bundle.tally)
	l.progress.Advance(l.bundle.tally.Checkpoint(), at)
	times := map[string]int{}
	for reached := start.Position; reached < at.Position; {
		c := <-told
		once := map[string]bool{}
		for _, key := range c.Keys {
			require.False(t, once[key], "%s twice in %v", key, c.Keys)
			once[key] = true
			times[key]++
		}
		require.EqualValues(t, reached+1, c.Events[0])
		reached = c.Position
	}
	require.Positive(t, times["tally-a"])
	require.Positive(t, times["tally-b"])
	require.Positive(t, times["tally-c"])
}

func TestChangesOfWhatCannotBe(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	var unknown *queries.UnknownProjectionError
	_, err := l.feed.Changes(t.Context(), "telly", eventstore.Token{})
	require.ErrorAs(t, err, &unknown)
	var beyond *eventstore.BeyondHeadError
	_, err = l.feed.Changes(t.Context(), "tally", eventstore.Token{Position: 1})
	require.ErrorAs(t, err, &beyond)
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := l.feed.Changes(ctx, "tally", eventstore.Token{})
	require.NoError(t, err)
	cancel()
	for range changes {
		require.Fail(t, "the context has ended")
	}
}
