// Package migrations holds the schema and moves a database along it.
//
// There are two lines of SQL files, both embedded in the binary. The framework's line makes the log and what delivers
// it; the application's line makes the tables of views. Each line has its own numbers and its own version table, so that
// an upgrade of the framework never collides with the numbers of an application.
//
// Up and Down hold a lease on a row of the table migrations_lock while they work, so that several processes that
// start at once migrate one after the other. It is a table and no advisory lock, because advisory locks of a session
// fail behind a transaction pooler. Each file runs in a transaction of its own: a failure leaves the files before it
// applied and the failed one not. The package does not promise that a Down gives back what its Up destroyed.
//
// All functions may be called concurrently. Migrating opens up to three connections of its own beside those of the pool,
// because it needs a second one while it holds the first, and callers at once would take them from each other.
package migrations

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed framework application
var files embed.FS

// Line is one of the two sequences of migrations.
type Line string

// The two lines, in the order in which they are applied.
const (
	Framework   Line = "framework"
	Application Line = "application"
)

// ErrNothingApplied is returned by Down when no migration of the line is applied.
var ErrNothingApplied = errors.New("no migration of this line is applied")

// Migration is one numbered file of a line.
type Migration struct {
	Line      Line
	Version   int64
	File      string    // such as 00001_cart.sql
	AppliedAt time.Time // zero: not applied
}

func (m Migration) String() string { return string(m.Line) + "/" + m.File }

// Up applies what is missing, the framework's line first. When nothing is missing it only reads.
func Up(ctx context.Context, pool *pgxpool.Pool) error {
	pending, err := Pending(ctx, pool)
	if err != nil {
		return err
	}
	for _, line := range []Line{Framework, Application} {
		if !slices.ContainsFunc(pending, func(m Migration) bool { return m.Line == line }) {
			continue
		}
		err := withProvider(ctx, pool, line, func(p *goose.Provider) error {
			_, err := p.Up(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("applying the %s migrations: %w", line, err)
		}
	}
	return nil
}

// Down takes back the newest applied migration of a line and says which it was. The error is ErrNothingApplied when
// there is none.
func Down(ctx context.Context, pool *pgxpool.Pool, line Line) (Migration, error) {
	var undone Migration
	err := withProvider(ctx, pool, line, func(p *goose.Provider) error {
		result, err := p.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return ErrNothingApplied
		}
		if err != nil {
			return err
		}
		undone = Migration{Line: line, Version: result.Source.Version, File: path.Base(result.Source.Path)}
		return nil
	})
	if errors.Is(err, goose.ErrNoMigrations) {
		err = ErrNothingApplied
	}
	if err != nil {
		return Migration{}, fmt.Errorf("taking back a migration of the %s line: %w", line, err)
	}
	return undone, nil
}

// Status lists all migrations that this binary carries, in the order in which they are applied. It only reads, also
// in a database that has never been migrated.
func Status(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	var all []Migration
	for _, line := range []Line{Framework, Application} {
		carried, err := list(files, line)
		if err != nil {
			return nil, err
		}
		applied, err := applied(ctx, pool, line)
		if err != nil {
			return nil, fmt.Errorf("reading which %s migrations are applied: %w", line, err)
		}
		for i := range carried {
			carried[i].AppliedAt = applied[carried[i].Version]
		}
		all = append(all, carried...)
	}
	return all, nil
}

// Pending lists the migrations that this binary carries and the database has not applied. Migrations in the database
// which this binary does not know are no concern of it: an older binary may run beside a newer one.
func Pending(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	all, err := Status(ctx, pool)
	return slices.DeleteFunc(all, func(m Migration) bool { return !m.AppliedAt.IsZero() }), err
}

// list reads a line's files in the order of their numbers.
func list(from fs.FS, line Line) ([]Migration, error) {
	names, err := fs.Glob(from, string(line)+"/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing the %s migrations: %w", line, err)
	}
	migrations := make([]Migration, 0, len(names))
	for _, name := range names {
		file := path.Base(name)
		number, _, _ := strings.Cut(file, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the migration %s does not begin with a number and an underscore", name)
		}
		migrations = append(migrations, Migration{Line: line, Version: version, File: file})
	}
	slices.SortFunc(migrations, func(a, b Migration) int { return int(a.Version - b.Version) })
	return migrations, nil
}

func applied(ctx context.Context, pool *pgxpool.Pool, line Line) (map[int64]time.Time, error) {
	at := map[int64]time.Time{}
	var exists bool
	if err := pool.QueryRow(ctx, tableExistsSQL, line.table()).Scan(&exists); err != nil || !exists {
		return at, err
	}
	rows, err := pool.Query(ctx, line.appliedSQL())
	if err != nil {
		return nil, err
	}
	var version int64
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&version, &since}, func() error {
		at[version] = since
		return nil
	})
	return at, err
}

// table is the line's version table, which goose keeps.
func (l Line) table() string {
	if l == Framework {
		return "headrace_migrations"
	}
	return "application_migrations"
}

func (l Line) appliedSQL() string {
	if l == Framework {
		return frameworkAppliedSQL
	}
	return applicationAppliedSQL
}

// withProvider runs f with a goose provider for a line. For a line without files it is goose.ErrNoMigrations.
func withProvider(ctx context.Context, pool *pgxpool.Pool, line Line, f func(*goose.Provider) error) error {
	dir, err := fs.Sub(files, string(line))
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresTableLocker(
		lock.WithTableName("migrations_lock"),
		lock.WithTableLeaseDuration(30*time.Second),
		lock.WithTableHeartbeatInterval(5*time.Second),
		lock.WithTableLockTimeout(200*time.Millisecond, 600),
		lock.WithTableRetryPolicy(func(err error) bool {
			// A held lock is worth waiting for; a statement that Postgres refuses will be refused again.
			var refused *pgconn.PgError
			return !errors.As(err, &refused)
		}),
	)
	if err != nil {
		return err
	}
	config := pool.Config()
	config.MaxConns, config.MinConns, config.MinIdleConns = 3, 0, 0
	own, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer own.Close()
	db := stdlib.OpenDBFromPool(own)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, dir,
		goose.WithTableName(line.table()), goose.WithLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	return f(provider)
}

// Hash differs whenever a file of either line differs, in hexadecimal.
func Hash() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := files.ReadFile(name)
		fmt.Fprintf(sum, "%s\x00%d\x00%s", name, len(text), text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the migrations: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
