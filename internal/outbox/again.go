package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// request is what an operator asked for.
type request struct{ stream, action, by, reason string }

// attend does a part of what operators asked for: one page of the queue of one stream, so that the others flow meanwhile.
// False means that nobody asked for anything. The owner of the lease alone does it, between two batches of the log:
// when the last event of a queue is handled, the next one of its stream is one that comes as any other does.
func (t *tenure) attend(ctx context.Context) (busy bool, err error) {
	if len(t.parked) == 0 {
		return false, nil
	}
	if len(t.requests) == 0 {
		now := time.Now()
		if now.Before(t.askAt) {
			return false, nil
		}
		t.askAt = now.Add(t.c.cfg.RequestPoll)
		if err := t.readRequests(ctx); err != nil || len(t.requests) == 0 {
			return false, err
		}
	}
	done, err := t.serve(ctx, &t.requests[0])
	if done && err == nil {
		t.requests = t.requests[1:]
	}
	return true, err
}

func (t *tenure) readRequests(ctx context.Context) error {
	rows, err := t.c.pool.Query(ctx, sqlParkedRequests, t.lease.name, t.lease.shard)
	if err == nil {
		t.requests, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r request, err error) {
			err = row.Scan(&r.stream, &r.action, &r.by, &r.reason)
			return r, err
		})
	}
	if err != nil {
		return fmt.Errorf("reading what was asked for parked streams of %s: %w", t.lease.name, err)
	}
	return nil
}

// serve does a page of what was asked for. Done says that there is no more to do.
func (t *tenure) serve(ctx context.Context, r *request) (done bool, err error) {
	p, parked := t.parked[r.stream]
	if !parked || t.seen < p.position { // the checkpoint is not there yet
		return true, nil
	}
	if r.action == actionSkip {
		if err := t.skipFirst(ctx, *r, p); err != nil {
			return false, err
		}
		r.action = actionRetry
		_, parked = t.parked[r.stream]
		return !parked, nil
	}
	events, next, err := t.queue(ctx, r.stream, p.position-1, t.c.cfg.Batch)
	if err != nil {
		return false, err
	}
	if t.c.sub.React != nil {
		return t.reactAgain(ctx, r.stream, events, next)
	}
	return t.applyAgain(ctx, r.stream, events, next)
}

// queue reads events of a stream that wait, and the one after them.
func (t *tenure) queue(ctx context.Context, stream string, after int64, size int) (events []eventstore.Event, next *eventstore.Event, err error) {
	q := eventstore.LogQuery{After: after, Until: t.seen, Stream: stream, Types: t.c.sub.Types, Limit: size + 1}
	page, err := t.c.store.ReadLog(ctx, q)
	if err != nil {
		return nil, nil, fmt.Errorf("reading what waits of %s: %w", stream, err)
	}
	if len(page.Events) > size {
		return page.Events[:size], &page.Events[size], nil
	}
	return page.Events, nil, nil
}

// waitFrom is the ending with which a stream waits from a later event on, or not any more.
func (t *tenure) waitFrom(stream string, next *eventstore.Event) *ending {
	e := t.end(t.seen, t.seenID)
	e.stream, e.next = stream, next
	e.queue = func(b *pgx.Batch) {
		if next == nil {
			b.Queue(sqlUnpark, t.lease.name, t.lease.shard, stream)
		} else {
			b.Queue(sqlParkedMove, t.lease.name, t.lease.shard, stream, next.Position, next.ID, next.Type)
		}
	}
	return e
}

// skipFirst passes over the first event that waits.
func (t *tenure) skipFirst(ctx context.Context, r request, p parkedStream) error {
	events, _, err := t.queue(ctx, r.stream, p.position, 1)
	if err != nil {
		return err
	}
	var next *eventstore.Event
	if len(events) > 0 {
		next = &events[0]
	}
	e := t.waitFrom(r.stream, next)
	wait, first := e.queue, eventstore.Event{Position: p.position, ID: p.eventID, Stream: r.stream, Type: p.kind}
	e.queue = func(b *pgx.Batch) {
		t.skip(b, first, r.reason, r.by)
		wait(b)
	}
	return t.settle(ctx, e)
}

// applyAgain hands waiting events to Apply: all in one transaction, or when that fails those before the one at fault. Done
// says that the stream does not wait any more, or waits again.
func (t *tenure) applyAgain(ctx context.Context, stream string, events []eventstore.Event, next *eventstore.Event) (done bool, err error) {
	if len(events) == 0 {
		return true, t.settle(ctx, t.waitFrom(stream, nil))
	}
	err = t.commit(ctx, events, t.waitFrom(stream, next))
	cause, poison := blamed(err)
	if !poison {
		return next == nil, err
	}
	if len(events) == 1 {
		return true, t.park(ctx, events[0], cause, t.end(t.seen, t.seenID))
	}
	half := len(events) / 2
	if held, err := t.applyAgain(ctx, stream, events[:half], &events[half]); held || err != nil {
		return held, err
	}
	return t.applyAgain(ctx, stream, events[half:], next)
}

// reactAgain hands waiting events to React, one by one.
func (t *tenure) reactAgain(ctx context.Context, stream string, events []eventstore.Event, next *eventstore.Event) (done bool, err error) {
	if len(events) == 0 {
		return true, t.settle(ctx, t.waitFrom(stream, nil))
	}
	for i, event := range events {
		after := next
		if i+1 < len(events) {
			after = &events[i+1]
		}
		err := t.fencedReact(ctx, event)
		if cause, poison := blamed(err); poison {
			return true, t.park(ctx, event, cause, t.end(t.seen, t.seenID))
		}
		if err == nil {
			err = t.settle(ctx, t.waitFrom(stream, after))
		}
		if err != nil {
			return false, err
		}
	}
	return next == nil, nil
}
