package migrations_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/migrations"
)

// empty is a pool on a database without any migration.
func empty(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t)
	if _, err := pool.Exec(t.Context(), "drop schema public cascade; create schema public"); err != nil {
		t.Fatal(err)
	}
	return pool
}

// shape lists the tables, columns, indexes and constraints of the database.
func shape(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `
		select format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod))
		from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'public' and a.attnum > 0 and not a.attisdropped
		union all select indexdef from pg_indexes where schemaname = 'public'
		union all select conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace
		union all select proname from pg_proc where pronamespace = 'public'::regnamespace
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// without drops the lines that speak of the tables which migrating itself needs.
func without(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		return strings.Contains(line, "_migrations") || strings.Contains(line, "migrations_lock")
	})
}

func up(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
}

func status(t *testing.T, pool *pgxpool.Pool) []migrations.Migration {
	t.Helper()
	all, err := migrations.Status(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func pending(t *testing.T, pool *pgxpool.Pool) int {
	t.Helper()
	missing, err := migrations.Pending(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	return len(missing)
}

func TestStatusOnlyReads(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	all := status(t, pool)
	if len(all) < 3 || pending(t, pool) != len(all) {
		t.Errorf("an empty database has %d of %d pending", pending(t, pool), len(all))
	}
	lines := make([]migrations.Line, len(all))
	for i, m := range all {
		lines[i] = m.Line
	}
	first := slices.Index(lines, migrations.Application)
	if first <= 0 || slices.Contains(lines[first:], migrations.Framework) {
		t.Errorf("the lines are mixed: %v", all)
	}
	if made := shape(t, pool); len(made) > 0 {
		t.Errorf("looking made %v", made)
	}
}

func TestUpTwiceIsUpOnce(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	up(t, pool)
	first := status(t, pool)
	up(t, pool)
	if again := status(t, pool); !slices.Equal(first, again) {
		t.Errorf("the second run changed\n%v to\n%v", first, again)
	}
	if n := pending(t, pool); n != 0 {
		t.Errorf("%d are pending", n)
	}
}

func TestProcessesThatStartAtOnceMigrateOnce(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := migrations.Up(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := pending(t, pool); n != 0 {
		t.Errorf("%d are pending", n)
	}
	var locked bool
	if err := pool.QueryRow(t.Context(), "select bool_or(locked) from migrations_lock").Scan(&locked); err != nil || locked {
		t.Errorf("the lock is still held: %v", err)
	}
}

func TestDownTakesBackTheApplicationsNewest(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	up(t, pool)
	all := status(t, pool)
	undone, err := migrations.Down(t.Context(), pool, migrations.Application)
	if err != nil {
		t.Fatal(err)
	}
	if last := all[len(all)-1]; undone.String() != last.String() {
		t.Errorf("took back %v, the newest is %v", undone, last)
	}
	if n := pending(t, pool); n != 1 {
		t.Errorf("%d are pending", n)
	}
}

func TestEveryDownUndoesItsUp(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	up(t, pool)
	full := shape(t, pool)
	for _, line := range []migrations.Line{migrations.Application, migrations.Framework} {
		for {
			_, err := migrations.Down(t.Context(), pool, line)
			if errors.Is(err, migrations.ErrNothingApplied) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := without(shape(t, pool)); len(left) > 0 {
		t.Errorf("after all downs there is still\n%s", strings.Join(left, "\n"))
	}
	up(t, pool)
	if again := shape(t, pool); !slices.Equal(full, again) {
		t.Errorf("up, down and up again gives\n%s\nnot\n%s", strings.Join(again, "\n"), strings.Join(full, "\n"))
	}
}

func TestAFailureSaysWhichMigration(t *testing.T) {
	t.Parallel()
	pool := empty(t)
	if _, err := pool.Exec(t.Context(), "create table outbox (in_the_way int)"); err != nil {
		t.Fatal(err)
	}
	err := migrations.Up(t.Context(), pool)
	if err == nil || !strings.Contains(err.Error(), "framework") || !strings.Contains(err.Error(), "outbox") {
		t.Errorf("the error is %v", err)
	}
	if _, err := pool.Exec(t.Context(), "drop table outbox"); err != nil {
		t.Fatal(err)
	}
	up(t, pool) // what was applied before the failure is kept, and the lock is free
}

func TestCreateWritesTheNextFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := migrations.Create(dir, "too early"); err == nil {
		t.Error("a file was made in a folder that holds no migrations")
	}
	if err := os.Mkdir(filepath.Join(dir, "application"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ name, file string }{
		{"wishlist", "00001_wishlist.sql"},
		{"Add: price, to the wish-list", "00002_add_price_to_the_wish_list.sql"},
		{"../../etc/passwd", "00003_etc_passwd.sql"},
	} {
		file, err := migrations.Create(dir, want.name)
		if err != nil || file != filepath.Join(dir, "application", want.file) {
			t.Errorf("%q becomes %s, %v", want.name, file, err)
		}
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), "-- +goose Up") || !strings.Contains(string(text), "-- +goose Down") {
			t.Errorf("%s holds %q, %v", file, text, err)
		}
	}
	if _, err := migrations.Create(dir, "--"); err == nil {
		t.Error("a migration without a name was made")
	}
}

func TestHashIsOfAllFiles(t *testing.T) {
	t.Parallel()
	first, err := migrations.Hash()
	if err != nil || len(first) != 64 {
		t.Errorf("the hash is %q, %v", first, err)
	}
}
