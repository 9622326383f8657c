package eventstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// committers is how many connections a store appends with. The log's lock lets one commit at a time; a second one can
// travel and plan while the first commits.
const committers = 1

// The states of a request on its way.
const (
	waiting int32 = iota
	sent
	dropped // its caller gave up before it was sent
)

// pending is a request that waits for its answer.
type pending struct {
	*prepared
	state  atomic.Int32
	answer chan answer
}

type answer struct {
	receipt Receipt
	err     error
}

// maxPassedOver bounds the look for requests that can travel: when thousands wait for one stream, to look at all of them
// for each batch would take longer than the batch.
const maxPassedOver = 1000

// appender merges waiting requests into batches. There is no timer: while a batch is in flight the next one gathers.
type appender struct {
	store *Store

	mu      sync.Mutex
	wake    *sync.Cond
	queue   []*pending
	busy    map[string]struct{} // streams, claims and command ids of the batches in flight
	passed  map[string]struct{} // those of requests that were passed over in this take
	keys    []string
	closed  bool
	aborted bool
}

func newAppender(s *Store) *appender {
	a := &appender{store: s, busy: make(map[string]struct{}), passed: make(map[string]struct{})}
	a.wake = sync.NewCond(&a.mu)
	return a
}

// append queues the request and waits for its answer.
func (a *appender) append(ctx context.Context, p *prepared) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	waiter := &pending{prepared: p, answer: make(chan answer, 1)}
	if err := a.enqueue(waiter); err != nil {
		return Receipt{}, err
	}
	select {
	case got := <-waiter.answer:
		return got.receipt, got.err
	case <-ctx.Done():
	}
	if waiter.state.CompareAndSwap(waiting, dropped) {
		return Receipt{}, ctx.Err()
	}
	select {
	case got := <-waiter.answer:
		return got.receipt, got.err
	default:
		return Receipt{}, &UnknownOutcomeError{CommandID: p.request.CommandID.ID, Err: ctx.Err()}
	}
}

func (a *appender) enqueue(p *pending) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return ErrClosed
	}
	if len(a.queue) >= a.store.cfg.QueueRequests {
		return &OverloadedError{Queued: len(a.queue), RetryAfter: 100 * time.Millisecond}
	}
	a.queue = append(a.queue, p)
	if len(a.queue) == 1 {
		a.wake.Signal()
	}
	return nil
}

// take waits for requests and takes those that can travel together, first in first out. A request that touches a
// stream, claim or command id of one in flight, in the batch or passed over stays for a later batch. It returns nil when
// the appender is closed and nothing is left.
func (a *appender) take(batch []*pending) []*pending {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if a.aborted {
			a.refuseQueued()
			return nil
		}
		if batch = a.pick(batch[:0]); len(batch) > 0 {
			if len(a.queue) > 0 {
				a.wake.Signal()
			}
			return batch
		}
		if a.closed && len(a.queue) == 0 {
			a.wake.Broadcast()
			return nil
		}
		a.wake.Wait()
	}
}

func (a *appender) pick(batch []*pending) []*pending {
	clear(a.passed)
	events, bytes, passedOver := 0, 0, 0
	left := a.queue[:0]
	for i, p := range a.queue {
		if p.state.Load() == dropped {
			continue
		}
		full := len(batch) > 0 &&
			(events+len(p.events) > a.store.cfg.BatchEvents || bytes+p.bytes > a.store.cfg.BatchBytes)
		if full || (len(batch) > 0 && (p.alone() || batch[0].alone())) {
			left = append(left, a.queue[i:]...)
			break
		}
		if !a.claim(p) {
			left = append(left, p)
			if passedOver++; passedOver == maxPassedOver {
				left = append(left, a.queue[i+1:]...)
				break
			}
			continue
		}
		if !p.state.CompareAndSwap(waiting, sent) {
			a.release(p)
			continue
		}
		batch = append(batch, p)
		events, bytes = events+len(p.events), bytes+p.bytes
	}
	clear(a.queue[len(left):])
	a.queue = left
	return batch
}

// alone tells whether the request travels in a batch of its own: without events, its receipt names the head of the log,
// which another request's events would move.
func (p *prepared) alone() bool { return len(p.events) == 0 }

// claim marks what the request touches as busy, unless some of it is, and then as passed over, so that no later request
// overtakes it.
func (a *appender) claim(p *pending) bool {
	a.keys = p.touches(a.keys[:0])
	for _, key := range a.keys {
		_, busy := a.busy[key]
		_, passed := a.passed[key]
		if busy || passed {
			for _, key := range a.keys {
				a.passed[key] = struct{}{}
			}
			return false
		}
	}
	for _, key := range a.keys {
		a.busy[key] = struct{}{}
	}
	return true
}

func (a *appender) release(p *pending) {
	a.keys = p.touches(a.keys[:0])
	for _, key := range a.keys {
		delete(a.busy, key)
	}
}

// touches lists what a batch may hold only once. Names cannot hold a NUL, so the prefixes keep the kinds apart.
func (p *prepared) touches(keys []string) []string {
	for i := range p.parts {
		keys = append(keys, p.parts[i].stream)
	}
	for _, key := range p.claims {
		keys = append(keys, "\x00claim\x00"+key)
	}
	for _, key := range p.releases {
		keys = append(keys, "\x00claim\x00"+key)
	}
	if id := p.request.CommandID; id.ID != "" {
		keys = append(keys, "\x00command\x00"+id.Actor+"\x00"+id.ID)
	}
	return keys
}

// done lets go of what the batch touched.
func (a *appender) done(batch []*pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range batch {
		a.release(p)
	}
	if len(a.queue) > 0 {
		a.wake.Signal()
	}
}

func (a *appender) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.wake.Broadcast()
}

// abort refuses what waits at once: the batch in flight may take as long as Config.SendTimeout.
func (a *appender) abort() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.aborted = true
	a.refuseQueued()
	a.wake.Broadcast()
}

func (a *appender) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

func (a *appender) refuseQueued() {
	for _, p := range a.queue {
		if p.state.CompareAndSwap(waiting, sent) {
			p.answer <- answer{err: ErrClosed}
		}
	}
	a.queue = nil
}
