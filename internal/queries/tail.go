package queries

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
)

// TailConfig tunes the live tail. The zero value works.
type TailConfig struct {
	Keep      int           // newest events kept in memory for all subscribers; 0 stands for 4096
	KeepBytes int           // bytes of their data at most; 0 stands for 16 MiB
	Page      int           // events read at once; 0 stands for 500
	PollMin   time.Duration // how soon other processes' events are looked for after one came; 0 stands for 20 ms
	PollMax   time.Duration // how seldom when none come; 0 stands for 500 ms
	Logger    *slog.Logger  // nil stands for slog.Default()
}

func (c TailConfig) withDefaults() TailConfig {
	c.Keep = or(c.Keep, 4096)
	c.KeepBytes = or(c.KeepBytes, 16<<20)
	c.Page = or(c.Page, 500)
	c.PollMin = or(c.PollMin, 20*time.Millisecond)
	c.PollMax = max(or(c.PollMax, 500*time.Millisecond), c.PollMin)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Tail is a process's live reading of the log, shared by all its subscribers: one reader keeps the newest events in
// memory, and a subscriber is no more than a position. One who falls behind what is kept reads pages of the log on
// its own until it has caught up, so that a slow subscriber costs others nothing and misses nothing. While nobody
// subscribes nothing is read. It is safe for concurrent use.
type Tail struct {
	store *eventstore.Store
	cfg   TailConfig

	mu          sync.RWMutex
	kept        []eventstore.Event // consecutive positions, ending at position
	bytes       int                // of kept
	position    int64              // the newest the reader has seen; 0 before it began
	advanced    chan struct{}      // closed when position changes
	subscribers int
	reading     bool          // Run reads and has settled on where
	wanted      chan struct{} // holds a value when the first subscriber came
}

// NewTail returns a tail of the store's log; Run does its reading.
func NewTail(store *eventstore.Store, cfg TailConfig) *Tail {
	return &Tail{store: store, cfg: cfg.withDefaults(), advanced: make(chan struct{}), wanted: make(chan struct{}, 1)}
}

// EventFilter says which events a subscriber gets. The zero value stands for all.
type EventFilter struct {
	Stream string   // of this stream only
	Types  []string // of these types only
}

func (f EventFilter) takes(e *eventstore.Event) bool {
	return (f.Stream == "" || e.Stream == f.Stream) && (len(f.Types) == 0 || slices.Contains(f.Types, e.Type))
}

// Events yields the events after a position, first those that are there and then live ones, in the order of the log,
// each once. Nil stands for the head of the log at the time of the call: the starting point is fixed before Events
// returns. A position beyond the head is a *eventstore.BeyondHeadError. The sequence ends when the context ends, and
// with an error when the log cannot be read; it may be ranged over once. It needs Run to be running.
func (t *Tail) Events(ctx context.Context, after *int64, f EventFilter) (iter.Seq2[eventstore.Event, error], error) {
	head, err := t.store.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin to tail the log: %w", err)
	}
	from := head.Position
	if after != nil {
		if *after > head.Position {
			return nil, &eventstore.BeyondHeadError{Position: *after, Head: head.Position}
		}
		from = max(*after, 0)
	}
	return func(yield func(eventstore.Event, error) bool) {
		t.join()
		defer t.leave()
		t.follow(ctx, from, f, yield)
	}, nil
}

// follow alternates between what is kept and pages of the log. Each way moves the position over exactly the events
// that it offered to the filter, which is why there is neither hole nor repeat.
func (t *Tail) follow(ctx context.Context, position int64, f EventFilter, yield func(eventstore.Event, error) bool) {
	for ctx.Err() == nil {
		events, scannedTo, live, advanced := t.newer(position, f)
		if !live {
			page, err := t.store.ReadLog(ctx, eventstore.LogQuery{After: position, Stream: f.Stream, Types: f.Types, Limit: t.cfg.Page})
			if err != nil {
				if ctx.Err() == nil {
					yield(eventstore.Event{}, fmt.Errorf("read the log after %d: %w", position, err))
				}
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			position = max(position, page.ScannedTo)
			continue
		}
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
		if scannedTo > position {
			position = scannedTo
			continue
		}
		select {
		case <-ctx.Done():
		case <-advanced:
		}
	}
}

// newer returns some of the kept events after a position that pass the filter, and how far it looked: not beyond the
// position when the tail has not come further. Live is false when some are no longer kept; the log has them. The
// events are copies and few, so that a subscriber who is slow with them keeps no more than those in memory.
func (t *Tail) newer(position int64, f EventFilter) (events []eventstore.Event, scannedTo int64, live bool, advanced <-chan struct{}) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if position >= t.position {
		return nil, position, true, t.advanced
	}
	first := t.position - int64(len(t.kept)) + 1
	if position+1 < first {
		return nil, position, false, t.advanced
	}
	fresh := t.kept[position+1-first:]
	for i := range fresh[:min(len(fresh), lookAtOnce)] {
		if f.takes(&fresh[i]) {
			events = append(events, fresh[i])
		}
		if scannedTo = fresh[i].Position; len(events) == takeAtOnce {
			break
		}
	}
	return events, scannedTo, true, t.advanced
}

const (
	lookAtOnce = 512 // kept events that a subscriber passes over under the lock
	takeAtOnce = 64  // and takes along
)

func (t *Tail) join() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscribers++
	if t.subscribers == 1 {
		select {
		case t.wanted <- struct{}{}:
		default:
		}
	}
}

func (t *Tail) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscribers--
}

// Run reads the log for the subscribers until the context ends, and then returns nil. It goes on after errors of the
// database, which subscribers notice as a pause.
func (t *Tail) Run(ctx context.Context) error {
	poll := t.cfg.PollMin
	for ctx.Err() == nil {
		if !t.begin(ctx) {
			continue
		}
		n, err := t.read(ctx)
		switch {
		case err != nil:
			t.cfg.Logger.WarnContext(ctx, "the live tail cannot read the log and tries again", "error", err)
			poll = t.cfg.PollMax
		case n > 0:
			poll = t.cfg.PollMin
		default:
			poll = min(2*poll, t.cfg.PollMax)
		}
		if n < t.cfg.Page {
			t.wait(ctx, poll, err != nil)
		}
	}
	return nil
}

// begin waits while there is nobody to read for. Then, unless what is kept is near the head, it goes on from the head:
// subscribers read what lies between on their own. False means to ask again.
func (t *Tail) begin(ctx context.Context) bool {
	t.mu.Lock()
	idle, began := t.subscribers == 0, t.reading
	t.mu.Unlock()
	if idle {
		t.setReading(false)
		select {
		case <-ctx.Done():
		case <-t.wanted:
		}
		return false
	}
	if began {
		return true
	}
	head, err := t.store.Head(ctx)
	if err != nil {
		t.cfg.Logger.WarnContext(ctx, "the live tail cannot find the head of the log and tries again", "error", err)
		t.wait(ctx, t.cfg.PollMax, true)
		return false
	}
	t.mu.Lock()
	if head.Position-t.position > int64(t.cfg.Keep) || t.position == 0 {
		t.kept, t.bytes = nil, 0
		t.moveTo(head.Position)
	}
	t.mu.Unlock()
	t.setReading(true)
	return true
}

func (t *Tail) setReading(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading = on
}

// read takes one page and lets the subscribers know. It returns how many events there were.
func (t *Tail) read(ctx context.Context) (int, error) {
	page, err := t.store.ReadLog(ctx, eventstore.LogQuery{After: t.at(), Limit: t.cfg.Page})
	if err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	if len(page.Events) == 0 {
		return 0, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, page.Events...)
	for i := range page.Events {
		t.bytes += size(&page.Events[i])
	}
	drop := 0
	for len(t.kept)-drop > t.cfg.Keep || (t.bytes > t.cfg.KeepBytes && drop < len(t.kept)) {
		t.bytes -= size(&t.kept[drop])
		drop++
	}
	t.kept = t.kept[drop:]
	t.moveTo(page.Events[len(page.Events)-1].Position)
	return len(page.Events), nil
}

func size(e *eventstore.Event) int { return len(e.Data) + len(e.Metadata) }

// moveTo sets the position and wakes the subscribers. The caller holds the lock.
func (t *Tail) moveTo(position int64) {
	t.position = position
	close(t.advanced)
	t.advanced = make(chan struct{})
}

func (t *Tail) at() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.position
}

// wait returns when this process has committed beyond the tail, or after the poll interval, for what others commit.
func (t *Tail) wait(ctx context.Context, poll time.Duration, onlyPoll bool) {
	head, next := t.store.Committed()
	if head > t.at() && !onlyPoll {
		return
	}
	if onlyPoll {
		next = nil
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-next:
	case <-timer.C:
	}
}
