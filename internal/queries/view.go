package queries

import (
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/headrace/headrace/internal/eventstore"
)

// View is a view of one row per key: a pure fold over events. R is a struct whose fields are the columns by their `db`
// tags; one is marked as the key (`db:"id,key"`) and is text. Slices, maps and structs are jsonb. One may be marked as
// the position of the last event that the row has seen (`db:"position,seen"`): then rows are kept in memory, and a
// row whose position in the table is the same is not read again.
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
	// Keep is how many rows are kept in memory, if R marks the position. 0 stands for 4096.
	Keep int
	// Shards is how many owners share the work on a table, each with the events of its share of the streams. They run in
	// any number of processes. Only for a view whose Key is nil: then an event changes no row but that of its stream. The
	// number is fixed for a generation of the table; see Projection. 0 stands for 1.
	Shards int
	// OnFailure says what becomes of an event that the view cannot handle. The zero value halts the view.
	OnFailure OnFailure
}

// Projection returns the view's erased form. It fails when R is not a row of a table.
func (v View[R]) Projection(registry *eventstore.Registry) (Projection, error) {
	if v.Name == "" || v.Version < 1 || len(v.Types) == 0 || v.Evolve == nil {
		return Projection{}, errors.New("a view needs a name, a version from 1, types of events and Evolve")
	}
	if err := v.checkShards(); err != nil {
		return Projection{}, err
	}
	shape, err := shapeOf[R]()
	if err != nil {
		return Projection{}, fmt.Errorf("view %s: %w", v.Name, err)
	}
	f := &folder[R]{view: v.withDefaults(), shape: shape, registry: registry}
	if shape.seen >= 0 {
		if f.kept, err = lru.New[rowKey, keptRow[R]](or(v.Keep, 4096)); err != nil {
			return Projection{}, fmt.Errorf("view %s: %w", v.Name, err)
		}
	}
	return Projection{
		Name: v.Name, Version: v.Version, Generation: 1, Types: v.Types, Shards: max(1, v.Shards),
		OnFailure: v.OnFailure, key: f.view.Key, apply: f.apply, forget: f.forget, folded: true, byStream: v.Key == nil,
	}, nil
}

func (v View[R]) checkShards() error {
	switch {
	case v.Shards < 0 || v.Shards > MaxShards:
		return fmt.Errorf("view %s: shards are 1 to %d, not %d", v.Name, MaxShards, v.Shards)
	case v.Shards > 1 && v.Key != nil:
		return fmt.Errorf("view %s: only a view whose key is the stream can have shards, since two shards must not write one row",
			v.Name)
	}
	return nil
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
