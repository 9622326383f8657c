package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

type projectionsCommand struct {
	List    projectionsList    `cmd:"" help:"List all checkpoints: how far they are, who works on them, and why any is halted."`
	Rebuild projectionsRebuild `cmd:"" help:"Fill a view's table anew from the whole log and let it serve; readers see the old one until then."`
	Revert  projectionsRevert  `cmd:"" help:"Let the table serve again that a rebuild replaced."`
	Resume  projectionsResume  `cmd:"" help:"Let a halted projection or policy try again, after what halted it was mended."`
}

type projectionsList struct{ Database }

func (p *projectionsList) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		rows, err := pool.Query(ctx, checkpointsSQL)
		if err != nil {
			return fmt.Errorf("reading the checkpoints: %w", err)
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "CHECKPOINT\tPOSITION\tBEHIND\tOWNER\tSTATE")
		var name, owner, state string
		var position, behind int64
		_, err = pgx.ForEachRow(rows, []any{&name, &position, &behind, &owner, &state}, func() error {
			_, err := fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", name, position, behind, owner, state)
			return err
		})
		if err != nil {
			return fmt.Errorf("reading the checkpoints: %w", err)
		}
		return table.Flush()
	})
}

// viewArgument names a view.
type viewArgument struct {
	Database
	Name string `arg:"" help:"The view's name, such as cart."`
}

type refill func(context.Context, *pgxpool.Pool, *eventstore.Store, queries.Projection, func(done, head int64)) error

// refill runs a rebuild or a revert of the view and shows how far it is.
func (v *viewArgument) refill(ctx context.Context, out output, how refill) error {
	return v.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) (err error) {
		registry, err := newRegistry()
		if err != nil {
			return err
		}
		projections, err := newProjections(registry)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(projections, func(p queries.Projection) bool { return p.Name == v.Name })
		if at < 0 {
			names := make([]string, len(projections))
			for i, p := range projections {
				names[i] = p.Name
			}
			return &exitError{exitUsage, fmt.Errorf("there is no view %q; there are %s", v.Name, strings.Join(names, ", "))}
		}
		store, err := eventstore.Open(ctx, pool, registry, eventstore.Config{})
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
		if err := how(ctx, pool, store, projections[at], bar(os.Stderr)); err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s serves\n", v.Name)
		return err
	})
}

// bar draws how far a rebuild is on a terminal; in a log it would be noise.
func bar(to *os.File) func(done, head int64) {
	if !term.IsTerminal(int(to.Fd())) {
		return nil
	}
	var drawn *progressbar.ProgressBar
	return func(done, head int64) {
		if drawn == nil {
			drawn = progressbar.NewOptions64(head, progressbar.OptionSetWriter(io.Writer(to)), progressbar.OptionSetDescription("events"),
				progressbar.OptionShowIts(), progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish())
		}
		drawn.ChangeMax64(max(head, 1))
		// What cannot be drawn is not worth a failed rebuild.
		_ = drawn.Set64(done)
	}
}

type projectionsRebuild struct{ viewArgument }

func (p *projectionsRebuild) Run(ctx context.Context, out output) error {
	return p.refill(ctx, out, queries.Rebuild)
}

type projectionsRevert struct{ viewArgument }

func (p *projectionsRevert) Run(ctx context.Context, out output) error {
	return p.refill(ctx, out, queries.Revert)
}

type projectionsResume struct {
	Database
	Checkpoint string `arg:"" help:"The checkpoint's name as projections list shows it, such as cart_v1."`
}

func (p *projectionsResume) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		tag, err := pool.Exec(ctx, resumeSQL, p.Checkpoint)
		if err != nil {
			return fmt.Errorf("resuming %s: %w", p.Checkpoint, err)
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("no checkpoint %q is halted; see `api projections list`", p.Checkpoint)
		}
		_, err = fmt.Fprintf(out, "%s goes on\n", p.Checkpoint)
		return err
	})
}
