package queries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

const (
	rebuildPage  = 500              // events read at once
	rebuildBatch = 4000             // events of one transaction: the more, the fewer writes of the same row
	rebuildLease = 30 * time.Second // how long others believe that a rebuild lives after its last batch
)

// RebuildingError says that another rebuild of the view is at work, or was until a moment ago.
type RebuildingError struct{ Checkpoint string }

func (e *RebuildingError) Error() string {
	return fmt.Sprintf("%s is being filled by another rebuild, or was within the last %s", e.Checkpoint, rebuildLease)
}

// Rebuild fills a new table of a view from the whole log and makes it serve. Readers go on reading the old table
// until then, and a server that runs beside it goes on with that and follows the switch. When a migration made
// a table of another version than the one that serves, that table is filled and switched to instead.
//
// The replaced table stays, without being kept up to date, for Revert; the next rebuild drops it. A rebuild
// that fails leaves what serves as it was and nothing else. Progress, which may be nil, is told after each
// batch up to which position the log was taken, and the head. A second rebuild at the same time is a *RebuildingError.
func Rebuild(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, progress func(done, head int64)) error {
	r := newRebuild(pool, store, progress)
	serving, err := r.serving(ctx, p)
	if err != nil {
		return err
	}
	if serving.Version != p.Version {
		return r.fillAndSwitch(ctx, p.At(serving.Newest), serving)
	}
	next := p.At(serving.Newest + 1)
	if err := r.create(ctx, next, serving); err != nil {
		return fmt.Errorf("rebuild %s: %w", p.Name, err)
	}
	if err := r.fillAndSwitch(ctx, next, serving); err != nil {
		return errors.Join(err, r.drop(ctx, next))
	}
	return r.prune(ctx, next, serving)
}

// Revert makes the table that a rebuild replaced serve again, after bringing it up to date. With a projection of another
// version than the one that serves, it is that version's newest table.
func Revert(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, progress func(done, head int64)) error {
	r := newRebuild(pool, store, progress)
	serving, err := r.serving(ctx, p)
	if err != nil {
		return err
	}
	previous := p.At(serving.Newest)
	if serving.Version == p.Version {
		err := pool.QueryRow(ctx, sqlPrevious, p.Name, p.Version, serving.Generation).Scan(&previous.Generation)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("revert %s: there is no other table than %s", p.Name, serving.Checkpoint)
		}
		if err != nil {
			return fmt.Errorf("revert %s: %w", p.Name, err)
		}
	}
	return r.fillAndSwitch(ctx, previous, serving)
}

type rebuild struct {
	pool     *pgxpool.Pool
	store    *eventstore.Store
	progress func(done, head int64)
	owner    string
}

func newRebuild(pool *pgxpool.Pool, store *eventstore.Store, progress func(done, head int64)) *rebuild {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	return &rebuild{pool: pool, store: store, progress: progress, owner: "rebuild " + uuid.NewString()}
}

// servingTable is a row of sqlGenerations.
type servingTable struct {
	Version    int    `db:"version"`
	Generation int    `db:"generation"`
	Checkpoint string `db:"table_name"`
	Newest     int    `db:"newest"` // generation of the asked version
}

func (r *rebuild) serving(ctx context.Context, p Projection) (servingTable, error) {
	rows, err := r.pool.Query(ctx, sqlGenerations, p.Name, p.Version)
	if err != nil {
		return servingTable{}, fmt.Errorf("look up %s: %w", p.Name, err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[servingTable])
	if errors.Is(err, pgx.ErrNoRows) {
		return s, &UnknownProjectionError{Projection: p.Name}
	}
	if err != nil {
		return s, fmt.Errorf("look up %s: %w", p.Name, err)
	}
	if s.Newest == 0 {
		return s, fmt.Errorf("there is no table of %s, version %d: migrate first", p.Name, p.Version)
	}
	return s, nil
}

// create makes the next generation's table like the serving one, with its storage options, and takes its lease.
func (r *rebuild) create(ctx context.Context, next Projection, serving servingTable) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		var busy string
		err := tx.QueryRow(ctx, sqlLockView, next.Name).Scan(new(string))
		if err != nil {
			return fmt.Errorf("lock the view: %w", err)
		}
		err = tx.QueryRow(ctx, sqlBusyRebuild, next.Name).Scan(&busy)
		if err == nil {
			return &RebuildingError{Checkpoint: busy}
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look for other rebuilds: %w", err)
		}
		var options string
		if err := tx.QueryRow(ctx, sqlTableOptions, serving.Checkpoint).Scan(&options); err != nil {
			return fmt.Errorf("read the options of %s: %w", serving.Checkpoint, err)
		}
		table := pgx.Identifier{next.Checkpoint()}.Sanitize()
		if _, err := tx.Exec(ctx, fmt.Sprintf(sqlCreateLike, table, pgx.Identifier{serving.Checkpoint}.Sanitize())); err != nil {
			return fmt.Errorf("create %s: %w", table, err)
		}
		if options != "" {
			if _, err := tx.Exec(ctx, fmt.Sprintf(sqlSetOptions, table, options)); err != nil {
				return fmt.Errorf("set the options of %s: %w", table, err)
			}
		}
		_, _, err = r.lease(ctx, tx, next.Checkpoint())
		return err
	})
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// lease takes or renews the lease of a checkpoint, made when missing. A lease that another holds is a *RebuildingError.
func (r *rebuild) lease(ctx context.Context, db querier, checkpoint string) (at eventstore.Token, epoch int64, err error) {
	var eventID, logID *uuid.UUID
	err = db.QueryRow(ctx, sqlLease, checkpoint, 0, 1, r.owner, rebuildLease.Seconds()).
		Scan(&at.Position, &eventID, &logID, &at.Epoch, &epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, 0, &RebuildingError{Checkpoint: checkpoint}
	}
	if err != nil {
		return at, 0, fmt.Errorf("take the lease of %s: %w", checkpoint, err)
	}
	if eventID != nil && logID != nil {
		at.EventID, at.LogID = *eventID, *logID
	}
	return at, epoch, nil
}

// fillAndSwitch brings a generation near the head, and then makes it serve.
func (r *rebuild) fillAndSwitch(ctx context.Context, p Projection, from servingTable) error {
	if p.Checkpoint() == from.Checkpoint {
		return fmt.Errorf("%s serves already", from.Checkpoint)
	}
	at, epoch, err := r.lease(ctx, r.pool, p.Checkpoint())
	if err != nil {
		return err
	}
	if at.Position > 0 {
		if err := r.store.CheckToken(ctx, at); err != nil {
			return fmt.Errorf("go on with %s: %w", p.Checkpoint(), err)
		}
	}
	at, err = r.fill(ctx, p, at, epoch)
	if err != nil {
		return fmt.Errorf("fill %s: %w", p.Checkpoint(), err)
	}
	for {
		err := r.switchTo(ctx, p, at, epoch, from)
		var pgErr *pgconn.PgError
		if errors.As(err, &pgErr) && (pgErr.Code == "55P03" || pgErr.Code == "40P01") && ctx.Err() == nil {
			continue // a reader or the server's consumer was in the way: lock_timeout or deadlock, both of which pass
		}
		if err != nil {
			return fmt.Errorf("switch %s to %s: %w", p.Name, p.Checkpoint(), err)
		}
		return nil
	}
}

// fill takes the log page by page, reading the next page while one is applied, until little is left.
func (r *rebuild) fill(ctx context.Context, p Projection, at eventstore.Token, epoch int64) (eventstore.Token, error) {
	head, err := r.store.Head(ctx)
	if err != nil {
		return at, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages, failed := r.pages(ctx, p, at.Position)
	for page := range pages {
		token := eventstore.Token{LogID: head.LogID, Epoch: head.Epoch, Position: page.ScannedTo}
		if token.EventID, err = r.eventID(ctx, page); err != nil {
			return at, err
		}
		err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sqlAsyncCommit); err != nil {
				return err
			}
			if err := p.Apply(ctx, tx, page.Events); err != nil {
				return err
			}
			return r.moveCheckpoint(ctx, tx, p.Checkpoint(), token, epoch)
		})
		if err != nil {
			return at, err
		}
		at = token
		r.progress(at.Position, page.Head)
	}
	return at, <-failed
}

// pages reads the log until it is near the head, several pages to a batch. The error is ready when the batches are closed.
func (r *rebuild) pages(ctx context.Context, p Projection, after int64) (<-chan eventstore.Page, <-chan error) {
	batches, failed := make(chan eventstore.Page, 1), make(chan error, 1)
	go func() {
		defer close(batches)
		for {
			batch, err := r.batch(ctx, p, after)
			if err != nil {
				failed <- err
				return
			}
			if batch.ScannedTo > after {
				select {
				case batches <- batch:
				case <-ctx.Done():
					failed <- ctx.Err()
					return
				}
			}
			after = max(after, batch.ScannedTo)
			if after >= batch.Head-rebuildPage {
				failed <- nil
				return
			}
		}
	}()
	return batches, failed
}

// batch joins pages.
func (r *rebuild) batch(ctx context.Context, p Projection, after int64) (eventstore.Page, error) {
	batch := eventstore.Page{Events: make([]eventstore.Event, 0, rebuildBatch), ScannedTo: after}
	for len(batch.Events) <= rebuildBatch-rebuildPage {
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: batch.ScannedTo, Types: p.Types, Limit: rebuildPage})
		if err != nil {
			return batch, err
		}
		batch.Events, batch.Head = append(batch.Events, page.Events...), page.Head
		if page.ScannedTo <= batch.ScannedTo {
			break
		}
		batch.ScannedTo = page.ScannedTo
	}
	return batch, nil
}

// eventID is the id of the event at the position up to which a page looked.
func (r *rebuild) eventID(ctx context.Context, page eventstore.Page) (uuid.UUID, error) {
	if n := len(page.Events); n > 0 && page.Events[n-1].Position == page.ScannedTo {
		return page.Events[n-1].ID, nil
	}
	e, found, err := r.store.EventAt(ctx, page.ScannedTo)
	if err != nil {
		return uuid.Nil, err
	}
	if !found {
		return uuid.Nil, &eventstore.DivergedError{Position: page.ScannedTo, Reason: "the log has no such event any more"}
	}
	return e.ID, nil
}

func (r *rebuild) moveCheckpoint(ctx context.Context, tx pgx.Tx, checkpoint string, at eventstore.Token, epoch int64) error {
	tag, err := tx.Exec(ctx, sqlMoveCheckpoint, checkpoint, 0, at.Position, at.EventID, at.LogID, at.Epoch, epoch, rebuildLease.Seconds())
	if err != nil {
		return fmt.Errorf("move checkpoint %s: %w", checkpoint, err)
	}
	if tag.RowsAffected() == 0 {
		return &RebuildingError{Checkpoint: checkpoint}
	}
	return nil
}
