package queries

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

const (
	diffValue  = 200              // characters of a value that a sample shows
	diffEvents = 5                // events that a sample names
	diffWait   = 10 * time.Second // how long the serving table may take to come to where the other is
)

// DiffConfig tunes Diff. The zero value works.
type DiffConfig struct {
	RebuildConfig     // of bringing the table to the position of the one that serves
	Samples       int // rows of each kind that are shown; 0 stands for 5, less than 0 for none
	Chunk         int // rows that are compared with one statement; 0 stands for 5,000
}

// Difference is what Diff found.
type Difference struct {
	View     string `json:"view"`
	Serving  string `json:"serving"`  // the table that serves
	Table    string `json:"table"`    // the one that it was compared with
	Position int64  `json:"position"` // both include exactly the log up to here, or each shard's part up to where it was
	Parked   int    `json:"parked"`   // streams that the serving projection has parked: their rows may well differ

	Rows    int64            `json:"rows"`    // that were compared
	Added   int64            `json:"added"`   // that only the new table has
	Missing int64            `json:"missing"` // that only the serving one has
	Changed int64            `json:"changed"` // that both have, with other values
	Columns map[string]int64 `json:"columns"` // in how many rows each column is changed

	OnlyServing []string `json:"onlyServing"` // columns that were not compared, since the other table lacks them
	OnlyTable   []string `json:"onlyTable"`

	Samples []RowDiff `json:"samples"`
}

// Differs tells whether any row does.
func (d Difference) Differs() bool { return d.Added+d.Missing+d.Changed > 0 }

// RowDiff is a row that the two tables do not have alike.
type RowDiff struct {
	Kind    string       `json:"kind"`    // added, missing, changed
	Key     []string     `json:"key"`     // the values of the primary key
	Columns []ColumnDiff `json:"columns"` // that differ; of an added or a missing row all
	Events  []CauseEvent `json:"events"`  // the last that concern the row, the newest first; none when they cannot be found
}

// ColumnDiff is a value as text, cut after 200 characters; nil is null, or that there is no row.
type ColumnDiff struct {
	Name string  `json:"name"`
	Old  *string `json:"old"`
	New  *string `json:"new"`
}

// CauseEvent is an event that a row was made of.
type CauseEvent struct {
	Position int64  `json:"position"`
	Stream   string `json:"stream"`
	Version  int64  `json:"version"`
	Type     string `json:"type"`
}

// Diff compares a table that does not serve with the one that does, in one snapshot and at the same position: it brings the
// table to just before where the serving one is, and takes what is missing within the snapshot, which it then gives up. So
// it changes nothing but how far the table has come. A generation of 0 stands for the newest. The tables are read along
// their primary keys, a chunk at a time, so memory does not grow with them; the snapshot lasts as long as the comparison.
//
// A serving table that is behind the other one and does not come to it within 10 seconds is a *BehindError. Other errors are
// those of Rebuild.
func Diff(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, generation int, cfg DiffConfig) (Difference, error) {
	cfg.Samples, cfg.Chunk = or(cfg.Samples, 5), max(1, or(cfg.Chunk, 5000))
	r := newRebuild(pool, store, cfg.RebuildConfig)
	f, err := r.begin(ctx, p, chooseGeneration(generation))
	if err != nil {
		return Difference{}, fmt.Errorf("diff %s: %w", p.Name, err)
	}
	found, err := r.diff(ctx, f, cfg)
	if err != nil {
		return found, fmt.Errorf("diff %s: %w", p.Name, err)
	}
	return found, nil
}

func (r *rebuild) diff(ctx context.Context, f *fill, cfg DiffConfig) (found Difference, err error) {
	ctx, release := r.keep(ctx, f)
	defer func() { err = errors.Join(err, release()) }()
	if err := r.approach(ctx, f); err != nil {
		return found, cause(ctx, err)
	}
	if _, err := r.buildIndexes(ctx, f); err != nil {
		return found, cause(ctx, err)
	}
	if err := r.approach(ctx, f); err != nil {
		return found, cause(ctx, err)
	}
	found, err = r.compareAt(ctx, f, cfg)
	if err == nil && cfg.Samples > 0 {
		err = r.explain(ctx, f.p, &found)
	}
	// Also when the comparison was stopped: the table is whole.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return found, errors.Join(cause(ctx, err), r.finish(ending, f))
}

// approach fills the table up to near where the serving one is, and never beyond.
func (r *rebuild) approach(ctx context.Context, f *fill) error {
	patience := time.Now().Add(diffWait)
	for {
		at, _, err := r.servingAt(ctx, r.pool, f)
		if err != nil {
			return err
		}
		least := slices.Min(at)
		switch behind := least - f.position(); {
		case behind >= 0 && behind < rebuildPage && f.even():
			return nil
		case behind >= 0:
			if err := r.fillTo(ctx, f, least); err != nil {
				return err
			}
			continue
		case time.Now().After(patience):
			return &BehindError{Projection: f.p.Name, Position: least, Wanted: f.position(), Head: f.position()}
		}
		if rest(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// servingAt says where each shard of the serving table stands, and how many streams are parked.
func (r *rebuild) servingAt(ctx context.Context, db queryer, f *fill) (at []int64, parked int, err error) {
	rows, err := db.Query(ctx, sqlPositions, f.serving.Checkpoint)
	if err != nil {
		return nil, 0, fmt.Errorf("read checkpoint %s: %w", f.serving.Checkpoint, err)
	}
	var position int64
	var streams int
	_, err = pgx.ForEachRow(rows, []any{&position, &streams}, func() error {
		at, parked = append(at, position), parked+streams
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read checkpoint %s: %w", f.serving.Checkpoint, err)
	}
	if len(at) == 0 {
		at = []int64{0} // it never ran
	}
	return at, parked, nil
}

// compareAt compares the tables in one snapshot.
func (r *rebuild) compareAt(ctx context.Context, f *fill, cfg DiffConfig) (found Difference, err error) {
	tx, err := r.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return found, fmt.Errorf("begin a snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreClosed(tx.Rollback(context.WithoutCancel(ctx)))) }()
	defer f.remember()()
	at, parked, err := r.servingAt(ctx, tx, f)
	if err != nil {
		return found, err
	}
	if err := r.takeShards(ctx, tx, f, at); err != nil {
		return found, err
	}
	found = Difference{
		View: f.p.Name, Serving: f.serving.Checkpoint, Table: f.p.Checkpoint(), Position: slices.Max(at), Parked: parked, Columns: map[string]int64{},
		OnlyServing: []string{}, OnlyTable: []string{}, Samples: []RowDiff{},
	}
	c, err := r.comparison(ctx, tx, f, cfg, &found)
	if err != nil {
		return found, err
	}
	return found, c.run(ctx, func() {
		r.tell(RebuildProgress{
			View: f.p.Name, Checkpoint: f.p.Checkpoint(), Phase: PhaseCompare, Position: found.Rows, Head: max(found.Rows, c.estimate), Events: found.Rows,
		})
	})
}

// takeShards applies to the table, in the snapshot, what the serving one includes beyond it: of each shard as far as that is.
func (r *rebuild) takeShards(ctx context.Context, tx pgx.Tx, f *fill, at []int64) error {
	until := slices.Max(at)
	if slices.Min(at) < f.position() {
		return fmt.Errorf("%s has gone back from %d to %d; run this once more", f.serving.Checkpoint, f.position(), slices.Min(at))
	}
	for after := f.position(); after < until; {
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: after, Until: until, Types: f.p.Types})
		if err != nil {
			return err
		}
		if page.ScannedTo <= after {
			return &eventstore.BeyondHeadError{Position: until, Head: page.Head}
		}
		included := page.Events[:0]
		for _, e := range page.Events {
			if e.Position <= at[eventstore.Shard(e.Stream, len(at))] {
				included = append(included, e)
			}
		}
		if err := r.applyWithin(ctx, tx, f, included); err != nil {
			return err
		}
		after = page.ScannedTo
	}
	return nil
}

// ignoreClosed leaves out that there was nothing to roll back any more.
func ignoreClosed(err error) error {
	if errors.Is(err, pgx.ErrTxClosed) || err != nil && eventstore.Transient(err) {
		return nil
	}
	return err
}

// explain finds the last events of each sample's row.
func (r *rebuild) explain(ctx context.Context, p Projection, found *Difference) error {
	for i := range found.Samples {
		s := &found.Samples[i]
		events, err := r.causes(ctx, p, s, found.Position)
		if err != nil {
			return err
		}
		s.Events = make([]CauseEvent, len(events))
		for j, e := range events {
			s.Events[j] = CauseEvent{Position: e.Position, Stream: e.Stream, Version: e.Version, Type: e.Type}
		}
	}
	return nil
}

// causes are the newest events of the key's stream that the projection takes. Where a row is not a stream's, it is those at
// the positions that its column "position" holds, if it has one.
func (r *rebuild) causes(ctx context.Context, p Projection, s *RowDiff, until int64) ([]eventstore.Event, error) {
	if p.byStream {
		events, err := r.store.ReadStream(ctx, s.Key[0], eventstore.StreamQuery{Backward: true, Limit: 20 * diffEvents})
		if err != nil {
			return nil, err
		}
		events = slices.DeleteFunc(events, func(e eventstore.Event) bool { return e.Position > until || !p.Takes(e.Type) })
		return events[:min(len(events), diffEvents)], nil
	}
	positions := s.positions()
	if len(positions) == 0 {
		return nil, nil
	}
	events, err := r.store.EventsAt(ctx, positions)
	slices.Reverse(events)
	return events, err
}
