package queries

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

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
// changed since, each once. A key whose stream is parked, or not any more, has changed too. A subscriber is a position in
// the log here too: one who is slow finds more keys merged the next time, up to a bound, and nothing is gathered for it
// meanwhile. A view that the feed was not made for is an *UnknownProjectionError, a position beyond the head of the log a
// *eventstore.BeyondHeadError, and later, when the log was restored to before what was yielded, a
// *eventstore.DivergedError. A projection that stands still is a pause, and so is a database that cannot be reached.
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
		touched := &touched{projection: projection}
		f.follow(touched, true)
		defer f.follow(touched, false)
		follower, reached := f.tail.follow(EventFilter{Types: v.projection.Types}, from), from.position
		waiting := touched.wait(ctx)
		for {
			events, err := follower.gather(waiting)
			if err != nil {
				yield(Changes{}, err)
				return
			}
			if ctx.Err() != nil {
				return
			}
			keys := touched.take()
			if waiting.Err() != nil {
				waiting = touched.wait(ctx)
			}
			if len(events) == 0 && len(keys) == 0 {
				continue
			}
			if len(events) > 0 && !f.included(ctx, projection, events[len(events)-1].Position) {
				return
			}
			c := v.projection.changes(events, keys, reached)
			if reached = c.Position; !yield(c, nil) {
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
		more, scannedTo, live := f.tail.newer(f)
		if !live {
			f.rewinds = -1 // so that it looks there next
			break
		}
		if len(more) == 0 {
			break
		}
		events = append(events, more...)
		f.moveTo(scannedTo, more)
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

func (p Projection) changes(events []eventstore.Event, keys []string, reached int64) Changes {
	c := Changes{Events: make([]int64, len(events)), Keys: keys, Position: reached}
	if n := len(events); n > 0 {
		c.Position = events[n-1].Position
	}
	told := make(map[string]struct{}, len(events)+len(keys))
	for _, key := range keys {
		told[key] = struct{}{}
	}
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

// touched are keys that changed without an event, for one who follows changes.
type touched struct {
	projection string

	mu   sync.Mutex
	keys map[string]struct{}
	stop context.CancelFunc // ends the wait for events
}

func (t *touched) add(keys []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys = make(map[string]struct{}, len(keys))
	}
	for _, key := range keys {
		t.keys[key] = struct{}{}
	}
	t.stop()
}

// take returns the keys since the last call.
func (t *touched) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := slices.Sorted(maps.Keys(t.keys))
	t.keys = nil
	return keys
}

// wait makes a context that ends when there are keys.
func (t *touched) wait(ctx context.Context) context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stop != nil {
		t.stop()
	}
	ctx, t.stop = context.WithCancel(ctx)
	if len(t.keys) > 0 {
		t.stop()
	}
	return ctx
}

// follow adds and removes one who follows.
func (f *Feed) follow(t *touched, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on {
		t.stop = func() {}
		f.touches[t] = struct{}{}
		return
	}
	delete(f.touches, t)
	t.stop()
}
