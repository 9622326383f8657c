package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// ParkedStream is a stream whose events wait, as its owner sees it.
type ParkedStream struct {
	Stream   string
	Position int64     // of the first event that waits
	Since    time.Time // when the stream was parked
}

// ParkedStreams is what Subscription.Parked is told.
type ParkedStreams struct {
	Changes int64 // how often it changed so far; goes up with each change
	Moved   int64 // the position of the checkpoint when it last changed
	Streams []ParkedStream
}

// parking is what an owner knows of the parked streams of its checkpoint, as of its last transaction.
type parking struct {
	parked   map[string]parkedStream
	changes  int64
	moved    int64
	askAt    time.Time // when to look for requests again
	requests []request
}

type parkedStream struct {
	position int64
	eventID  uuid.UUID
	kind     string // the event's type
	since    time.Time
}

const (
	actionRetry = "retry"
	actionSkip  = "skip"
)

// loadParked reads which streams are parked, after which the tenure knows it from what it does itself.
func (t *tenure) loadParked(ctx context.Context) error {
	t.parked, t.requests, t.askAt = map[string]parkedStream{}, nil, time.Time{}
	rows, err := t.c.pool.Query(ctx, sqlParkedStreams, t.lease.name, t.lease.shard)
	if err != nil {
		return fmt.Errorf("reading the parked streams of %s: %w", t.lease.name, err)
	}
	var stream string
	var p parkedStream
	_, err = pgx.ForEachRow(rows, []any{&stream, &p.position, &p.eventID, &p.kind, &p.since}, func() error {
		t.parked[stream] = p
		return nil
	})
	if err == nil {
		err = t.c.pool.QueryRow(ctx, sqlParkedChanges, t.lease.name, t.lease.shard).Scan(&t.changes, &t.moved)
	}
	if err != nil {
		return fmt.Errorf("reading the parked streams of %s: %w", t.lease.name, err)
	}
	t.tellParked()
	return nil
}

// tellParked tells the subscription which streams are parked, before it is told of the checkpoint that this goes with.
func (t *tenure) tellParked() {
	t.c.update(func(s *Status) { s.Parked = len(t.parked) })
	if t.c.sub.Parked == nil {
		return
	}
	told := ParkedStreams{Changes: t.changes, Moved: t.moved, Streams: make([]ParkedStream, 0, len(t.parked))}
	for _, stream := range slices.Sorted(maps.Keys(t.parked)) {
		p := t.parked[stream]
		told.Streams = append(told.Streams, ParkedStream{Stream: stream, Position: p.position, Since: p.since})
	}
	t.c.sub.Parked(told)
}

// flowing leaves out the events that wait.
func (t *tenure) flowing(events []eventstore.Event) []eventstore.Event {
	waits := func(e eventstore.Event) bool {
		p, parked := t.parked[e.Stream]
		return parked && e.Position >= p.position
	}
	if len(t.parked) == 0 || !slices.ContainsFunc(events, waits) {
		return events
	}
	return slices.DeleteFunc(slices.Clone(events), waits)
}

// ending is how a transaction of the owner ends: with the move of the checkpoint and, seldom, a change of one parked stream.
type ending struct {
	to     eventstore.Token
	queue  func(b *pgx.Batch) // statements before the move, none of which answers with rows; nil: none
	stream string             // whose parking changes; empty: none does
	next   *eventstore.Event  // where it waits from then on; nil: it does not wait any more

	queued         int
	changes, moved int64
	since          *time.Time
}

// end begins an ending with the checkpoint at a position, whose event's id may be unknown.
func (t *tenure) end(position int64, id uuid.UUID) *ending {
	to := t.at
	to.Position, to.EventID = position, id
	return &ending{to: to}
}

func (e *ending) add(t *tenure, b *pgx.Batch) {
	before := b.Len()
	if e.queue != nil {
		e.queue(b)
	}
	e.queued = b.Len() - before
	t.lease.queueAdvance(b, t.at, e.to)
	if e.stream != "" {
		b.Queue(sqlCountParked, t.lease.name, t.lease.shard, e.stream)
	}
}

func (e *ending) read(results pgx.BatchResults) (err error) {
	for range e.queued {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	if e.to.EventID, err = scanAdvance(results); err == nil && e.stream != "" {
		err = results.QueryRow().Scan(&e.changes, &e.moved, &e.since)
	}
	return err
}

// done takes over what was committed.
func (e *ending) done(t *tenure) {
	t.seen, t.seenID = e.to.Position, e.to.EventID
	if e.stream != "" {
		t.changes, t.moved = e.changes, e.moved
		if e.next == nil || e.since == nil {
			delete(t.parked, e.stream)
		} else {
			t.parked[e.stream] = parkedStream{position: e.next.Position, eventID: e.next.ID, kind: e.next.Type, since: *e.since}
		}
		t.tellParked()
	}
	t.committed(e.to)
}

// settle is a transaction that has nothing but an ending, in one round trip.
func (t *tenure) settle(ctx context.Context, e *ending) error {
	var b pgx.Batch
	b.Queue(sqlAsync)
	e.add(t, &b)
	sent := time.Since(t.lease.start)
	results := t.c.pool.SendBatch(ctx, &b)
	_, err := results.Exec()
	if err == nil {
		err = e.read(results)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("moving checkpoint %s to %d: %w", t.lease.name, e.to.Position, err)
	}
	t.lease.renewed.Store(int64(sent))
	e.done(t)
	return nil
}

// park records that a stream waits from an event on, for the first time or again.
func (t *tenure) park(ctx context.Context, event eventstore.Event, cause error, e *ending) error {
	t.c.cfg.Logger.Error("a stream is parked", "name", t.c.sub.Name, "stream", event.Stream, "position", event.Position,
		"type", event.Type, "error", cause)
	types := t.c.sub.Types
	if types == nil {
		types = []string{}
	}
	e.stream, e.next = event.Stream, &event
	e.queue = func(b *pgx.Batch) {
		b.Queue(sqlPark, t.lease.name, t.lease.shard, event.Stream, event.Position, event.ID, event.Type, types,
			eventstore.Reason(cause.Error()))
	}
	return t.settle(ctx, e)
}

// skip records that an event is passed over for good.
func (t *tenure) skip(b *pgx.Batch, event eventstore.Event, reason, by string) {
	t.c.cfg.Logger.Error("an event is skipped", "name", t.c.sub.Name, "stream", event.Stream, "position", event.Position,
		"type", event.Type, "by", by, "reason", reason)
	b.Queue(sqlSkip, t.lease.name, event.Position, event.ID, event.Stream, event.Type, eventstore.Reason(reason), by)
}
