package queries

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// A fill does with events that cannot be applied what the view says of failures, under the table's own name: so a view that
// parks or skips is rebuilt with the same bad events in the log, and after a switch the servers know what waits.
const parkedMax = 1000 // streams; more are not a few bad events

// loadParked reads which streams wait in the table, and tells each worker its own.
func (f *fill) loadParked(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, sqlParkedOf, f.p.Checkpoint())
	if err != nil {
		return fmt.Errorf("read the parked streams of %s: %w", f.p.Checkpoint(), err)
	}
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the parked streams of %s: %w", f.p.Checkpoint(), err)
	}
	for _, w := range f.workers {
		w.parked = map[string]bool{}
	}
	for _, stream := range streams {
		f.workers[eventstore.Shard(stream, len(f.workers))].parked[stream] = true
	}
	return nil
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

// refuse does with an event that cannot be applied what the view says.
func (r *rebuild) refuse(ctx context.Context, f *fill, w *worker, s share, reason error) error {
	e, name := s.events[0], f.p.Checkpoint()
	text := eventstore.Reason(reason.Error())
	switch {
	case f.p.OnFailure == Park && len(w.parked) < parkedMax:
		err := r.record(ctx, f, w, s.to, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, sqlParkStream, name, eventstore.Shard(e.Stream, f.p.Shards), e.Stream, e.Position, e.ID, e.Type, f.p.Types, text)
			return err
		})
		if err != nil {
			return fmt.Errorf("park %s in %s: %w", e.Stream, name, err)
		}
		w.parked[e.Stream] = true
		return nil
	case f.p.OnFailure == Skip:
		err := r.record(ctx, f, w, s.to, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, sqlSkipEvent, name, e.Position, e.ID, e.Stream, e.Type, text, "rebuild")
			return err
		})
		if err != nil {
			return fmt.Errorf("skip event %d in %s: %w", e.Position, name, err)
		}
		return nil
	}
	return &PoisonError{Checkpoint: name, Position: e.Position, Stream: e.Stream, Type: e.Type, Err: reason}
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
