package queries

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// View is a view of one row per key: a pure fold over events. R is a struct whose fields are the columns by their `db`
// tags; one is marked as the key (`db:"id,key"`) and is text. Slices, maps and structs are jsonb.
type View[R any] struct {
	Name    string   // the stable name
	Version int      // of the shape; raise it together with a migration that makes the new table
	Types   []string // of the events that Evolve takes; see Types

	// Key says which row an event changes. Nil stands for the stream's name.
	Key func(e eventstore.Event) string
	// Evolve returns the row after an event. The row before is the zero R when there is none. It must be pure, and
	// must not change what the row's slices and maps hold: they are shared with the row before.
	Evolve func(row R, e eventstore.Event, p eventstore.Payload) R
	// Gone says that a row is to be deleted. Nil stands for never.
	Gone func(row R) bool
}

// Projection returns the view's erased form. It fails when R is not a row of a table.
func (v View[R]) Projection(registry *eventstore.Registry) (Projection, error) {
	if v.Name == "" || v.Version < 1 || len(v.Types) == 0 || v.Evolve == nil {
		return Projection{}, errors.New("a view needs a name, a version from 1, types of events and Evolve")
	}
	shape, err := shapeOf[R]()
	if err != nil {
		return Projection{}, fmt.Errorf("view %s: %w", v.Name, err)
	}
	f := &folder[R]{view: v.withDefaults(), shape: shape, registry: registry}
	return Projection{
		Name: v.Name, Version: v.Version, Generation: 1, Types: v.Types,
		key: f.view.Key, apply: f.apply,
	}, nil
}

func (v View[R]) withDefaults() View[R] {
	if v.Key == nil {
		v.Key = stream
	}
	if v.Gone == nil {
		v.Gone = func(R) bool { return false }
	}
	return v
}

// Fold returns the row of one key after its events, given the row before them. It touches no table: folding a stream up
// to a position is the state as of then. False means that there is no row.
func (v View[R]) Fold(registry *eventstore.Registry, row R, exists bool, events ...eventstore.Event) (R, bool, error) {
	f := folder[R]{view: v.withDefaults(), registry: registry}
	s := slot[R]{after: row, exists: exists}
	for _, e := range events {
		if !(Projection{Types: v.Types}).Takes(e.Type) {
			continue
		}
		payload, err := decode(registry, e)
		if err != nil {
			return row, exists, err
		}
		f.step(&s, e, payload)
	}
	return s.after, s.exists, nil
}

// folder applies a view to its table.
type folder[R any] struct {
	view     View[R]
	shape    *shape[R]
	registry *eventstore.Registry
}

// slot is one key's row during a batch.
type slot[R any] struct {
	before *R // nil: the table has no such row
	after  R
	exists bool
}

func (f *folder[R]) step(s *slot[R], e eventstore.Event, payload eventstore.Payload) {
	s.after, s.exists = f.view.Evolve(s.after, e, payload), true
	if f.view.Gone(s.after) {
		var none R
		s.after, s.exists = none, false
	}
}

// apply loads the rows of the batch's keys with one statement, folds, and writes what changed with one more. Decoding
// the events goes on while Postgres looks up the rows.
func (f *folder[R]) apply(ctx context.Context, tx pgx.Tx, table string, events []eventstore.Event) error {
	sql := f.shape.statements(table)
	keys, index := f.keys(events)
	load := &pgx.Batch{}
	load.Queue(sqlNoSeqScan)
	load.Queue(sql.load, keys)
	results := tx.SendBatch(ctx, load)
	payloads, decodeErr := f.decodeAll(events)
	slots, err := f.readSlots(results, index)
	if err := errors.Join(decodeErr, err); err != nil {
		return err
	}
	for i, e := range events {
		f.step(&slots[index[f.view.Key(e)]], e, payloads[i])
	}
	return f.write(ctx, tx, sql, keys, slots)
}

// keys lists the different keys of the events, and where each stands in the list.
func (f *folder[R]) keys(events []eventstore.Event) ([]string, map[string]int) {
	keys := make([]string, 0, len(events))
	index := make(map[string]int, len(events))
	for _, e := range events {
		key := f.view.Key(e)
		if _, known := index[key]; !known {
			index[key] = len(keys)
			keys = append(keys, key)
		}
	}
	return keys, index
}

func (f *folder[R]) decodeAll(events []eventstore.Event) ([]eventstore.Payload, error) {
	payloads := make([]eventstore.Payload, len(events))
	for i, e := range events {
		var err error
		if payloads[i], err = decode(f.registry, e); err != nil {
			return nil, err
		}
	}
	return payloads, nil
}

func (f *folder[R]) readSlots(results pgx.BatchResults, index map[string]int) (slots []slot[R], err error) {
	defer func() { err = errors.Join(err, results.Close()) }()
	if _, err := results.Exec(); err != nil {
		return nil, fmt.Errorf("prepare to load rows: %w", err)
	}
	rows, err := results.Query()
	if err != nil {
		return nil, fmt.Errorf("load rows: %w", err)
	}
	loaded, err := pgx.CollectRows(rows, f.shape.scan)
	if err != nil {
		return nil, fmt.Errorf("load rows: %w", err)
	}
	slots = make([]slot[R], len(index))
	for _, row := range loaded {
		slots[index[f.shape.keyOf(row)]] = slot[R]{before: row, after: *row, exists: true}
	}
	return slots, nil
}

// write sends what changed: one upsert and, when rows are gone, one delete, in one round trip.
func (f *folder[R]) write(ctx context.Context, tx pgx.Tx, sql statements, keys []string, slots []slot[R]) error {
	changed := make([]*R, 0, len(slots))
	var gone []string
	for i := range slots {
		s := &slots[i]
		switch {
		case s.exists && f.shape.keyOf(&s.after) != keys[i]:
			return fmt.Errorf("Evolve gave a row of key %q for key %q", f.shape.keyOf(&s.after), keys[i])
		case s.exists && (s.before == nil || !f.shape.equal(s.before, &s.after)):
			changed = append(changed, &s.after)
		case !s.exists && s.before != nil:
			gone = append(gone, keys[i])
		}
	}
	batch := &pgx.Batch{}
	if len(changed) > 0 {
		arrays, err := f.shape.arrays(changed)
		if err != nil {
			return err
		}
		batch.Queue(sql.upsert, arrays...)
	}
	if len(gone) > 0 {
		batch.Queue(sql.remove, gone)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	return nil
}
