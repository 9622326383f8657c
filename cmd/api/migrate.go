package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/migrations"
)

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Apply what is missing: the framework's migrations, then the application's."`
	Down   migrateDown   `cmd:"" help:"Take back the application's newest migration, and only that."`
	Status migrateStatus `cmd:"" help:"List all migrations and when they were applied. Ends with 3 when any is missing."`
	Create migrateCreate `cmd:"" help:"Write the next file of the application's migrations."`
}

// within runs f on the open database and closes that.
func (d *Database) within(ctx context.Context, f func(*pgxpool.Pool, *slog.Logger) error) error {
	log := d.logger()
	c, err := d.connect(ctx, log)
	if err != nil {
		return err
	}
	return errors.Join(f(c.pool, log), c.close())
}

type migrateUp struct{ Database }

func (m *migrateUp) Run(ctx context.Context, out output) error {
	return m.directly().within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		pending, err := migrations.Pending(ctx, pool)
		if err != nil {
			return err
		}
		if err := migrations.Up(ctx, pool); err != nil {
			return err
		}
		for _, migration := range pending {
			fmt.Fprintln(out, "applied", migration)
		}
		fmt.Fprintln(out, "the database is migrated")
		return nil
	})
}

type migrateDown struct {
	Database
	Line string `name:"line" default:"application" enum:"application,framework" help:"Whose newest migration to take back: application or framework. The framework's first migration is the log itself."`
}

func (m *migrateDown) Run(ctx context.Context, out output) error {
	return m.directly().within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		undone, err := migrations.Down(ctx, pool, migrations.Line(m.Line))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, "took back", undone)
		return err
	})
}

type migrateStatus struct{ Database }

func (m *migrateStatus) Run(ctx context.Context, out output) error {
	return m.directly().within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		all, err := migrations.Status(ctx, pool)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		missing := 0
		for _, migration := range all {
			applied := migration.AppliedAt.UTC().Format(time.RFC3339)
			if migration.AppliedAt.IsZero() {
				applied = "missing"
				missing++
			}
			fmt.Fprintf(table, "%s\t%s\n", migration, applied)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		return notMigrated(missing)
	})
}

// notMigrated is the error for so many missing migrations; nil for none.
func notMigrated(missing int) error {
	if missing == 0 {
		return nil
	}
	return &exitError{exitNotMigrated, fmt.Errorf("the database is %d migrations behind: run `api migrate up`", missing)}
}

type migrateCreate struct {
	Name string `arg:"" help:"What it does, in a few words: add_wishlist."`
	Dir  string `name:"dir" default:"migrations" type:"existingdir" help:"The folder with both lines of migrations."`
}

func (m *migrateCreate) Run(out output) error {
	file, err := migrations.Create(m.Dir, m.Name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, file)
	return err
}
