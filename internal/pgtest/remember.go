package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// sqlColumns are the tables with their columns, but for those that Postgres works out.
	sqlColumns = `
select c.relname, string_agg(quote_ident(a.attname), ', ' order by a.attnum)
from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
group by c.relname order by c.relname`

	// sqlElsewhere has the log say that it was written in another place than where it is.
	sqlElsewhere = `update log set timeline = timeline + 1000`
)

// Remember keeps what the database holds by now. The returned function puts all of it back at once, and has the log say that
// it was somewhere else: to those who are connected it is as after a failover to a standby that missed what came since,
// and whoever looks next raises the epoch of the log. It takes a moment, where servers of a test's own take seconds; and
// the connections go on. Other goroutines than the test's may call it.
func Remember(t testing.TB, pool *pgxpool.Pool) (loseTheRest func()) {
	t.Helper()
	rows, err := pool.Query(context.Background(), sqlColumns)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	columns := map[string]string{}
	var name, of string
	_, err = pgx.ForEachRow(rows, []any{&name, &of}, func() error { columns[name] = of; return nil })
	keep, back, tables := []string{`drop schema if exists remembered cascade`, `create schema remembered`}, []string{}, []string{}
	for name, of := range columns {
		table := pgx.Identifier{name}.Sanitize()
		tables = append(tables, table)
		keep = append(keep, fmt.Sprintf(`create table remembered.%s as select %s from %[1]s`, table, of))
		back = append(back, fmt.Sprintf(`delete from %s; insert into %[1]s (%s) select %[2]s from remembered.%[1]s`, table, of))
	}
	if err == nil {
		err = inTransaction(pool, keep...)
	}
	if err != nil {
		t.Fatalf("pgtest: remembering what the database holds: %v", err)
	}
	begin := []string{`set local session_replication_role = replica`, `lock table ` + strings.Join(tables, ", ") + ` in exclusive mode`}
	back = append(append(begin, back...), sqlElsewhere)
	return func() {
		t.Helper()
		err := inTransaction(pool, back...)
		for refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code == "40P01"; { // those who write lock in another order
			err = inTransaction(pool, back...)
		}
		if err != nil {
			t.Errorf("pgtest: putting back what the database held: %v", err)
		}
	}
}

func inTransaction(pool *pgxpool.Pool, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, strings.Join(statements, ";\n"), pgx.QueryExecModeSimpleProtocol)
		return err
	})
}
