package queries

import (
	"context"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// A fill does with events that cannot be applied what the view says of failures, under the table's own name: so a view that
// parks or skips is rebuilt with the same bad events in the log, and after a switch the servers know what waits. More
// streams than a server would park are not a few bad events.

// loadParked reads which streams wait in the table, and tells each worker its own.
func (f *fill) loadParked(ctx context.Context, tx pgx.Tx) error {
	streams, err := parkedStreams(ctx, tx, f.p.Checkpoint())
	if err != nil {
		return err
	}
	for _, w := range f.workers {
		w.parked = map[string]bool{}
	}
	f.parked.Store(int64(len(streams)))
	for _, stream := range streams {
		f.workerOf(stream).parked[stream] = true
	}
	return nil
}

func parkedStreams(ctx context.Context, tx pgx.Tx, table string) ([]string, error) {
	rows, err := tx.Query(ctx, sqlParkedOf, table)
	if err != nil {
		return nil, fmt.Errorf("read the parked streams of %s: %w", table, err)
	}
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the parked streams of %s: %w", table, err)
	}
	return streams, nil
}

// divideParked says of each stream that waits in which shard it does: it may have been parked when the table had another
// number of them, and the owner of another shard would neither let its later events wait nor ever try again.
func (f *fill) divideParked(ctx context.Context, tx pgx.Tx) error {
	streams, err := parkedStreams(ctx, tx, f.p.Checkpoint())
	if err != nil || len(streams) == 0 {
		return err
	}
	shards := make([]int, len(streams))
	for i, stream := range streams {
		shards[i] = eventstore.Shard(stream, f.p.Shards)
	}
	if _, err := tx.Exec(ctx, sqlDivideParked, f.p.Checkpoint(), streams, shards); err != nil {
		return fmt.Errorf("divide the parked streams of %s: %w", f.p.Checkpoint(), err)
	}
	return nil
}

func (f *fill) workerOf(stream string) *worker {
	return f.workers[eventstore.Shard(stream, len(f.workers))]
}

// remember returns what forgets the streams that are parked from now on, when the transaction that did so is not committed.
func (f *fill) remember() (forget func()) {
	before := make([]map[string]bool, len(f.workers))
	for i, w := range f.workers {
		before[i] = maps.Clone(w.parked)
	}
	parked := f.parked.Load()
	return func() {
		f.parked.Store(parked)
		for i, w := range f.workers {
			w.parked = before[i]
		}
	}
}

// flowing leaves out the events of the worker's streams that wait.
func (w *worker) flowing(events []eventstore.Event) []eventstore.Event {
	if len(w.parked) == 0 {
		return events
	}
	flowing := make([]eventstore.Event, 0, len(events))
	for _, e := range events {
		if !w.parked[e.Stream] {
			flowing = append(flowing, e)
		}
	}
	return flowing
}

// flowing leaves out the events of all streams that wait.
func (f *fill) flowing(events []eventstore.Event) []eventstore.Event {
	for _, w := range f.workers {
		events = w.flowing(events) // no other worker has the stream
	}
	return events
}

// refuse does with an event that cannot be applied what the view says, and moves on.
func (r *rebuild) refuse(ctx context.Context, f *fill, w *worker, s share, reason error) error {
	e := s.events[0]
	if err := r.record(ctx, f, w, s.to, func(tx pgx.Tx) error { return r.passOver(ctx, tx, f, e, reason) }); err != nil {
		return err
	}
	f.passedOver(w, e)
	return nil
}

// passedOver has later events of the stream wait, when the view parks.
func (f *fill) passedOver(w *worker, e eventstore.Event) {
	if f.p.OnFailure == Park {
		w.parked[e.Stream] = true
		f.parked.Add(1)
	}
}

// passOver records of an event that cannot be applied what the view wants done with it. It is a *PoisonError when that is to
// stop.
func (r *rebuild) passOver(ctx context.Context, tx pgx.Tx, f *fill, e eventstore.Event, reason error) error {
	name, text := f.p.Checkpoint(), eventstore.Reason(reason.Error())
	switch {
	case f.p.OnFailure == Park && f.parked.Load() < int64(r.cfg.ParkedMax*max(1, f.p.Shards)):
		_, err := tx.Exec(ctx, sqlParkStream, name, eventstore.Shard(e.Stream, f.p.Shards), e.Stream, e.Position, e.ID, e.Type, f.p.Types, text)
		if err != nil {
			return fmt.Errorf("park %s in %s: %w", e.Stream, name, err)
		}
		return nil
	case f.p.OnFailure == Skip:
		_, err := tx.Exec(ctx, sqlSkipEvent, name, e.Position, e.ID, e.Stream, e.Type, text, "rebuild")
		if err != nil {
			return fmt.Errorf("skip event %d in %s: %w", e.Position, name, err)
		}
		return nil
	}
	return &PoisonError{Checkpoint: name, Position: e.Position, Stream: e.Stream, Type: e.Type, Err: reason}
}

// applyWithin applies events in a transaction that does more than that. Those that cannot be applied are found by halving,
// and what the view says is done with them in the same transaction.
func (r *rebuild) applyWithin(ctx context.Context, tx pgx.Tx, f *fill, events []eventstore.Event) error {
	events = f.flowing(events)
	if len(events) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return f.p.Apply(ctx, tx, events) })
	switch {
	case err == nil || ctx.Err() != nil || inTheWay(err) || eventstore.Transient(err):
		return err
	case len(events) > 1:
		half := len(events) / 2
		if err := r.applyWithin(ctx, tx, f, events[:half]); err != nil {
			return err
		}
		return r.applyWithin(ctx, tx, f, events[half:])
	}
	e := events[0]
	if err := r.passOver(ctx, tx, f, e, err); err != nil {
		return err
	}
	f.passedOver(f.workerOf(e.Stream), e)
	return nil
}

// dropCheckpoint forgets everything that is recorded of a table.
func dropCheckpoint(ctx context.Context, tx pgx.Tx, table string) error {
	for _, sql := range []string{sqlDropCheckpoint, sqlDropParked, sqlDropSkipped} {
		if _, err := tx.Exec(ctx, sql, table); err != nil {
			return fmt.Errorf("drop checkpoint %s: %w", table, err)
		}
	}
	return nil
}
