package queries

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
)

// feedRetry is how long a feed leaves a projection alone that is halted or cannot be looked up.
const feedRetry = time.Second

// Change says that what is watched may differ from before, and that the view shows it.
type Change struct {
	Projection string
	Key        string
	Position   int64 // the view includes the log up to here
	Epoch      int32 // of the log in which it does
}

// Feed tells subscribers that a key of a view changed: the process's tail of the log says which key, the projection's
// checkpoint says when. It is told which views there are, and works wherever those are projected. It is safe for
// concurrent use.
type Feed struct {
	store    *eventstore.Store
	tail     *Tail
	progress *Progress
	views    map[string]*watched

	mu       sync.Mutex
	watchers int
	wanted   chan struct{} // holds a value when the first watcher came
	idle     func()        // ends the session when the last watcher goes; nil outside of one
	seen     int64         // events up to here have been told to those who watched
	epoch    int32         // of the log, as the session sees it

	calm map[string]calm // by checkpoint; see LastChange

	touches map[*touched]struct{} // of those who follow changes
}

// watched is one view of a feed.
type watched struct {
	projection Projection
	keys       map[string]map[*watcher]struct{} // the empty key: all
	pending    map[*watcher]struct{}            // told of an event that the view may not include yet
	work       chan struct{}                    // holds a value when pending grew
}

type watcher struct {
	key    string
	oldest int64 // of the events not delivered, while pending
	newest int64
	out    chan Change
}

// NewFeed returns a feed over views; Run does its work.
func NewFeed(store *eventstore.Store, tail *Tail, progress *Progress, views ...Projection) *Feed {
	f := &Feed{store: store, tail: tail, progress: progress, views: map[string]*watched{}, wanted: make(chan struct{}, 1), calm: map[string]calm{}, touches: map[*touched]struct{}{}}
	for _, p := range views {
		f.views[p.Name] = &watched{
			projection: p, keys: map[string]map[*watcher]struct{}{},
			pending: map[*watcher]struct{}{}, work: make(chan struct{}, 1),
		}
	}
	progress.mu.Lock()
	defer progress.mu.Unlock()
	progress.onParked = append(progress.onParked, f.touch)
	return f
}

// touch tells that rows of a view changed without an event: their streams were parked, or what waited is handled.
func (f *Feed) touch(projection string, keys []string) {
	v, known := f.views[projection]
	if !known {
		return
	}
	at := f.progress.position(projection)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle != nil { // else the session that begins tells everybody
		for _, key := range append(slices.Clip(keys), "") {
			for w := range v.keys[key] {
				v.mark(w, at)
			}
		}
	}
	for t := range f.touches {
		if t.projection == projection {
			t.add(keys)
		}
	}
}

// Watch returns a channel that tells of changes of a view's key, or of all its keys when key is empty, from now on. The
// first change comes in any case, as soon as the view includes what was in the log when Watch was called; whoever reads the
// row after Watch and again after each change misses nothing. Changes that are not taken in time are merged into the
// newest, so that a slow subscriber slows nobody. The channel is closed when the context ends. A view that the feed was
// not made for is an *UnknownProjectionError.
func (f *Feed) Watch(ctx context.Context, projection, key string) (<-chan Change, error) {
	v, known := f.views[projection]
	if !known {
		return nil, &UnknownProjectionError{Projection: projection}
	}
	w := &watcher{key: key, out: make(chan Change, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.keys[key] == nil {
		v.keys[key] = map[*watcher]struct{}{}
	}
	v.keys[key][w] = struct{}{}
	f.watchers++
	if f.idle != nil {
		v.mark(w, f.seen)
	} else if f.watchers == 1 {
		signal(f.wanted)
	}
	context.AfterFunc(ctx, func() { f.remove(v, w) })
	return w.out, nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (f *Feed) remove(v *watched, w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(w.out)
	delete(v.pending, w)
	delete(v.keys[w.key], w)
	if len(v.keys[w.key]) == 0 {
		delete(v.keys, w.key)
	}
	f.watchers--
	if f.watchers == 0 && f.idle != nil {
		f.idle()
	}
}

// mark notes an event for a watcher. The caller holds the lock.
func (v *watched) mark(w *watcher, position int64) {
	if _, pending := v.pending[w]; !pending {
		v.pending[w], w.oldest = struct{}{}, position
	}
	w.newest = max(w.newest, position)
	signal(v.work)
}

// Run tells the watchers until the context ends, and then returns nil. While nobody watches it does nothing.
func (f *Feed) Run(ctx context.Context) error {
	var heeding sync.WaitGroup
	defer heeding.Wait()
	heeding.Go(func() { f.heed(ctx) })
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wanted:
		}
		for ctx.Err() == nil {
			err := f.session(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			f.tail.cfg.Logger.WarnContext(ctx, "the feed of changes cannot read the log and tries again", "error", err)
			rest(ctx, feedRetry)
		}
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// session works while somebody watches. An error says that the log could not be read.
func (f *Feed) session(parent context.Context) error {
	ctx, stop := context.WithCancel(parent)
	var delivering sync.WaitGroup
	defer delivering.Wait()
	defer stop()
	epoch, raised := f.store.Epoch()
	head, err := f.store.Head(ctx)
	if err != nil {
		return fmt.Errorf("begin to feed: %w", err)
	}
	// In another history nobody knows what was told: the next session tells everybody anew.
	delivering.Go(func() {
		select {
		case <-raised:
			stop()
		case <-ctx.Done():
		}
	})
	var types []string
	for _, v := range f.views {
		types = append(types, v.projection.Types...)
	}
	if !f.begin(head.Position, epoch, stop) {
		return nil
	}
	defer f.end()
	for _, v := range f.views {
		delivering.Go(func() { f.deliver(ctx, v) })
	}
	from := beginning{spot: spot{head.Position, head.EventID}, rewinds: -1} // the tail may not know yet what the head says
	for e, err := range f.tail.events(ctx, from, EventFilter{Types: types}) {
		if err != nil {
			return err
		}
		f.tell(e.Event)
	}
	return nil
}

// begin opens a session at a position. What the log holds up to there was told to nobody, so that all are told now. What
// they wait for from a session before may be lost, and come never. False means that nobody watches any more.
func (f *Feed) begin(position int64, epoch int32, idle func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == 0 {
		return false
	}
	f.idle, f.seen, f.epoch = idle, position, epoch
	for _, v := range f.views {
		for _, ws := range v.keys {
			for w := range ws {
				v.mark(w, position)
				w.oldest, w.newest = position, position
			}
		}
	}
	return true
}

// end closes a session. Who began to watch while it ended is served by the next.
func (f *Feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = nil
	if f.watchers > 0 {
		signal(f.wanted)
	}
}

// tell marks the watchers of what an event changes.
func (f *Feed) tell(e eventstore.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.views {
		if len(v.keys) == 0 || !v.projection.Takes(e.Type) {
			continue
		}
		for w := range v.keys[v.projection.Key(e)] {
			v.mark(w, e.Position)
		}
		for w := range v.keys[""] {
			v.mark(w, e.Position)
		}
	}
	f.seen = e.Position
}

// deliver waits for the view to include what watchers were marked for, and tells them.
func (f *Feed) deliver(ctx context.Context, v *watched) {
	for ctx.Err() == nil {
		oldest, any := f.oldest(v)
		if !any {
			select {
			case <-ctx.Done():
			case <-v.work:
			}
			continue
		}
		if err := f.progress.wait(ctx, v.projection.Name, oldest, false, nil); err != nil {
			if !errors.Is(err, context.Canceled) {
				rest(ctx, feedRetry)
			}
			continue
		}
		f.send(v, max(oldest, f.progress.position(v.projection.Name)))
	}
}

func (f *Feed) oldest(v *watched) (oldest int64, any bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range v.pending {
		if !any || w.oldest < oldest {
			oldest, any = w.oldest, true
		}
	}
	return oldest, any
}

// send tells those whose oldest event is included. One with a newer event stays marked for that; it is not made to wait for
// the newest, which might never come to rest.
func (f *Feed) send(v *watched, reached int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range v.pending {
		if w.oldest > reached {
			continue
		}
		select {
		case <-w.out: // not taken: the new one replaces it
		default:
		}
		w.out <- Change{Projection: v.projection.Name, Key: w.key, Position: reached, Epoch: f.epoch}
		if w.newest <= reached {
			delete(v.pending, w)
		} else {
			w.oldest = w.newest
		}
	}
}
