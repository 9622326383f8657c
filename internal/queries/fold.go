package queries

import (
	"context"
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// folder applies a view to its table.
type folder[R any] struct {
	view     View[R]
	shape    *shape[R]
	registry *eventstore.Registry
	// kept are rows as this process wrote them; nil: none are. A row is used when the table, under the batch's transaction,
	// has it at the same position. So it does not matter that the transaction which wrote it may have been rolled back,
	// or that another process wrote since: a log has one history, and a fold of it is the same wherever it is
	// made. Only events that are parked or skipped tell two folds apart; see forget.
	kept *lru.Cache[rowKey, keptRow[R]]
}

// keptRow is a row and the epoch that the log had when it was written: what was folded from another history may differ,
// at the same position too.
type keptRow[R any] struct {
	row   *R
	epoch int32
}

type rowKey struct{ table, key string }

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

// apply loads the rows of the batch's keys with one round trip, folds, and writes what changed with one more. Decoding
// the events goes on while Postgres looks up the rows.
func (f *folder[R]) apply(ctx context.Context, tx pgx.Tx, table string, events []eventstore.Event) error {
	sql := f.shape.statements(table)
	keys, index := f.keys(events)
	slots := make([]slot[R], len(keys))
	missing, known := f.recall(table, keys)
	results := tx.SendBatch(ctx, loadBatch(sql, missing, known))
	payloads, decodeErr := f.decodeAll(events)
	epoch, changed, err := f.readSlots(results, table, len(missing) > 0, len(known) > 0, slots, index)
	if err := errors.Join(decodeErr, err); err != nil {
		return err
	}
	if len(changed) > 0 { // another process wrote them meanwhile, or the log has another history
		results := tx.SendBatch(ctx, loadBatch(sql, changed, nil))
		if _, _, err := f.readSlots(results, table, true, false, slots, index); err != nil {
			return err
		}
	}
	for i, e := range events {
		f.step(&slots[index[f.view.Key(e)]], e, payloads[i])
	}
	if err := f.write(ctx, tx, sql, keys, slots); err != nil {
		return err
	}
	f.remember(table, keys, slots, epoch)
	return nil
}

func loadBatch(sql statements, missing, known []string) *pgx.Batch {
	batch := &pgx.Batch{}
	batch.Queue(sqlPrepareLoad)
	if len(missing) > 0 {
		batch.Queue(sql.load, missing)
	}
	if len(known) > 0 {
		batch.Queue(sql.check, known)
	}
	return batch
}

// recall tells the keys whose rows are kept from the others.
func (f *folder[R]) recall(table string, keys []string) (missing, known []string) {
	if f.kept == nil {
		return keys, nil
	}
	for _, key := range keys {
		if f.kept.Contains(rowKey{table, key}) {
			known = append(known, key)
		} else {
			missing = append(missing, key)
		}
	}
	return missing, known
}

func (f *folder[R]) forget() {
	if f.kept != nil {
		f.kept.Purge()
	}
}

func (f *folder[R]) remember(table string, keys []string, slots []slot[R], epoch int32) {
	if f.kept == nil {
		return
	}
	for i := range slots {
		if slots[i].exists {
			row := slots[i].after // a copy, so that one row does not keep a whole batch in memory
			f.kept.Add(rowKey{table, keys[i]}, keptRow[R]{&row, epoch})
		} else {
			f.kept.Remove(rowKey{table, keys[i]})
		}
	}
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

// readSlots reads the answers to a load batch into the slots. It returns the log's epoch, and the keys of rows that are kept
// at another position than the table's or from another epoch.
func (f *folder[R]) readSlots(results pgx.BatchResults, table string, load, check bool, slots []slot[R], index map[string]int) (epoch int32, changed []string, err error) {
	defer func() { err = errors.Join(err, results.Close()) }()
	if err := results.QueryRow().Scan(&epoch, nil); err != nil {
		return 0, nil, fmt.Errorf("prepare to load rows: %w", err)
	}
	if load {
		rows, err := results.Query()
		if err != nil {
			return 0, nil, fmt.Errorf("load rows: %w", err)
		}
		loaded, err := pgx.CollectRows(rows, f.shape.scan)
		if err != nil {
			return 0, nil, fmt.Errorf("load rows: %w", err)
		}
		for _, row := range loaded {
			slots[index[f.shape.keyOf(row)]] = slot[R]{before: row, after: *row, exists: true}
		}
	}
	if !check {
		return epoch, nil, nil
	}
	rows, err := results.Query()
	if err != nil {
		return 0, nil, fmt.Errorf("check rows: %w", err)
	}
	var key string
	var seen int64
	_, err = pgx.ForEachRow(rows, []any{&key, &seen}, func() error {
		held, kept := f.kept.Get(rowKey{table, key})
		if row := held.row; !kept || held.epoch != epoch || f.shape.seenAt(row) != seen {
			changed = append(changed, key)
		} else {
			slots[index[key]] = slot[R]{before: row, after: *row, exists: true}
		}
		return nil
	})
	if err != nil {
		return 0, nil, fmt.Errorf("check rows: %w", err)
	}
	return epoch, changed, nil
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
