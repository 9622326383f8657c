package queries

import (
	"context"
	"errors"
	"iter"

	"github.com/headrace/headrace/internal/eventstore"
)

// changesAtOnce bounds the events that one Changes merges, and with it the keys.
const changesAtOnce = 1024

// Changes says which keys of a view may differ from before, and that the view shows it.
type Changes struct {
	Keys   []string // each once, in the order of their first change
	Events []int64  // the positions of the events that changed them, ascending
	// Position is how far this reaches: the view includes the log up to here, and every key that an event up to here
	// changed has been told. Going on after it misses nothing.
	Position int64
}

// Changes yields which keys of a view changed after a position, for as long as the context lasts: each time those that
// changed since, each once. A subscriber is a position in the log here too: one who is slow finds more keys merged the
// next time, up to a bound, and nothing is gathered for it meanwhile. A view that the feed was not made for is an
// *UnknownProjectionError, a position beyond the head of the log a *eventstore.BeyondHeadError, also later, when the
// log was restored to before it. A projection that stands still is a pause, and so is a database that cannot be reached.
func (f *Feed) Changes(ctx context.Context, projection string, after int64) (iter.Seq2[Changes, error], error) {
	v, known := f.views[projection]
	if !known {
		return nil, &UnknownProjectionError{Projection: projection}
	}
	from, err := f.tail.start(ctx, &after)
	if err != nil {
		return nil, err
	}
	return func(yield func(Changes, error) bool) {
		f.tail.join()
		defer f.tail.leave()
		follower := &follower{tail: f.tail, filter: EventFilter{Types: v.projection.Types}, position: from}
		for {
			events, err := follower.gather(ctx)
			if err != nil {
				yield(Changes{}, err)
				return
			}
			if len(events) == 0 || !f.included(ctx, projection, events[len(events)-1].Position) {
				return
			}
			if !yield(v.projection.changes(events), nil) {
				return
			}
		}
	}, nil
}

// gather returns the events that follow, at least one, and those that are there behind them. None without an error means
// that the context ended.
func (f *follower) gather(ctx context.Context) ([]eventstore.Event, error) {
	events, err := f.next(ctx)
	if len(events) == 0 {
		return nil, err
	}
	for len(events) < changesAtOnce {
		more, scannedTo, live := f.tail.newer(f.position, f.filter)
		if !live || len(more) == 0 {
			break
		}
		events, f.position = append(events, more...), scannedTo
	}
	return events, nil
}

// included returns when the view includes the log up to a position. False means that the context ended.
func (f *Feed) included(ctx context.Context, projection string, position int64) bool {
	for {
		err := f.progress.wait(ctx, projection, position, false)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return false
		}
		rest(ctx, feedRetry)
	}
}

func (p Projection) changes(events []eventstore.Event) Changes {
	c := Changes{Events: make([]int64, len(events)), Position: events[len(events)-1].Position}
	told := make(map[string]struct{}, len(events))
	for i := range events {
		c.Events[i] = events[i].Position
		key := p.Key(events[i])
		if _, again := told[key]; !again {
			told[key] = struct{}{}
			c.Keys = append(c.Keys, key)
		}
	}
	return c
}
