package pgtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/migrations"
)

// templateLock is the advisory lock under which one of several test binaries makes the template. The server is a
// throwaway without a pooler, so a session's lock is safe here.
const templateLock = 0x68656164

const (
	lockTemplateSQL   = `select pg_advisory_lock($1)`
	databaseExistsSQL = `select exists (select from pg_database where datname = $1)`
)

// makeTemplate makes the migrated database that tests are cloned from, once per server and state of the migrations, and
// returns its name. Nobody can connect to it, so that it can always be copied.
func makeTemplate(ctx context.Context, adminURL string) (string, error) {
	hash, err := migrations.Hash()
	if err != nil {
		return "", err
	}
	name := "template_" + hash[:16]
	admin, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return "", fmt.Errorf("connecting to the test server: %w", err)
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, lockTemplateSQL, templateLock); err != nil {
		return "", err
	}
	var exists bool
	if err := admin.QueryRow(ctx, databaseExistsSQL, name).Scan(&exists); err != nil || exists {
		return name, err
	}
	// It gets its name when it is whole: what a killed run left behind is made anew.
	draft := name + "_draft"
	for _, statement := range []string{"drop database if exists " + draft + " with (force)", "create database " + draft} {
		if _, err := admin.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	if err := migrate(ctx, adminURL, draft); err != nil {
		return "", err
	}
	if _, err := admin.Exec(ctx, "alter database "+draft+" allow_connections false"); err != nil {
		return "", err
	}
	return name, whileInUse(ctx, admin, "alter database "+draft+" rename to "+name)
}

func migrate(ctx context.Context, adminURL, name string) error {
	target, err := withDatabase(adminURL, name)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, target)
	if err != nil {
		return err
	}
	defer pool.Close()
	return migrations.Up(ctx, pool)
}

func copyTemplate(ctx context.Context, admin *pgx.Conn, name, template string) error {
	if err := whileInUse(ctx, admin, "create database "+name+" template "+template); err != nil {
		return fmt.Errorf("cloning the template: %w", err)
	}
	return nil
}

// whileInUse repeats a statement on a database while others use that. Autovacuum may be in it for a moment, and a connection
// that was closed has a process until that is given a processor; Postgres itself waits 5 seconds for them.
func whileInUse(ctx context.Context, admin *pgx.Conn, sql string) error {
	for {
		_, err := admin.Exec(ctx, sql)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "55006" || ctx.Err() != nil { // object in use
			return err
		}
	}
}

func drop(adminURL, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	admin, err := pgx.Connect(ctx, adminURL)
	if err != nil {
		return fmt.Errorf("dropping the test's database: %w", err)
	}
	defer admin.Close(ctx)
	if err := whileInUse(ctx, admin, "drop database if exists "+name+" with (force)"); err != nil {
		return fmt.Errorf("dropping the test's database: %w", err)
	}
	return nil
}
