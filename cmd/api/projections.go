package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/queries"
)

type projectionsCommand struct {
	List     projectionsList     `cmd:"" help:"List the tables of all views: which serves, which are kept or half filled, and how large they are."`
	Status   projectionsStatus   `cmd:"" help:"List all checkpoints: how far they are, who works on them, and why any is halted or paused."`
	Rebuild  projectionsRebuild  `cmd:"" help:"Fill a new table of a view from the whole log beside the one that serves. Goes on with what was stopped."`
	Diff     projectionsDiff     `cmd:"" help:"Compare a filled table with the one that serves, at one position. Ends with 8 when they differ."`
	Switch   projectionsSwitch   `cmd:"" help:"Let a filled table serve, after bringing the rest over. The replaced one is kept."`
	Rollback projectionsRollback `cmd:"" help:"Let the table serve again that the last switch replaced."`
	Pause    projectionsPause    `cmd:"" help:"Bid a projection, policy or relay stand still until it is resumed."`
	Resume   projectionsResume   `cmd:"" help:"End a pause or a halt."`
	Drop     projectionsDrop     `cmd:"" help:"Drop a table that does not serve, and its checkpoints. The only one of a new version is emptied."`
}

// report is how a command prints what it found or did.
type report struct {
	JSON bool `name:"json" help:"Print JSON instead of text."`
}

// print writes a value as JSON, or as what text writes.
func (r report) print(out output, value any, text func() error) error {
	if r.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	}
	return text()
}

type projectionsList struct {
	Database
	report
}

func (p *projectionsList) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		tables, err := queries.ListTables(ctx, pool)
		if err != nil {
			return err
		}
		return p.print(out, tables, func() error {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "VIEW\tTABLE\tSTATE\tPOSITION\tBEHIND\tROWS\tSIZE")
			for _, t := range tables {
				state := t.State
				if t.Previous {
					state += ", a rollback's"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t~%d\t%s\n", t.View, t.Name, state, t.Position, max(0, t.Head-t.Position), t.Rows, size(t.Bytes))
			}
			return table.Flush()
		})
	})
}

// size is a number of bytes for people.
func size(bytes int64) string {
	value, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

type projectionsStatus struct {
	Database
	report
}

func (p *projectionsStatus) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		lags, err := queries.ReadLags(ctx, pool)
		if err != nil {
			return err
		}
		return p.print(out, lags, func() error {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "CHECKPOINT\tPOSITION\tBEHIND\tMS BEHIND\tPARKED\tOWNER\tSTATE")
			for _, s := range lags {
				state := strings.ToLower(string(s.State))
				if s.Reason != "" {
					state += ": " + s.Reason
				}
				fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\t%s\n", lagName(s), s.Position, s.EventsBehind, s.MillisecondsBehind, s.Parked, s.Owner, state)
			}
			return table.Flush()
		})
	})
}

// checkpointArgument names a checkpoint.
type checkpointArgument struct {
	Database
	report
	Checkpoint string `arg:"" help:"A checkpoint's name as projections status shows it, such as cart_v1, or a view."`
}

// changed is what pause, resume and drop print.
type changed struct {
	Checkpoint string `json:"checkpoint"`
	State      string `json:"state"`
}

func (c *checkpointArgument) change(
	ctx context.Context, out output, state string, f func(context.Context, *pgxpool.Pool) (string, error),
) error {
	return c.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := f(ctx, pool)
		if err != nil {
			return withCode(ctx, err)
		}
		return c.tellChange(out, changed{checkpoint, state})
	})
}

func (r report) tellChange(out output, now changed) error {
	return r.print(out, now, func() error {
		_, err := fmt.Fprintln(out, now.Checkpoint, "is", now.State)
		return err
	})
}

type projectionsPause struct {
	checkpointArgument
	By string `name:"by" help:"Who asks, as others will see it. Default: the user and host of this process."`
}

func (p *projectionsPause) Run(ctx context.Context, out output) error {
	return p.change(ctx, out, "paused", func(ctx context.Context, pool *pgxpool.Pool) (string, error) {
		return queries.Pause(ctx, pool, p.Checkpoint, or(p.By, operator()))
	})
}

// operator is the user and host of this process, as far as they are known.
func operator() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

type projectionsResume struct{ checkpointArgument }

func (p *projectionsResume) Run(ctx context.Context, out output) error {
	return p.change(ctx, out, "resumed", func(ctx context.Context, pool *pgxpool.Pool) (string, error) {
		return queries.Resume(ctx, pool, p.Checkpoint)
	})
}

type projectionsDrop struct {
	Database
	report
	Table string `arg:"" help:"The table's name as projections list shows it, such as cart_v1_2."`
}

func (p *projectionsDrop) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		emptied, err := queries.Drop(ctx, pool, p.Table)
		if err != nil {
			return withCode(ctx, err)
		}
		now := changed{p.Table, "dropped"}
		if emptied {
			now.State = "emptied"
		}
		return p.tellChange(out, now)
	})
}

// withCode gives those errors their exit codes that an operator's script may want to tell apart.
func withCode(ctx context.Context, err error) error {
	var unknown *queries.UnknownCheckpointError
	var table *queries.NoTableError
	var used *queries.InUseError
	var busy *queries.RebuildingError
	var poison *queries.PoisonError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown), errors.As(err, &table):
		return &exitError{exitUsage, err}
	case errors.As(err, &busy), errors.As(err, &used):
		return &exitError{exitBusy, err}
	case errors.As(err, &poison):
		return &exitError{exitPoison, err}
	case ctx.Err() != nil:
		return &exitError{exitStopped, fmt.Errorf("stopped as asked; what is done is kept, and the same command goes on with it: %w", err)}
	}
	return err
}
