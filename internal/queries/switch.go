package queries

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
)

// switchOver is switchTo, tried until no reader and no consumer is in its way. What comes meanwhile is taken, so that little
// is left for the transaction.
func (r *rebuild) switchOver(ctx context.Context, f *fill) error {
	for {
		err := r.switchTo(ctx, f)
		if err == nil {
			return nil
		}
		if !inTheWay(err) || ctx.Err() != nil {
			return fmt.Errorf("let %s serve: %w", f.p.Checkpoint(), err)
		}
		if err := r.fill(ctx, f); err != nil {
			return err
		}
	}
}

// inTheWay tells that somebody else held a lock: lock_timeout or deadlock, both of which pass.
func inTheWay(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "55P03" || pg.Code == "40P01")
}

// switchTo makes a filled table serve, in one transaction. It locks the checkpoint of the one that serves, so that it stands
// still, takes the few events up to there, and retires that checkpoint: its consumer loses the lease for good, and cannot
// report a position that readers of the new table do not see. The fill ends with it and not before: a switch that fails
// leaves a table that the next call goes on with.
func (r *rebuild) switchTo(ctx context.Context, f *fill) error {
	forget := f.remember()
	var at eventstore.Token
	err := f.ending(func() error {
		return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) (err error) {
			at, err = r.switchWithin(ctx, tx, f)
			return err
		})
	})
	if err != nil {
		forget()
		return err
	}
	for _, w := range f.workers {
		w.at = at
	}
	return nil
}

func (r *rebuild) switchWithin(ctx context.Context, tx pgx.Tx, f *fill) (at eventstore.Token, err error) {
	if _, err := tx.Exec(ctx, sqlLockTimeout); err != nil {
		return at, err
	}
	var table string
	if err := tx.QueryRow(ctx, sqlLockView, f.p.Name).Scan(&table); err != nil {
		return at, fmt.Errorf("lock the view: %w", err)
	}
	if table != f.serving.Checkpoint {
		return at, fmt.Errorf("%s serves now instead of %s", table, f.serving.Checkpoint)
	}
	var until int64
	if err := tx.QueryRow(ctx, sqlRetire, table).Scan(&until); err != nil {
		return at, fmt.Errorf("retire %s: %w", table, err)
	}
	if at, err = r.takeRest(ctx, tx, f, until); err != nil {
		return at, err
	}
	if err := r.end(ctx, tx, f, at, ownerNone); err != nil {
		return at, err
	}
	if _, err := tx.Exec(ctx, sqlServe, f.p.Name, f.p.Version, f.p.Generation); err != nil {
		return at, fmt.Errorf("say that %s serves: %w", f.p.Checkpoint(), err)
	}
	return at, pointView(ctx, tx, f.p)
}

// takeRest applies what is left up to a position, from where all workers are.
func (r *rebuild) takeRest(ctx context.Context, tx pgx.Tx, f *fill, until int64) (at eventstore.Token, err error) {
	at = f.workers[0].at
	head, err := r.store.Head(ctx)
	if err != nil {
		return at, err
	}
	for at.Position < until {
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: at.Position, Until: until, Types: f.p.Types})
		if err != nil {
			return at, err
		}
		if page.ScannedTo <= at.Position {
			return at, &eventstore.BeyondHeadError{Position: until, Head: page.Head}
		}
		if err := r.applyWithin(ctx, tx, f, page.Events); err != nil {
			return at, err
		}
		at.LogID, at.Epoch, at.Position = head.LogID, head.Epoch, page.ScannedTo
		if at.EventID, err = r.eventID(ctx, page); err != nil {
			return at, err
		}
	}
	return at, nil
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
		var grants []string
		if grants, err = grantsOf(ctx, tx, p.Name, name); err == nil {
			_, err = tx.Exec(ctx, strings.Join(append([]string{fmt.Sprintf(sqlRemakeView, name, table)}, grants...), "; "))
		}
	}
	if err != nil {
		return fmt.Errorf("point view %s at %s: %w", name, table, err)
	}
	return nil
}
