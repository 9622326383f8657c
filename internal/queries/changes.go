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
	Epoch    int32 // of the log in which all this holds
}

// Changes yields which keys of a view changed after an event of the log, for as long as the context lasts: each time those
// that changed since, each once. A key whose stream is parked, or not any more, has changed too. A subscriber is a place in
// the log here too: one who is slow finds more keys merged the next time, up to a bound, and nothing is gathered for it
// meanwhile. Of the token, the position is enough; the event and the epoch let it be told from another history.
//
// A view that the feed was not made for is an *UnknownProjectionError, a position beyond the head of the log a
// *eventstore.BeyondHeadError, and, now or later, when the log was restored to before what was yielded, or to before the
// token's event, a *eventstore.DivergedError. What a subscriber has read of the view itself may be later than that. So
// once the epoch of the log was raised, the next Changes have the epoch from before, and may name no key: they are for the
// subscriber to look whether the log still holds what it has. A projection that stands still is a pause, and so is a
// database that cannot be reached. It needs Run to be running.
func (f *Feed) Changes(ctx context.Context, projection string, after eventstore.Token) (iter.Seq2[Changes, error], error) {
	v, known := f.views[projection]
	if !known {
		return nil, &UnknownProjectionError{Projection: projection}
	}
	epoch := after.Epoch
	if epoch == 0 {
		epoch, _ = f.store.Epoch()
	}
	from, err := f.tail.startAfter(ctx, after)
	if err != nil {
		return nil, err
	}
	return func(yield func(Changes, error) bool) {
		f.tail.join()
		defer f.tail.leave()
		touched := &touched{projection: projection}
		f.follow(touched, true)
		defer f.follow(touched, false)
		c := changing{
			feed: f, view: v.projection, follower: f.tail.follow(EventFilter{Types: v.projection.Types}, from),
			touched: touched, reached: from.position, epoch: epoch,
		}
		c.waiting = touched.wait(ctx)
		for {
			changes, err := c.next(ctx)
			if err == nil && ctx.Err() != nil {
				return
			}
			if !yield(changes, err) || err != nil {
				return
			}
		}
	}, nil
}

// changing is one who follows the changes of a view.
type changing struct {
	feed     *Feed
	view     Projection
	follower *follower
	touched  *touched
	waiting  context.Context // ends when there are keys, or the epoch was raised
	reached  int64           // what was yielded reaches up to here
	epoch    int32           // under which
}

// next waits for changes. It returns none when the context has ended.
func (c *changing) next(ctx context.Context) (Changes, error) {
	for ctx.Err() == nil {
		epoch, raised := c.feed.store.Epoch()
		if epoch != c.epoch {
			before := Changes{Position: c.reached, Epoch: c.epoch}
			c.epoch = epoch
			return before, nil
		}
		before := *c.follower
		events, err := c.follower.gather(c.waiting)
		if err != nil {
			return Changes{}, err
		}
		keys := c.touched.take()
		if c.waiting.Err() != nil {
			c.waiting = c.touched.wait(ctx)
		}
		if len(events) > 0 && !c.feed.included(ctx, c.view.Name, events[len(events)-1].Position, raised) {
			c.follower.back(before) // to what the log has after that now
			events = nil
		}
		if len(events) > 0 || len(keys) > 0 {
			changes := c.view.changes(events, keys, c.reached)
			changes.Epoch, c.reached = epoch, changes.Position
			return changes, nil
		}
	}
	return Changes{}, nil
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

// included returns when the view includes the log up to a position. False means that the context ended, or that the epoch
// of the log was raised: the position may be lost, and the view come to it never.
func (f *Feed) included(ctx context.Context, projection string, position int64, raised <-chan struct{}) bool {
	for {
		err := f.progress.wait(ctx, projection, position, false, raised)
		select {
		case <-raised:
			return false
		default:
		}
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

// heed has those who follow changes look again whenever the epoch of the log was raised.
func (f *Feed) heed(ctx context.Context) {
	_, raised := f.store.Epoch()
	for {
		select {
		case <-ctx.Done():
			return
		case <-raised:
		}
		_, raised = f.store.Epoch()
		f.mu.Lock()
		for t := range f.touches {
			t.add(nil)
		}
		f.mu.Unlock()
	}
}
