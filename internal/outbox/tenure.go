package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// tenure is a consumer's work while it holds the lease. Only runs is shared with another goroutine.
//
// After any failure it goes back to the checkpoint as the database has it: there is one way to recover, and it is the
// same for a lost connection, an unknown outcome of a commit, and a broker that lied.
type tenure struct {
	c     *Consumer
	lease *lease
	runs  *runBuffer
	want  func(eventType string) bool // nil: all
	retry pace

	at     eventstore.Token // the checkpoint
	seen   int64            // everything up to here was applied or is of another type
	seenID uuid.UUID        // the event at seen; zero: not known
	rest   *portion         // what was read and did not fit the last batch

	behind   bool      // the log has more than was seen
	stale    bool      // the last page was read ahead of time
	probeAt  time.Time // when the head is to be looked at again
	askHead  time.Time // until then what the node has seen of it is enough
	moveAt   time.Time // when the checkpoint has to follow seen; zero: they are equal
	hurry    time.Time // until then it follows at once
	poll     pace      // between reads of the log, without a subscriber
	prefetch *prefetch
	away     time.Duration // how long Apply may leave its transaction alone

	parking
}

// askHeadEvery is after how many probes a consumer asks for the head by itself, and not its node: only so does it notice
// another history of the log that no event told of.
const askHeadEvery = 30

// askPatience is how long the broker may take to bring what somebody waits for, before the head is asked for.
const askPatience = 50 * time.Millisecond

// portion is a number of consecutive events of which those of other types were left out.
type portion struct {
	events []eventstore.Event
	to     int64     // the last position
	toID   uuid.UUID // the event there; zero: not known
}

// verify compares the checkpoint with the log, and starts from it.
func (t *tenure) verify(ctx context.Context, at eventstore.Token) error {
	if err := t.c.store.CheckToken(ctx, at); err != nil {
		return fmt.Errorf("checkpoint %s: %w", t.c.sub.Name, err)
	}
	head, err := t.c.store.Head(ctx)
	if err != nil {
		return err
	}
	if err := t.lease.stamp(ctx, &at, head); err != nil {
		return err
	}
	t.restart(at)
	if err := t.loadParked(ctx); err != nil {
		return err
	}
	t.committed(at)
	return nil
}

// restart forgets everything that is not in the checkpoint.
func (t *tenure) restart(at eventstore.Token) {
	t.at, t.seen, t.seenID = at, at.Position, at.EventID
	t.rest, t.prefetch, t.moveAt = nil, nil, time.Time{}
	t.behind = true
	t.poll = pace{least: 25 * time.Millisecond, most: t.c.cfg.Probe}
}

func (t *tenure) committed(at eventstore.Token) {
	t.at = at
	t.lease.at.Store(at.Position)
	if t.seen <= at.Position {
		t.moveAt = time.Time{}
	}
	t.c.update(func(s *Status) { s.Position, s.LastError = at.Position, "" })
	if t.c.sub.Committed != nil {
		t.c.sub.Committed(at)
	}
}

// work returns when ctx ends, the lease is lost, or an event cannot be handled.
func (t *tenure) work(ctx context.Context) error {
	for ctx.Err() == nil {
		err := t.step(ctx)
		if err == nil {
			t.retry.reset()
			continue
		}
		var poison *poisonError
		if ctx.Err() != nil || errors.As(err, &poison) || errors.Is(err, errLost) {
			return err
		}
		if errors.Is(err, errFenced) {
			t.runs.clear() // if the lease is still held, the broker said what the log does not
		}
		t.c.failing(ctx, err)
		if err := t.recover(ctx); err != nil {
			return err
		}
	}
	return nil
}

// recover waits a little and goes back to the checkpoint.
func (t *tenure) recover(ctx context.Context) error {
	for t.retry.sleep(ctx) {
		at, err := t.lease.reload(ctx)
		if err == nil {
			err = t.verify(ctx, at)
		}
		if err == nil || errors.Is(err, errLost) || eventstore.Diverged(err) {
			return err
		}
		t.c.failing(ctx, err)
	}
	return nil
}

// step does what operators asked for and one other thing: hand over a batch, move the checkpoint, or wait.
func (t *tenure) step(ctx context.Context) error {
	busy, err := t.attend(ctx)
	if err != nil || (busy && len(t.parked) >= t.c.cfg.ParkedMax) { // there must be room for the next one that is to be parked
		return err
	}
	_, next := t.c.store.Committed() // asked before the read, so that no commit falls between
	if epoch, _ := t.c.store.Epoch(); epoch > t.at.Epoch {
		return t.reverify(ctx)
	}
	batch, err := t.gather(ctx)
	if err != nil {
		return err
	}
	if batch.to > t.seen {
		return t.hand(ctx, batch)
	}
	if !t.moveAt.IsZero() && !time.Now().Before(t.moveAt) {
		return t.move(ctx, t.seen, t.seenID)
	}
	if busy {
		return nil
	}
	return t.wait(ctx, next)
}

// hand gives the batch's events to Apply or React and moves on to its end.
func (t *tenure) hand(ctx context.Context, batch portion) error {
	switch {
	case len(batch.events) == 0:
	case t.c.sub.Apply != nil:
		if err := t.apply(ctx, batch); err != nil {
			return err
		}
	default:
		for _, event := range batch.events {
			if err := t.react(ctx, event); err != nil {
				return err
			}
		}
	}
	t.c.update(func(s *Status) { s.Events += int64(len(batch.events)) })
	t.seen, t.seenID = batch.to, batch.toID
	if t.seen == t.at.Position {
		t.moveAt = time.Time{}
		return nil
	}
	select {
	case <-t.c.flush:
		t.hurryUp()
	default:
	}
	now := time.Now()
	if t.moveAt.IsZero() {
		t.moveAt = now.Add(t.c.cfg.MoveAfter)
	}
	if now.Before(t.hurry) || t.seen-t.at.Position >= t.c.cfg.MoveEvery {
		return t.move(ctx, t.seen, t.seenID)
	}
	return nil
}

// hurryUp is for somebody who waits. It lets the checkpoint follow at once for a while, since the event that is waited for may
// be yet to come, and has the head asked for in a moment, since the broker may have lost it.
func (t *tenure) hurryUp() {
	now := time.Now()
	t.hurry, t.askHead = now.Add(time.Second), now
	if !t.moveAt.IsZero() {
		t.moveAt = now
	}
	if soon := now.Add(min(askPatience, t.c.cfg.Probe)); soon.Before(t.probeAt) {
		t.probeAt = soon
	}
}

// move moves the checkpoint over events of other types.
func (t *tenure) move(ctx context.Context, position int64, id uuid.UUID) error {
	to := t.at
	to.Position, to.EventID = position, id
	at, err := t.lease.advance(ctx, t.at, to)
	if err != nil {
		return err
	}
	t.committed(at)
	return nil
}

// wait returns when there may be something to do.
func (t *tenure) wait(ctx context.Context, next <-chan struct{}) error {
	until := t.probeAt
	if !t.moveAt.IsZero() && t.moveAt.Before(until) {
		until = t.moveAt
	}
	if len(t.parked) > 0 && t.askAt.Before(until) {
		until = t.askAt
	}
	if t.c.subscriber != nil {
		next = nil // the relay brings it
	} else if at := time.Now().Add(t.poll.step()); at.Before(until) {
		until = at
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	_, raised := t.c.store.Epoch()
	select {
	case <-raised:
	case <-t.lease.back:
		return t.reverify(ctx)
	case <-t.runs.wake:
		t.behind = t.runs.takeMissed() || t.behind
	case <-next:
		t.behind = true
	case <-t.c.flush:
		t.hurryUp()
	case <-timer.C:
		return t.probe(ctx)
	case <-ctx.Done():
	}
	return nil
}

// reverify goes back to the checkpoint: the log has another history, and what was seen beyond the checkpoint may be no more; or
// the checkpoint itself was taken back.
func (t *tenure) reverify(ctx context.Context) error {
	at, err := t.lease.reload(ctx)
	if err != nil {
		return err
	}
	return t.verify(ctx, at)
}

// probe looks at the head of the log, when it is time: for events that no message announced, and for another history.
func (t *tenure) probe(ctx context.Context) error {
	now := time.Now()
	if now.Before(t.probeAt) {
		t.behind = t.behind || t.c.subscriber == nil
		return nil
	}
	if at, known := t.c.cfg.Node.knownHead(); known && now.Before(t.askHead) {
		t.probeAt = now.Add(t.c.cfg.Probe)
		t.behind = t.behind || at > t.seen
		return nil
	}
	head, err := t.c.store.Head(ctx)
	if err != nil {
		return err
	}
	t.probeAt, t.askHead = now.Add(t.c.cfg.Probe), now.Add(askHeadEvery*t.c.cfg.Probe)
	if head.LogID != t.at.LogID || head.Epoch != t.at.Epoch || head.Position < t.seen {
		return t.reverify(ctx)
	}
	t.behind = head.Position > t.seen
	return nil
}
