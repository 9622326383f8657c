package queries

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// A table that is being filled has two kinds of checkpoints. That of the table's own name is held for good by "filling", so
// that no server's consumer takes a table that is half full. Those of the workers, one shard each, have the name with
// fillSuffix, and a lease by which other rebuilds see that this one lives. They are there exactly as long as the table is
// not at one position: who finds them goes on with them.
const fillSuffix = ".fill"

// fill is a table that this process has the sole right to write.
type fill struct {
	p       Projection // at the generation of the table
	serving servingTable
	source  string // whose indexes the table is to have; empty: its own are there from the beginning
	workers []*worker
	parked  atomic.Int64 // how many streams wait, of all workers
	resumed bool

	renewing sync.Mutex // held while its leases are renewed, and while they end with it
	ended    bool       // they have: the table is at one position, and nobody fills it
}

// worker is one share of the streams.
type worker struct {
	shard  int
	at     eventstore.Token
	epoch  int64
	events int64
	parked map[string]bool // its streams that wait
}

// position is up to where all workers have taken the log.
func (f *fill) position() int64 {
	least := f.workers[0].at.Position
	for _, w := range f.workers {
		least = min(least, w.at.Position)
	}
	return least
}

func (f *fill) events() (n int64) {
	for _, w := range f.workers {
		n += w.events
	}
	return n
}

// checkpointRow is a row of sqlLockCheckpoints.
type checkpointRow struct {
	Shard    int        `db:"shard"`
	Position int64      `db:"position"`
	EventID  *uuid.UUID `db:"event_id"`
	LogID    *uuid.UUID `db:"log_id"`
	LogEpoch int32      `db:"log_epoch"`
	Epoch    int64      `db:"lease_epoch"`
}

func (c checkpointRow) token() eventstore.Token {
	return tokenOf(c.Position, c.LogEpoch, c.EventID, c.LogID)
}

// tokenOf is where a checkpoint's row says that it is. The ids are null until it moves.
func tokenOf(position int64, epoch int32, eventID, logID *uuid.UUID) eventstore.Token {
	t := eventstore.Token{Epoch: epoch, Position: position}
	if eventID != nil && logID != nil {
		t.EventID, t.LogID = *eventID, *logID
	}
	return t
}

// chooser says which table a call is about. Create means that it is to be made.
type chooser func(ctx context.Context, tx pgx.Tx, p Projection, s servingTable) (target Projection, create bool, err error)

// begin takes the sole right to write a table that does not serve, which it makes if it has to, and says where each worker
// goes on.
func (r *rebuild) begin(ctx context.Context, p Projection, choose chooser) (*fill, error) {
	var f *fill
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		serving, err := lockView(ctx, tx, p)
		if err != nil {
			return err
		}
		var busy string
		err = tx.QueryRow(ctx, sqlBusyRebuild, p.Name).Scan(&busy)
		if err == nil {
			return &RebuildingError{Checkpoint: busy}
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look for other rebuilds: %w", err)
		}
		target, create, err := choose(ctx, tx, p, serving)
		if err != nil {
			return err
		}
		if target.Checkpoint() == serving.Checkpoint {
			return &NoTableError{p.Name, serving.Checkpoint + " serves already"}
		}
		f = &fill{p: target, serving: serving}
		if target.folded && target.Version == serving.Version && target.Generation > 1 {
			f.source = serving.Checkpoint
		}
		if create {
			if err := dropCheckpoint(ctx, tx, target.Checkpoint()); err != nil { // of a table that was dropped by hand
				return err
			}
			if err := createLike(ctx, tx, target, serving.Checkpoint); err != nil {
				return err
			}
		}
		return r.claim(ctx, tx, f)
	})
	if err != nil {
		return nil, err
	}
	for _, w := range f.workers {
		if w.at.Position == 0 {
			continue
		}
		if err := r.store.CheckToken(ctx, w.at); err != nil {
			return nil, errors.Join(fmt.Errorf("go on with %s, which is to be dropped then: %w", f.p.Checkpoint(), err), r.free(ctx, f))
		}
	}
	return f, nil
}

// claim takes the leases of the workers' checkpoints, made when there are none, and keeps consumers away.
func (r *rebuild) claim(ctx context.Context, tx pgx.Tx, f *fill) error {
	name := f.p.Checkpoint()
	if _, err := tx.Exec(ctx, sqlMarkFilling, name); err != nil {
		return fmt.Errorf("mark %s as being filled: %w", name, err)
	}
	rows, err := checkpointRows(ctx, tx, name+fillSuffix)
	if err != nil {
		return err
	}
	f.resumed = len(rows) > 0
	if !f.resumed {
		if rows, err = r.divide(ctx, tx, f); err != nil {
			return err
		}
	}
	for _, row := range rows {
		w := &worker{shard: row.Shard, at: row.token(), epoch: row.Epoch + 1}
		_, err := tx.Exec(ctx, sqlClaimWorker, name+fillSuffix, w.shard, len(rows), w.at.Position, row.EventID, row.LogID, w.at.Epoch,
			r.owner, w.epoch, rebuildLease.Seconds())
		if err != nil {
			return fmt.Errorf("claim %s%s: %w", name, fillSuffix, err)
		}
		f.workers = append(f.workers, w)
	}
	return f.loadParked(ctx, tx)
}

// divide says where the workers of a table begin that was at rest: at its checkpoint. A table whose shards stand at
// different positions keeps them as workers; otherwise there are as many as asked for.
func (r *rebuild) divide(ctx context.Context, tx pgx.Tx, f *fill) ([]checkpointRow, error) {
	rows, err := checkpointRows(ctx, tx, f.p.Checkpoint())
	if err != nil {
		return nil, err
	}
	for _, row := range rows[1:] {
		if row.Position != rows[0].Position {
			return rows, nil
		}
	}
	workers := 1
	if f.p.byStream {
		workers = max(1, min(r.cfg.Workers, MaxShards))
	}
	divided := make([]checkpointRow, workers)
	for i := range divided {
		divided[i] = rows[0]
		divided[i].Shard = i
	}
	return divided, nil
}

func checkpointRows(ctx context.Context, tx pgx.Tx, name string) ([]checkpointRow, error) {
	rows, err := tx.Query(ctx, sqlLockCheckpoints, name)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", name, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[checkpointRow])
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", name, err)
	}
	return all, nil
}

// keep renews the leases of a fill until it is released. The context that it returns ends when they are lost.
func (r *rebuild) keep(ctx context.Context, f *fill) (context.Context, func() error) {
	kept, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(rebuildLease / 6)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-kept.Done():
				return
			}
			if r.lost(kept, f) {
				stop(&RebuildingError{Checkpoint: f.p.Checkpoint()})
			}
		}
	}()
	go r.watch(kept)
	return kept, func() error {
		stop(nil)
		<-ended
		return r.free(ctx, f)
	}
}

// lost renews the leases of a fill, and tells whether another has them.
func (r *rebuild) lost(ctx context.Context, f *fill) bool {
	f.renewing.Lock()
	defer f.renewing.Unlock()
	if f.ended {
		return false
	}
	// A database that does not answer is no reason to stop: what is written is fenced.
	tag, err := r.pool.Exec(ctx, sqlRenewFill, f.p.Checkpoint()+fillSuffix, r.owner, rebuildLease.Seconds())
	return err == nil && tag.RowsAffected() == 0
}

// ending runs what ends a fill. Nobody renews its leases meanwhile, who would take them for lost.
func (f *fill) ending(end func() error) error {
	f.renewing.Lock()
	defer f.renewing.Unlock()
	err := end()
	f.ended = err == nil
	return err
}

// free gives the leases back, even when the context has ended, so that the next call need not wait for them to run out.
func (r *rebuild) free(ctx context.Context, f *fill) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := r.pool.Exec(ctx, sqlFreeFill, f.p.Checkpoint()+fillSuffix, r.owner); err != nil {
		return fmt.Errorf("give back the leases of %s: %w", f.p.Checkpoint(), err)
	}
	return nil
}

// Who has the checkpoint of a table whose fill has ended.
const (
	ownerNone    = ""        // the servers may take it, and keep the table up to date
	ownerRetired = "retired" // nobody: the table stays as it is
)

// finish ends a fill whose workers stand at one position, of a table that is not to serve yet. That of another version than
// the one that serves is given to the servers of that version, and a generation of the serving version stays as it is.
func (r *rebuild) finish(ctx context.Context, f *fill) error {
	owner := ownerRetired
	if f.p.Version != f.serving.Version {
		owner = ownerNone
	}
	return f.ending(func() error {
		return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return r.end(ctx, tx, f, f.workers[0].at, owner) })
	})
}

// end puts the table's own checkpoint, which says that the table is at one position, in the place of the workers'. Until that
// is committed, whoever finds those goes on with them.
func (r *rebuild) end(ctx context.Context, tx pgx.Tx, f *fill, at eventstore.Token, owner string) error {
	name := f.p.Checkpoint()
	tag, err := tx.Exec(ctx, sqlEndFill, name+fillSuffix, r.owner, f.position())
	if err != nil {
		return fmt.Errorf("end the fill of %s: %w", name, err)
	}
	if tag.RowsAffected() != int64(len(f.workers)) {
		return &RebuildingError{Checkpoint: name}
	}
	if err := f.divideParked(ctx, tx); err != nil {
		return err
	}
	var last int64
	if err := tx.QueryRow(ctx, sqlTakeOut, name).Scan(&last); err != nil {
		return fmt.Errorf("replace checkpoint %s: %w", name, err)
	}
	_, err = tx.Exec(ctx, sqlPutIn, name, max(1, f.p.Shards), at.Position, at.EventID, at.LogID, at.Epoch, owner, last+1)
	if err != nil {
		return fmt.Errorf("set checkpoint %s: %w", name, err)
	}
	return nil
}

// chooseNext is what Rebuild fills: what an earlier call left half full, the newest table of another version than the one
// that serves, or a new one.
func chooseNext(ctx context.Context, tx pgx.Tx, p Projection, s servingTable) (Projection, bool, error) {
	var left int
	err := tx.QueryRow(ctx, sqlHalfFull, p.Name, p.Version).Scan(&left)
	if err == nil {
		return p.At(left), false, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return p, false, fmt.Errorf("look for what an earlier rebuild left: %w", err)
	}
	if s.Version != p.Version {
		return p.At(s.Newest), false, nil
	}
	return p.At(s.Newest + 1), true, nil
}

// chooseGeneration is what Switch and Diff are asked for; 0 is the newest that does not serve.
func chooseGeneration(generation int) chooser {
	return func(ctx context.Context, tx pgx.Tx, p Projection, s servingTable) (Projection, bool, error) {
		var found int
		err := tx.QueryRow(ctx, sqlNotServing, p.Name, p.Version, s.Checkpoint, generation).Scan(&found)
		if errors.Is(err, pgx.ErrNoRows) {
			reason := "there is no table but the one that serves, " + s.Checkpoint
			if generation > 0 {
				reason = p.At(generation).Checkpoint() + " is not there, or serves already"
			}
			return p, false, &NoTableError{p.Name, reason}
		}
		if err != nil {
			return p, false, fmt.Errorf("look for tables of %s: %w", p.Name, err)
		}
		return p.At(found), false, nil
	}
}

// choosePrevious is what Rollback goes back to.
func choosePrevious(ctx context.Context, tx pgx.Tx, p Projection, s servingTable) (Projection, bool, error) {
	if s.Version != p.Version {
		return p.At(s.Newest), false, nil
	}
	var previous string
	var generation int
	err := tx.QueryRow(ctx, sqlPrevious, p.Name, p.Version, s.Checkpoint).Scan(&previous, &generation)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return p, false, &NoTableError{p.Name, fmt.Sprintf("nothing to go back to: no table that %s replaced is kept", s.Checkpoint)}
	case err != nil:
		return p, false, fmt.Errorf("look for the replaced table of %s: %w", p.Name, err)
	case generation == 0:
		return p, false, &NoTableError{
			p.Name, fmt.Sprintf("%s, which was replaced, is of another version: roll back by the program that has it", previous),
		}
	}
	return p.At(generation), false, nil
}
