package queries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Table is one of a view's tables.
type Table struct {
	View       string `db:"view" json:"view"`
	Name       string `db:"name" json:"name"` // also its checkpoint's
	Version    int    `db:"version" json:"version"`
	Generation int    `db:"generation" json:"generation"`
	State      string `db:"state" json:"state"`       // one of the states below
	Previous   bool   `db:"previous" json:"previous"` // a rollback goes back to it
	Position   int64  `db:"position" json:"position"` // it includes the log up to here
	Head       int64  `db:"head" json:"head"`         // of the log
	Rows       int64  `db:"rows" json:"rows"`         // as the planner estimates
	Bytes      int64  `db:"bytes" json:"bytes"`       // on disk, indexes included
}

// The states of tables.
const (
	TableServing    = "serving"
	TableFilling    = "filling"     // a rebuild is at work on it
	TableHalfFilled = "half filled" // a rebuild was stopped; the next one goes on with it
	TableUpToDate   = "up to date"  // of another version than the one that serves; a server of that version is at work on it
	TableKept       = "kept"        // nobody is at work on it
)

// ListTables lists the tables of all views, in the order of names, versions and generations.
func ListTables(ctx context.Context, pool *pgxpool.Pool) ([]Table, error) {
	rows, err := pool.Query(ctx, sqlListTables)
	if err != nil {
		return nil, fmt.Errorf("list the tables of views: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByName[Table])
	if err != nil {
		return nil, fmt.Errorf("list the tables of views: %w", err)
	}
	return tables, nil
}

// InUseError says why a table must not be dropped.
type InUseError struct{ Table, Reason string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s cannot be dropped: %s", e.Table, e.Reason)
}

// Drop drops a view's table that does not serve, and its checkpoints. One that serves, that a rebuild is at work on, or that
// a server keeps up to date is an *InUseError; a name that is not that of a view's table a *NoTableError. A reader that
// still has the table in a statement is waited for.
//
// The only table of a version newer than the one that serves is emptied instead, and can be filled anew: a migration made
// it, and none would make it again.
func Drop(ctx context.Context, pool *pgxpool.Pool, table string) (emptied bool, err error) {
	for {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
			emptied, err = drop(ctx, tx, table)
			return err
		})
		if err != nil && inTheWay(err) && ctx.Err() == nil {
			continue
		}
		return emptied && err == nil, err
	}
}

func drop(ctx context.Context, tx pgx.Tx, table string) (emptied bool, err error) {
	if _, err := tx.Exec(ctx, sqlLockTimeout); err != nil {
		return false, err
	}
	var serving string
	var exists, onlyNew bool
	err = tx.QueryRow(ctx, sqlLockViewOf, table).Scan(&serving, &exists, &onlyNew)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !exists {
		return false, &NoTableError{table, "no view has a table of this name"}
	}
	if err != nil {
		return false, fmt.Errorf("look up %s: %w", table, err)
	}
	if serving == table {
		return false, &InUseError{table, "it serves"}
	}
	var owner string
	var until time.Time
	err = tx.QueryRow(ctx, sqlAtWork, table).Scan(&owner, &until)
	if err == nil {
		return false, &InUseError{table, fmt.Sprintf("%s is at work on it, until %s at least", owner, until.UTC().Format(time.RFC3339))}
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("look who is at work on %s: %w", table, err)
	}
	sql := sqlDropTable
	if onlyNew {
		sql = sqlEmptyTable
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(sql, pgx.Identifier{table}.Sanitize())); err != nil {
		return false, fmt.Errorf("drop %s: %w", table, err)
	}
	return onlyNew, dropCheckpoint(ctx, tx, table)
}
