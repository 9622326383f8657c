package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
)

type checkpointsCommand struct {
	Rewind checkpointsRewind `cmd:"" help:"Move the checkpoint of a policy or a relay. What follows the position is handed over again, what lies before it to nobody."`
}

type checkpointsRewind struct {
	Database
	Name string `arg:"" help:"Of the checkpoint, as api status shows it."`
	To   string `name:"to" required:"" placeholder:"POSITION" help:"A position of the log, or head."`
	Yes  bool   `name:"yes" help:"Do it: whoever is told by this checkpoint knows repeats, and can do without what is left out."`
}

// Run says what would be repeated or left out, and does it when it was told to.
func (c *checkpointsRewind) Run(ctx context.Context, out output) error {
	return c.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		to, at, err := c.positions(ctx, pool)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("%s is at %d", c.Name, at)
		switch {
		case to < at:
			what += fmt.Sprintf("; events %d to %d are handed over again, as far as the log has them", to+1, at)
		case to > at:
			what += fmt.Sprintf("; events %d to %d are left out", at+1, to)
		}
		if !c.Yes {
			return &exitError{exitUsage, errors.New(what + ": say --yes to do it")}
		}
		if err := outbox.Rewind(ctx, pool, c.Name, to); err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s; now it is at %d\n", what, to)
		return err
	})
}

// positions are where the checkpoint is to be and where it is.
func (c *checkpointsRewind) positions(ctx context.Context, pool *pgxpool.Pool) (to, at int64, err error) {
	tables, err := queries.ListTables(ctx, pool)
	if err != nil {
		return 0, 0, err
	}
	for _, t := range tables {
		if t.Name == c.Name {
			return 0, 0, &exitError{exitUsage, fmt.Errorf("%s is a projection, whose table a rewind would make wrong: api projections rebuild %s", c.Name, t.View)}
		}
	}
	all, err := outbox.JudgeCheckpoints(ctx, pool)
	if err != nil {
		return 0, 0, err
	}
	for _, one := range all {
		if one.Name != c.Name {
			continue
		}
		if to = one.Head; c.To != "head" {
			if to, err = strconv.ParseInt(c.To, 10, 64); err != nil || to < 0 || to > one.Head {
				return 0, 0, &exitError{exitUsage, fmt.Errorf("--to is %q: give a position up to %d, or head", c.To, one.Head)}
			}
		}
		return to, one.Position, nil
	}
	return 0, 0, &exitError{exitUsage, fmt.Errorf("%s: %w", c.Name, outbox.ErrNoCheckpoint)}
}
