package queries

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// index is one of a table's.
type index struct {
	how        string // what comes after USING: the method, the columns, and all else
	constraint string // that it stands for; empty: none
	unique     bool   // it keeps rows unique, or apart
}

// queryer is a pool or a transaction.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func indexesOf(ctx context.Context, db queryer, table string) ([]index, error) {
	rows, err := db.Query(ctx, sqlIndexes, table)
	if err != nil {
		return nil, fmt.Errorf("read the indexes of %s: %w", table, err)
	}
	var found []index
	var i index
	var definition string
	_, err = pgx.ForEachRow(rows, []any{&definition, &i.constraint, &i.unique}, func() error {
		_, i.how, _ = strings.Cut(definition, " USING ")
		found = append(found, i)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the indexes of %s: %w", table, err)
	}
	return found, nil
}

// createLike makes a generation's table like another one, with its storage options. A folded view's gets only those
// indexes that keep rows unique; its others are built after the load, which is several times as fast.
func createLike(ctx context.Context, tx pgx.Tx, p Projection, source string) error {
	var options string
	if err := tx.QueryRow(ctx, sqlTableOptions, source).Scan(&options); err != nil {
		return fmt.Errorf("read the options of %s: %w", source, err)
	}
	table := pgx.Identifier{p.Checkpoint()}.Sanitize()
	statements := []string{fmt.Sprintf(sqlCreateLike, table, pgx.Identifier{source}.Sanitize())}
	if options != "" {
		statements = append(statements, fmt.Sprintf(sqlSetOptions, table, options))
	}
	indexes, err := indexesOf(ctx, tx, source)
	if err != nil {
		return err
	}
	for _, i := range indexes {
		if i.unique || !p.folded {
			statements = append(statements, i.create(table))
		}
	}
	grants, err := grantsOf(ctx, tx, source, table)
	if err != nil {
		return err
	}
	for _, sql := range append(statements, grants...) {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("create %s: %w", table, err)
		}
	}
	return nil
}

// grantsOf are the statements that let all use a table who may use the source, such as the servers' role.
func grantsOf(ctx context.Context, db queryer, source, table string) ([]string, error) {
	rows, err := db.Query(ctx, sqlGrants, source)
	if err != nil {
		return nil, fmt.Errorf("read who may use %s: %w", source, err)
	}
	var statements []string
	var privilege, role string
	var grantable bool
	_, err = pgx.ForEachRow(rows, []any{&privilege, &role, &grantable}, func() error {
		sql := fmt.Sprintf(sqlGrant, table, privilege, role)
		if grantable {
			sql += " with grant option"
		}
		statements = append(statements, sql)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read who may use %s: %w", source, err)
	}
	return statements, nil
}

func (i index) create(table string) string {
	if i.constraint != "" {
		return fmt.Sprintf(sqlAddConstraint, table, i.constraint)
	}
	unique := ""
	if i.unique {
		unique = "unique "
	}
	return fmt.Sprintf(sqlCreateIndex, table, i.how, unique)
}

// buildIndexes makes those that the source has and the filled table lacks, and has the planner learn what is in it.
func (r *rebuild) buildIndexes(ctx context.Context, f *fill) (built bool, err error) {
	if f.source == "" {
		return false, nil
	}
	want, err := indexesOf(ctx, r.pool, f.source)
	if err != nil {
		return false, err
	}
	have, err := indexesOf(ctx, r.pool, f.p.Checkpoint())
	if err != nil {
		return false, err
	}
	table := pgx.Identifier{f.p.Checkpoint()}.Sanitize()
	for _, i := range want {
		at := slices.IndexFunc(have, func(other index) bool { return other.how == i.how && other.unique == i.unique })
		if at >= 0 {
			have = slices.Delete(have, at, at+1)
			continue
		}
		r.tell(RebuildProgress{
			View: f.p.Name, Checkpoint: f.p.Checkpoint(), Phase: PhaseIndex, Workers: len(f.workers),
			Position: f.position(), Head: f.position(), Events: f.events(),
		})
		if _, err := r.pool.Exec(ctx, i.create(table)); err != nil {
			return built, fmt.Errorf("build an index of %s: %w", f.p.Checkpoint(), err)
		}
		built = true
	}
	if !built {
		return false, nil
	}
	if _, err := r.pool.Exec(ctx, fmt.Sprintf(sqlAnalyze, table)); err != nil {
		return built, fmt.Errorf("analyze %s: %w", f.p.Checkpoint(), err)
	}
	return built, nil
}
