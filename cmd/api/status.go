package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
)

type statusCommand struct {
	Database
	report
}

// standing is what api status prints as JSON.
type standing struct {
	Well        bool          `json:"well"`
	Problems    []string      `json:"problems"` // empty when all is well
	Checkpoints []queries.Lag `json:"checkpoints"`
	Outbox      queue         `json:"outbox"`
	Inbox       queue         `json:"inbox"`
}

// queue is an outbox.Queue as JSON.
type queue struct {
	Due                int64 `json:"due"`
	Dead               int64 `json:"dead"`
	OldestMilliseconds int64 `json:"oldestMilliseconds"` // for how long the first has been due
}

// Run prints how everything stands. It fails when something stands still that should not, and when there are dead letters.
func (s *statusCommand) Run(ctx context.Context, out output) error {
	return s.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		lags, err := queries.ReadLags(ctx, pool)
		if err != nil {
			return err
		}
		backlog, err := outbox.ReadBacklog(ctx, pool)
		if err != nil {
			return err
		}
		now := standing{
			Problems: []string{}, Checkpoints: lags,
			Outbox: queueOf(backlog.Outbox), Inbox: queueOf(backlog.Inbox),
		}
		now.judge()
		if err := s.print(out, now, func() error { return now.write(out) }); err != nil {
			return err
		}
		if !now.Well {
			return errors.New("not all is well: " + strings.Join(now.Problems, "; "))
		}
		return nil
	})
}

func queueOf(q outbox.Queue) queue {
	return queue{Due: q.Due, Dead: q.Dead, OldestMilliseconds: q.Oldest.Milliseconds()}
}

// judge finds the problems.
func (s *standing) judge() {
	for _, lag := range s.Checkpoints {
		if lag.NeedsHelp() {
			s.Problems = append(s.Problems, lagName(lag)+" is "+strings.ToLower(string(lag.State)))
		}
		if lag.Parked > 0 && lag.State != queries.LagRetired { // nobody reads those of a table that does not serve
			s.Problems = append(s.Problems, fmt.Sprintf("%s: %d parked", lagName(lag), lag.Parked))
		}
	}
	if s.Outbox.Dead > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("outbox: %d dead", s.Outbox.Dead))
	}
	if s.Inbox.Dead > 0 {
		s.Problems = append(s.Problems, fmt.Sprintf("inbox: %d dead", s.Inbox.Dead))
	}
	s.Well = len(s.Problems) == 0
}

// lagName is the checkpoint's name, with the shard where there are several.
func lagName(lag queries.Lag) string {
	if lag.Shards < 2 {
		return lag.Name
	}
	return fmt.Sprintf("%s %d/%d", lag.Name, lag.Shard, lag.Shards)
}

func (s *standing) write(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECKPOINT\tKIND\tSTATE\tPOSITION\tBEHIND\tFOR\tPARKED\tOWNER\tWHY")
	for _, lag := range s.Checkpoints {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\n", lagName(lag), strings.ToLower(string(lag.Kind)),
			strings.ToLower(string(lag.State)), lag.Position, lag.EventsBehind,
			time.Duration(lag.MillisecondsBehind)*time.Millisecond, lag.Parked, lag.Owner, lag.Reason)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\noutbox: %s\ninbox: %s\n", s.Outbox, s.Inbox)
	return err
}

func (q queue) String() string {
	due := fmt.Sprintf("%d due", q.Due)
	if q.OldestMilliseconds > 0 {
		due += fmt.Sprintf(", the first for %s", time.Duration(q.OldestMilliseconds)*time.Millisecond)
	}
	return fmt.Sprintf("%s; %d dead", due, q.Dead)
}
