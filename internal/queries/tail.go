package queries

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// TailConfig tunes the live tail. The zero value works.
type TailConfig struct {
	Keep      int           // newest events kept in memory for all subscribers; 0 stands for 4096
	KeepBytes int           // bytes of their data at most; 0 stands for 16 MiB
	Page      int           // events read at once at most; 0 stands for 500
	PageBytes int           // of a page that a subscriber reads for itself, about; 0 stands for 128 KiB
	Readers   int           // subscribers who read the log for themselves at the same time; 0 stands for 4
	PollMin   time.Duration // how soon other processes' events are looked for after one came; 0 stands for 20 ms
	PollMax   time.Duration // how seldom when none come; 0 stands for 500 ms
	Logger    *slog.Logger  // nil stands for slog.Default()
}

func (c TailConfig) withDefaults() TailConfig {
	c.Keep = or(c.Keep, 4096)
	c.KeepBytes = or(c.KeepBytes, 16<<20)
	c.Page = or(c.Page, 500)
	c.PageBytes = or(c.PageBytes, 128<<10)
	c.Readers = or(c.Readers, 4)
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

// tailRetry is how soon a read of the log that failed is tried again.
const tailRetry = 500 * time.Millisecond

// Tail is a process's live reading of the log, shared by all its subscribers: one reader keeps the newest events in
// memory, and a subscriber is no more than a position. An event wakes those whom it concerns and nobody else. One who
// falls behind what is kept reads pages of the log on its own until it has caught up, in turn with others, so that a slow
// subscriber costs others nothing and misses nothing, and many who come at once leave connections to everybody else.
// While nobody subscribes nothing is read. It is safe for concurrent use.
type Tail struct {
	store *eventstore.Store
	cfg   TailConfig
	turns chan struct{} // holds a value for each subscriber who reads the log now

	mu          sync.RWMutex
	kept        []eventstore.Event // consecutive positions, ending at that of at
	before      uuid.UUID          // the event before those
	bytes       int                // of kept
	newest      spot               // the newest the reader has seen; position 0 before it began
	under       eventstore.Mark    // the epoch under which the log was last seen to hold newest; its position is 0
	rewinds     int                // how often the log turned out to have another history, or may have: it began anew
	advanced    chan struct{}      // closed when newest changes: wakes those who take every event
	byStream    parked             // who take one stream's events and have seen all there is
	byType      parked             // who take events of some types and have seen all there is
	subscribers int
	reading     bool          // Run reads and has settled on where
	wanted      chan struct{} // holds a value when the first subscriber came
}

// spot is an event by its position and id: of two histories of a log, one has another event there, or none. The id is
// zero where it is not known, and at position 0.
type spot struct {
	position int64
	id       uuid.UUID
}

// NewTail returns a tail of the store's log; Run does its reading.
func NewTail(store *eventstore.Store, cfg TailConfig) *Tail {
	cfg = cfg.withDefaults()
	return &Tail{
		store: store, cfg: cfg, turns: make(chan struct{}, cfg.Readers),
		advanced: make(chan struct{}), byStream: parked{}, byType: parked{}, wanted: make(chan struct{}, 1),
	}
}

// Subscribers is how many follow the log through this tail at the moment.
func (t *Tail) Subscribers() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.subscribers
}

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
		if eventstore.Diverged(err) {
			err = t.rewind(ctx)
		}
		switch {
		case err != nil && ctx.Err() != nil:
		case err != nil:
			t.cfg.Logger.WarnContext(ctx, "the live tail cannot read the log and tries again", "error", err)
			poll = min(t.cfg.PollMax, tailRetry)
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

// begin waits while there is nobody to read for. Then it goes on from the head: subscribers read what lies before on their
// own. False means to ask again.
func (t *Tail) begin(ctx context.Context) bool {
	idle, began := t.forget()
	if idle {
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
		t.wait(ctx, min(t.cfg.PollMax, tailRetry), true)
		return false
	}
	under := t.store.Mark(0)
	under.Epoch = head.Epoch
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept, t.bytes, t.before, t.under = nil, 0, head.EventID, under
	t.reading = true
	t.rewinds++ // who is here already may have seen another history
	t.moveTo(spot{head.Position, head.EventID})
	t.wakeAll()
	return true
}

// forget drops what is kept when nobody subscribes: the log may be restored to before it meanwhile, which only reading
// would show.
func (t *Tail) forget() (idle, reading bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if idle = t.subscribers == 0; idle && t.reading {
		t.kept, t.bytes, t.before, t.reading = nil, 0, uuid.Nil, false
		t.moveTo(spot{})
	}
	return idle, t.reading
}

// read takes one page and lets the subscribers know. It returns how many events there were.
func (t *Tail) read(ctx context.Context) (int, error) {
	from, under := t.at(), t.store.Mark(0)
	page, err := t.store.ReadLog(ctx, eventstore.LogQuery{After: from.position, Seen: from.id, Limit: t.cfg.Page})
	if err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.under = under
	if len(page.Events) == 0 {
		return 0, nil
	}
	t.kept = append(t.kept, page.Events...)
	for i := range page.Events {
		t.bytes += size(&page.Events[i])
	}
	drop := 0
	for len(t.kept)-drop > t.cfg.Keep || (t.bytes > t.cfg.KeepBytes && drop < len(t.kept)) {
		t.bytes -= size(&t.kept[drop])
		t.before = t.kept[drop].ID
		drop++
	}
	clear(t.kept[:drop]) // the array stays for a while, and what it points to must not
	t.kept = t.kept[drop:]
	t.moveTo(spotOf(&page.Events[len(page.Events)-1]))
	for i := range page.Events {
		t.wake(&page.Events[i], from)
		from = spotOf(&page.Events[i])
	}
	return len(page.Events), nil
}

func spotOf(e *eventstore.Event) spot { return spot{e.Position, e.ID} }

func size(e *eventstore.Event) int { return len(e.Data) + len(e.Metadata) }

// moveTo sets the newest event and wakes those who take every event. The caller holds the lock.
func (t *Tail) moveTo(newest spot) {
	t.newest = newest
	close(t.advanced)
	t.advanced = make(chan struct{})
}

func (t *Tail) at() spot {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.newest
}

// wait returns when this process has committed beyond the tail, when the log may have another history, or after the poll
// interval, for what others commit.
func (t *Tail) wait(ctx context.Context, poll time.Duration, onlyPoll bool) {
	head, next := t.store.Committed()
	if (head > t.at().position || !t.current()) && !onlyPoll {
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

// current tells whether the log was seen to hold what is kept since its epoch was raised last.
func (t *Tail) current() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.under == t.store.Mark(0)
}
