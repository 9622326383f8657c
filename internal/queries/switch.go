package queries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
)

// switchTo makes a filled generation serve, in one transaction. It locks the checkpoint of the one that serves, so
// that it stands still, takes the few events up to there, and retires that checkpoint: its consumer loses the lease
// for good, and cannot report a position that readers of the new table do not see.
func (r *rebuild) switchTo(ctx context.Context, p Projection, at eventstore.Token, epoch int64, from servingTable) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlLockTimeout); err != nil {
			return err
		}
		var table string
		if err := tx.QueryRow(ctx, sqlLockView, p.Name).Scan(&table); err != nil {
			return fmt.Errorf("lock the view: %w", err)
		}
		if table != from.Checkpoint {
			return fmt.Errorf("%s serves now instead of %s", table, from.Checkpoint)
		}
		var until int64
		if err := tx.QueryRow(ctx, sqlRetire, from.Checkpoint).Scan(&until); err != nil {
			return fmt.Errorf("retire %s: %w", from.Checkpoint, err)
		}
		if err := r.takeRest(ctx, tx, p, at, epoch, until); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, sqlRelease, p.Checkpoint()); err != nil {
			return fmt.Errorf("release the lease of %s: %w", p.Checkpoint(), err)
		}
		if _, err := tx.Exec(ctx, sqlServe, p.Name, p.Version, p.Generation); err != nil {
			return fmt.Errorf("say that %s serves: %w", p.Checkpoint(), err)
		}
		return pointView(ctx, tx, p)
	})
}

// takeRest applies what is left up to a position.
func (r *rebuild) takeRest(ctx context.Context, tx pgx.Tx, p Projection, at eventstore.Token, epoch, until int64) error {
	head, err := r.store.Head(ctx)
	if err != nil {
		return err
	}
	for at.Position < until {
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: at.Position, Until: until, Types: p.Types, Limit: rebuildPage})
		if err != nil {
			return err
		}
		if page.ScannedTo <= at.Position {
			return &eventstore.BeyondHeadError{Position: until, Head: page.Head}
		}
		if err := p.Apply(ctx, tx, page.Events); err != nil {
			return err
		}
		at.LogID, at.Epoch, at.Position = head.LogID, head.Epoch, page.ScannedTo
		if at.EventID, err = r.eventID(ctx, page); err != nil {
			return err
		}
	}
	if at.Position == 0 {
		return nil // the log is empty
	}
	// Even with nothing left: an update that matches no row tells that the lease was lost.
	return r.moveCheckpoint(ctx, tx, p.Checkpoint(), at, epoch)
}

// pointView makes the stable name stand for the generation's table. A view keeps its columns when it is replaced; that
// of another version has others, and is made anew.
func pointView(ctx context.Context, tx pgx.Tx, p Projection) error {
	name, table := pgx.Identifier{p.Name}.Sanitize(), pgx.Identifier{p.Checkpoint()}.Sanitize()
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, fmt.Sprintf(sqlReplaceView, name, table))
		return err
	})
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42P16" { // invalid_table_definition
		_, err = tx.Exec(ctx, fmt.Sprintf(sqlRemakeView, name, table))
	}
	if err != nil {
		return fmt.Errorf("point view %s at %s: %w", name, table, err)
	}
	return nil
}

// prune drops the tables of a version that neither serve nor were just replaced.
func (r *rebuild) prune(ctx context.Context, now Projection, replaced servingTable) error {
	rows, err := r.pool.Query(ctx, sqlOtherGenerations, now.Name, now.Version, now.Generation, replaced.Generation)
	if err != nil {
		return fmt.Errorf("look for old tables of %s: %w", now.Name, err)
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("look for old tables of %s: %w", now.Name, err)
	}
	for _, generation := range old {
		if err := r.drop(ctx, now.At(generation)); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a generation that does not serve, even when the context has ended.
func (r *rebuild) drop(ctx context.Context, p Projection) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		var serving string
		if err := tx.QueryRow(ctx, sqlLockView, p.Name).Scan(&serving); err != nil {
			return fmt.Errorf("lock the view: %w", err)
		}
		if serving == p.Checkpoint() {
			return nil // the switch was committed, though its answer may have been lost
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(sqlDropTable, pgx.Identifier{p.Checkpoint()}.Sanitize())); err != nil {
			return fmt.Errorf("drop %s: %w", p.Checkpoint(), err)
		}
		if _, err := tx.Exec(ctx, sqlDropCheckpoint, p.Checkpoint()); err != nil {
			return fmt.Errorf("drop checkpoint %s: %w", p.Checkpoint(), err)
		}
		return nil
	})
}
