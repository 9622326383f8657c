package queries

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// ProgressConfig tunes waiting. The zero value works.
type ProgressConfig struct {
	MaxWaiters int           // waiting callers at once; more are refused; 0 stands for 10,000
	PollMin    time.Duration // how soon the checkpoint is looked up while somebody waits; 0 stands for 5 ms
	PollMax    time.Duration // how seldom, after looking in vain; 0 stands for 50 ms
	FollowPoll time.Duration // how often Follow looks whether another generation serves; 0 stands for 1 s
	Logger     *slog.Logger  // of failures of Follow; nil stands for slog.Default()
}

func (c ProgressConfig) withDefaults() ProgressConfig {
	c.MaxWaiters = or(c.MaxWaiters, 10_000)
	c.PollMin = or(c.PollMin, 5*time.Millisecond)
	c.PollMax = max(or(c.PollMax, 50*time.Millisecond), c.PollMin)
	c.FollowPoll = or(c.FollowPoll, time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// BehindError says that a projection had not come as far as wanted within the time given. It may yet.
type BehindError struct {
	Projection         string
	Position           int64 // how far it had come when last seen
	Wanted             int64
	Head               int64 // of the log when last seen
	MillisecondsBehind int64 // age of the oldest event it has not taken, when last seen; 0 when that is not known
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("projection %s is at position %d of %d, before %d", e.Projection, e.Position, e.Head, e.Wanted)
}

// HaltedError says that a projection stopped at an event and needs an operator, or that an operator paused it. Waiting
// longer is of no use.
type HaltedError struct {
	Projection string
	Shard      int   // of Shards, counted from 0
	Shards     int   // 0: it is not sharded
	Position   int64 // the last it has taken
	Reason     string
	Paused     bool // by an operator: nothing is broken
}

func (e *HaltedError) Error() string {
	if e.Shards > 1 {
		return fmt.Sprintf("projection %s is halted in shard %d of %d at position %d: %s", e.Projection, e.Shard, e.Shards, e.Position, e.Reason)
	}
	return fmt.Sprintf("projection %s is halted at position %d: %s", e.Projection, e.Position, e.Reason)
}

// WaitersError says that too many callers wait already.
type WaitersError struct {
	Projection string
	Waiting    int
}

func (e *WaitersError) Error() string {
	return fmt.Sprintf("%d callers wait for projections already", e.Waiting)
}

// UnknownProjectionError says that there is no view of this name.
type UnknownProjectionError struct{ Projection string }

func (e *UnknownProjectionError) Error() string {
	return fmt.Sprintf("there is no view %q", e.Projection)
}

// Progress knows how far the projections have come, and lets callers wait for them. A projection that runs in this
// process reports by Advance, and a wait that it already satisfies touches no database, when this process appended the event
// or has looked for it before. Those of other processes are looked up while somebody waits. It is safe for concurrent use.
type Progress struct {
	pool  *pgxpool.Pool
	store *eventstore.Store
	cfg   ProgressConfig

	mu      sync.Mutex
	views   map[string]*viewProgress
	reached map[string]reach      // by checkpoint
	flush   map[string][]*flusher // by checkpoint; for those that run here
	waiting int
	polling bool
	nudge   chan struct{} // makes the poller look soon

	next    *look // what callers of Freshness wait for and nobody looks up yet; nil: nobody waits
	looking bool

	switched chan struct{} // closed when a look finds that another generation serves

	parked    map[string]map[int]parkedShard           // by checkpoint and shard
	onParked  []func(projection string, keys []string) // of feeds: rows changed without an event
	parkedNow atomic.Int64                             // parked streams in all
	edition   atomic.Int64                             // goes up with each change of them
}

// flusher has a consumer commit at once.
type flusher struct{ flush func() }

// viewProgress is what is known of one stable name.
type viewProgress struct {
	checkpoint string // of the serving generation; empty: not known yet
	head       int64  // when last looked up
	behind     time.Duration
	waiters    []*waiter
}

type waiter struct {
	position int64
	done     chan error // holds one outcome
}

// NewProgress returns a Progress over the pool and store, neither of which it closes.
func NewProgress(pool *pgxpool.Pool, store *eventstore.Store, cfg ProgressConfig) *Progress {
	return &Progress{
		pool: pool, store: store, cfg: cfg.withDefaults(),
		views: map[string]*viewProgress{}, reached: map[string]reach{}, flush: map[string][]*flusher{},
		nudge: make(chan struct{}, 1), switched: make(chan struct{}), parked: map[string]map[int]parkedShard{},
	}
}

// OnWait has flush called whenever a caller begins to wait for the checkpoint, so that the consumer which runs it here
// commits at once instead of gathering more; each shard's consumer adds its own. It must not block. The returned function
// takes it back.
func (p *Progress) OnWait(checkpoint string, flush func()) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &flusher{flush}
	p.flush[checkpoint] = append(slices.Clip(p.flush[checkpoint]), f)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(p.flush[checkpoint]), func(other *flusher) bool { return other == f })
		if len(rest) == 0 {
			delete(p.flush, checkpoint)
		} else {
			p.flush[checkpoint] = rest
		}
	}
}

// Advance says that this process has committed a checkpoint that is not sharded. It does not block.
func (p *Progress) Advance(checkpoint string, at eventstore.Token) {
	p.AdvanceShard(checkpoint, 0, 1, at)
}

// AdvanceShard says that this process has committed one shard of a checkpoint, of as many as it has. The checkpoint has
// come as far as the least of them. It does not block.
func (p *Progress) AdvanceShard(checkpoint string, shard, shards int, at eventstore.Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.reached[checkpoint]
	if len(seen) != shards {
		seen = make(reach, shards)
		p.reached[checkpoint] = seen
	}
	seen[shard] = report{at: at, local: time.Now()}
	least := seen.least().Position
	for _, v := range p.views {
		if v.checkpoint == checkpoint {
			v.wake(least)
		}
	}
}

// wake answers those who wait for this position or an earlier one.
func (v *viewProgress) wake(position int64) {
	kept := v.waiters[:0]
	for _, w := range v.waiters {
		if w.position <= position {
			w.done <- nil
		} else {
			kept = append(kept, w)
		}
	}
	clear(v.waiters[len(kept):])
	v.waiters = kept
}

// fail answers those who wait for what lies beyond a position.
func (v *viewProgress) fail(beyond int64, err error) {
	kept := v.waiters[:0]
	for _, w := range v.waiters {
		if w.position > beyond {
			w.done <- err
		} else {
			kept = append(kept, w)
		}
	}
	clear(v.waiters[len(kept):])
	v.waiters = kept
}

// Wait returns nil when the serving generation of a view includes what the token stands for, at once if it does
// already. Of a sharded view it is all shards that must include it. A projection that is halted is a *HaltedError at once; one that has not come so far when the context's
// deadline passes, a *BehindError; too many waiting callers, a *WaitersError; an unknown name, an
// *UnknownProjectionError. A token of another log or another history is a *eventstore.DivergedError, one beyond the
// head a *eventstore.BeyondHeadError. A context that is cancelled otherwise is its error.
func (p *Progress) Wait(ctx context.Context, projection string, t eventstore.Token) error {
	if t.Position == 0 {
		return nil
	}
	epoch, _ := p.store.Epoch()
	included, trusted := p.judge(projection, t, epoch)
	if included {
		return nil
	}
	if !trusted {
		if err := p.check(ctx, projection, t); err != nil {
			return err
		}
	}
	err := p.wait(ctx, projection, t.Position, true, nil)
	if now, _ := p.store.Epoch(); err == nil && now != epoch {
		return p.check(ctx, projection, t) // it was waited for in another history
	}
	return err
}

// check asks the log for the token.
func (p *Progress) check(ctx context.Context, projection string, t eventstore.Token) error {
	err := p.store.CheckToken(ctx, t)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return p.behind(projection, t.Position)
	case err != nil:
		return fmt.Errorf("wait for %s: %w", projection, err)
	}
	return nil
}

// judge says from memory whether the view includes the token, and whether the token is known to be of this history. That
// takes its event, and not just its epoch: a log whose end was lost without a sign, and grew again, is in the same epoch.
func (p *Progress) judge(projection string, t eventstore.Token, epoch int32) (included, trusted bool) {
	if t.Epoch != epoch || !p.store.Knows(t) {
		return false, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v, known := p.views[projection]
	if !known {
		return false, true
	}
	seen := p.reached[v.checkpoint]
	return seen.within(t) && t.Position <= seen.least().Position, true
}

// errRaised says that the log has another history than a position that was waited for.
var errRaised = errors.New("the epoch of the log was raised")

// wait is Wait for a position that is known to be of this history. Counted waits are bounded and hurry the consumer. When
// raised is closed the error is errRaised.
func (p *Progress) wait(ctx context.Context, projection string, position int64, counted bool, raised <-chan struct{}) error {
	w, err := p.enlist(projection, position, counted)
	if err != nil || w == nil {
		return err
	}
	if counted {
		defer func() {
			p.mu.Lock()
			p.waiting--
			p.mu.Unlock()
		}()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	case <-raised:
	}
	p.dismiss(projection, w)
	select {
	case err := <-w.done: // answered while the context ended
		return err
	default:
	}
	switch err := ctx.Err(); {
	case err == nil:
		return errRaised
	case errors.Is(err, context.DeadlineExceeded):
		return p.behind(projection, position)
	default:
		return fmt.Errorf("wait for %s: %w", projection, err)
	}
}

// enlist adds a waiter, or returns nil when there is nothing to wait for.
func (p *Progress) enlist(projection string, position int64, counted bool) (*waiter, error) {
	p.mu.Lock()
	v := p.view(projection)
	if v.checkpoint != "" && p.seen(v.checkpoint).least().Position >= position {
		p.mu.Unlock()
		return nil, nil
	}
	if counted && p.waiting >= p.cfg.MaxWaiters {
		waiting := p.waiting
		p.mu.Unlock()
		return nil, &WaitersError{Projection: projection, Waiting: waiting}
	}
	w := &waiter{position: position, done: make(chan error, 1)}
	v.waiters = append(v.waiters, w)
	here := p.flush[v.checkpoint]
	switch {
	case p.polling:
		signal(p.nudge)
	case len(here) > 0: // its Advance is likely to come before a look would
		p.polling = true
		go p.poll(p.cfg.PollMin)
	default:
		p.polling = true
		go p.poll(0)
	}
	if counted {
		p.waiting++
	}
	p.mu.Unlock()
	if counted {
		for _, f := range here {
			f.flush()
		}
	}
	return w, nil
}

func (p *Progress) dismiss(projection string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.views[projection]
	for i, other := range v.waiters {
		if other == w {
			last := len(v.waiters) - 1
			v.waiters[i], v.waiters[last] = v.waiters[last], nil
			v.waiters = v.waiters[:last]
			return
		}
	}
}

// view returns what is known of a name. The caller holds the lock.
func (p *Progress) view(projection string) *viewProgress {
	v, known := p.views[projection]
	if !known {
		v = &viewProgress{}
		p.views[projection] = v
	}
	return v
}

func (p *Progress) behind(projection string, wanted int64) error {
	head, _ := p.store.Committed()
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.view(projection)
	at := p.reached[v.checkpoint].least().Position
	return &BehindError{
		Projection: projection, Position: at, Wanted: wanted, Head: max(head, v.head, wanted),
		MillisecondsBehind: v.behind.Milliseconds(),
	}
}

// position is how far the serving generation of a view has come, as far as known here.
func (p *Progress) position(projection string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen(p.view(projection).checkpoint).least().Position
}

// seen is what is known of a checkpoint in the log's history as it is. What was seen of a former one says nothing: the
// checkpoint may be further back now. The caller holds the lock.
func (p *Progress) seen(checkpoint string) reach {
	epoch, _ := p.store.Epoch()
	for _, r := range p.reached[checkpoint] {
		if r.at.Epoch < epoch {
			return nil
		}
	}
	return p.reached[checkpoint]
}
