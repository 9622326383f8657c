package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
)

type outboxCommand struct {
	Dead deadCommand `cmd:"" help:"Messages whose attempts are used up."`
}

type deadCommand struct {
	List    deadList    `cmd:"" help:"List dead letters, the oldest first."`
	Retry   deadRetry   `cmd:"" help:"Deliver dead letters again, with all attempts anew."`
	Discard deadDiscard `cmd:"" help:"Delete dead letters for good."`
}

type deadList struct {
	Database
	Limit int `name:"limit" default:"100" help:"How many at most."`
}

func (d *deadList) Run(ctx context.Context, out output) error {
	return d.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		letters, err := outbox.ListDead(ctx, pool, d.Limit)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tTOPIC\tKEY\tATTEMPTS\tDEAD SINCE\tLAST ERROR")
		for _, l := range letters {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", l.ID, l.Topic, l.Key, l.Attempts, l.DeadAt.UTC().Format(time.RFC3339), l.LastError)
		}
		return table.Flush()
	})
}

// chosenLetters names dead letters.
type chosenLetters struct {
	Database
	IDs []string `arg:"" name:"id" help:"Ids of the messages, as outbox dead list shows them."`
}

// on does something with the chosen dead letters and says with how many.
func (c *chosenLetters) on(
	ctx context.Context, out output, done string, f func(context.Context, *pgxpool.Pool, ...uuid.UUID) (int64, error),
) error {
	ids := make([]uuid.UUID, len(c.IDs))
	for i, text := range c.IDs {
		id, err := uuid.Parse(text)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("%q is no id of a message: %w", text, err)}
		}
		ids[i] = id
	}
	return c.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		n, err := f(ctx, pool, ids...)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %d of %d\n", done, n, len(ids))
		if n < int64(len(ids)) {
			return errors.New("the others are no dead letters; see `api outbox dead list`")
		}
		return nil
	})
}

type deadRetry struct{ chosenLetters }

func (d *deadRetry) Run(ctx context.Context, out output) error {
	return d.on(ctx, out, "retrying", outbox.RetryDead)
}

type deadDiscard struct{ chosenLetters }

func (d *deadDiscard) Run(ctx context.Context, out output) error {
	return d.on(ctx, out, "discarded", outbox.DiscardDead)
}
