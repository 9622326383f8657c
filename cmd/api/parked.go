package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
)

type parkedCommand struct {
	List    parkedList    `cmd:"" help:"List the streams whose events wait since one of them could not be handled, the longest parked first."`
	Show    parkedShow    `cmd:"" help:"Show why a stream is parked, and the events that wait."`
	Retry   parkedRetry   `cmd:"" help:"Have what waits tried again, in order: of a stream, of a checkpoint, or all there is."`
	Skip    parkedSkip    `cmd:"" help:"Pass over the first event that waits of a stream, for good, and go on with the others."`
	Skipped parkedSkipped `cmd:"" help:"List the events that were passed over, the newest first."`
}

type parkedList struct {
	Database
	report
	Checkpoint string `arg:"" optional:"" help:"Only of this view, or checkpoint such as cart_v1."`
	Limit      count  `name:"limit" default:"100" help:"How many at most."`
}

func (p *parkedList) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := checkpointNamed(ctx, pool, p.Checkpoint)
		if err != nil {
			return err
		}
		found, err := outbox.ListParked(ctx, pool, checkpoint, int(p.Limit))
		if err != nil {
			return err
		}
		return p.print(out, found, func() error {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "CHECKPOINT\tSTREAM\tPOSITION\tTYPE\tWAITING\tATTEMPTS\tPARKED SINCE\tREASON")
			for _, s := range found {
				fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\n", s.Checkpoint, s.Stream, s.Position, s.Type, s.Waiting, s.Attempts,
					s.ParkedAt.UTC().Format(time.RFC3339), firstLine(s.Reason))
			}
			return table.Flush()
		})
	})
}

// checkpointNamed is the checkpoint of what an operator named: a view stands for that of its serving table.
func checkpointNamed(ctx context.Context, pool *pgxpool.Pool, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	checkpoint, err := queries.CheckpointNamed(ctx, pool, name)
	return checkpoint, withCode(ctx, err)
}

func firstLine(text string) string {
	line, rest, cut := strings.Cut(text, "\n")
	if cut && rest != "" {
		line += " …"
	}
	return line
}

// parkedStream names a parked stream.
type parkedStream struct {
	Database
	report
	Checkpoint string `arg:"" help:"The view, or checkpoint such as cart_v1."`
	Stream     string `arg:"" help:"The stream."`
}

type parkedShow struct {
	parkedStream
	Limit count `name:"limit" default:"20" help:"How many events at most."`
	Bytes int   `name:"data" default:"400" help:"How many characters of each event's data at most."`
}

// parkedEvents is what api parked show prints as JSON.
type parkedEvents struct {
	outbox.Parked
	Events []outbox.Waiting `json:"events"` // the first of them
}

func (p *parkedShow) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := checkpointNamed(ctx, pool, p.Checkpoint)
		if err != nil {
			return err
		}
		s, found, err := outbox.FindParked(ctx, pool, checkpoint, p.Stream)
		if err != nil {
			return err
		}
		if !found {
			return notParked(checkpoint, p.Stream)
		}
		events, err := outbox.ListWaiting(ctx, pool, checkpoint, p.Stream, p.Bytes, int(p.Limit))
		if err != nil {
			return err
		}
		return p.print(out, parkedEvents{s, events}, func() error {
			fmt.Fprintf(out, "%s of %s is parked since %s, tried %d times, the last time at %s\n\n%s\n\n%d events wait up to position %d:\n",
				s.Stream, s.Checkpoint, s.ParkedAt.UTC().Format(time.RFC3339), s.Attempts, s.TriedAt.UTC().Format(time.RFC3339),
				s.Reason, s.Waiting, s.Reached)
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			for _, e := range events {
				more := ""
				if e.Cut {
					more = " …"
				}
				fmt.Fprintf(table, "%d\t%s\t%s\t%s%s\n", e.Position, e.RecordedAt.UTC().Format(time.RFC3339), e.Type, e.Data, more)
			}
			return table.Flush()
		})
	})
}

func notParked(checkpoint, stream string) error {
	return &exitError{exitUsage, fmt.Errorf("%s is not parked in %s; see `api parked list`", stream, checkpoint)}
}

// asking is how a command asks owners for something and waits for what comes of it.
type asking struct {
	By   string        `name:"by" help:"Who asks, as others will see it. Default: the user and host of this process."`
	Wait time.Duration `name:"wait" default:"10s" help:"How long to wait for the owner to do it. It is done all the same afterwards."`
}

// What came of a request.
const (
	outcomeHandled = "handled" // nothing waits any more
	outcomeParked  = "parked"  // an event could not be handled
	outcomeAsked   = "asked"   // it is not done yet
)

// outcome is what came of a request, as it is printed.
type outcome struct {
	Checkpoint string `json:"checkpoint"`
	Stream     string `json:"stream"`
	Outcome    string `json:"outcome"`
	Position   int64  `json:"position,omitempty"` // of the first event that waits
	Attempts   int    `json:"attempts,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Owner      string `json:"owner,omitempty"` // who is to do it
}

func (o outcome) String() string {
	switch o.Outcome {
	case outcomeHandled:
		return fmt.Sprintf("%s of %s is parked no more", o.Stream, o.Checkpoint)
	case outcomeParked:
		return fmt.Sprintf("%s of %s is parked at position %d: %s", o.Stream, o.Checkpoint, o.Position, firstLine(o.Reason))
	case outcomeAsked:
		if o.Owner == "" {
			return fmt.Sprintf("%s of %s: nobody works on %s; it is done when somebody does", o.Stream, o.Checkpoint, o.Checkpoint)
		}
	}
	return fmt.Sprintf("%s of %s: %s is asked and has not done it yet", o.Stream, o.Checkpoint, o.Owner)
}

// await looks until all that was asked is done, or the time is over, and returns what came of each.
func (a asking) await(ctx context.Context, pool *pgxpool.Pool, asked []outbox.Asked) ([]outcome, error) {
	waiting, cancel := context.WithTimeout(ctx, a.Wait)
	defer cancel()
	out := make([]outcome, len(asked))
	for i := 0; i < len(asked); {
		o, err := lookAt(ctx, pool, asked[i])
		if err != nil {
			return nil, err
		}
		out[i] = o
		if o.Outcome != outcomeAsked {
			i++
			continue
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			i++
		}
	}
	return out, nil
}

func lookAt(ctx context.Context, pool *pgxpool.Pool, asked outbox.Asked) (outcome, error) {
	o := outcome{Checkpoint: asked.Checkpoint, Stream: asked.Stream, Outcome: outcomeHandled}
	s, parked, err := outbox.FindParked(ctx, pool, asked.Checkpoint, asked.Stream)
	if err != nil || !parked {
		return o, err
	}
	o.Position, o.Attempts, o.Reason, o.Owner = s.Position, s.Attempts, s.Reason, s.Owner
	if o.Outcome = outcomeParked; s.Requested != "" {
		o.Outcome = outcomeAsked
	}
	return o, nil
}

type parkedRetry struct {
	Database
	report
	asking
	Checkpoint string `arg:"" optional:"" help:"The view, or checkpoint such as cart_v1."`
	Stream     string `arg:"" optional:"" help:"The stream; all of the checkpoint when there is none."`
	All        bool   `name:"all" help:"All streams of all checkpoints."`
}

func (p *parkedRetry) Run(ctx context.Context, out output) error {
	if p.All == (p.Checkpoint != "") {
		return &exitError{exitUsage, errors.New("say which checkpoint, or --all")}
	}
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := checkpointNamed(ctx, pool, p.Checkpoint)
		if err != nil {
			return err
		}
		asked, err := outbox.RetryParked(ctx, pool, checkpoint, p.Stream, or(p.By, operator()))
		if err != nil {
			return err
		}
		if len(asked) == 0 && p.Stream != "" {
			return p.whyNot(ctx, pool, checkpoint, p.Stream)
		}
		outcomes, err := p.await(ctx, pool, asked)
		if err != nil {
			return err
		}
		left := 0
		for _, o := range outcomes {
			if o.Outcome != outcomeHandled {
				left++
			}
		}
		if err := p.tell(out, outcomes); err != nil {
			return err
		}
		if left > 0 {
			return fmt.Errorf("%d of %d streams wait still", left, len(outcomes))
		}
		return p.othersAsked(ctx, pool, checkpoint)
	})
}

// othersAsked is an error when something is parked that was asked for before, and is not done yet.
func (asking) othersAsked(ctx context.Context, pool *pgxpool.Pool, checkpoint string) error {
	waits, err := outbox.CountAsked(ctx, pool, checkpoint)
	if err != nil || waits == 0 {
		return err
	}
	return &exitError{exitBusy, fmt.Errorf("%d streams were asked for before and are not done yet; see `api parked list`", waits)}
}

// report prints outcomes.
func (r report) tell(out output, outcomes []outcome) error {
	return r.print(out, outcomes, func() error {
		if len(outcomes) == 0 {
			fmt.Fprintln(out, "nothing is parked that is not asked for already")
		}
		for _, o := range outcomes {
			fmt.Fprintln(out, o)
		}
		return nil
	})
}

// whyNot says why nothing was asked of a stream.
func (asking) whyNot(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream string) error {
	s, found, err := outbox.FindParked(ctx, pool, checkpoint, stream)
	switch {
	case err != nil:
		return err
	case !found:
		return notParked(checkpoint, stream)
	}
	return &exitError{exitBusy, fmt.Errorf("a %s of %s is asked for already and not done yet; the owner is %q", s.Requested, stream, s.Owner)}
}

type parkedSkip struct {
	parkedStream
	asking
	Reason string `name:"reason" required:"" help:"Why the event may be missing, for those who come later."`
}

func (p *parkedSkip) Run(ctx context.Context, out output) error {
	if strings.TrimSpace(p.Reason) == "" {
		return &exitError{exitUsage, errors.New("--reason says nothing")}
	}
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := checkpointNamed(ctx, pool, p.Checkpoint)
		if err != nil {
			return err
		}
		asked, err := outbox.SkipParked(ctx, pool, checkpoint, p.Stream, or(p.By, operator()), p.Reason)
		if err != nil {
			return err
		}
		if len(asked) == 0 {
			return p.whyNot(ctx, pool, checkpoint, p.Stream)
		}
		outcomes, err := p.await(ctx, pool, asked)
		if err != nil {
			return err
		}
		if err := p.tell(out, outcomes); err != nil {
			return err
		}
		if outcomes[0].Outcome == outcomeAsked {
			return errors.New("the event is not skipped yet")
		}
		return nil
	})
}

type parkedSkipped struct {
	Database
	report
	Checkpoint string `arg:"" optional:"" help:"Only of this view, or checkpoint such as cart_v1."`
	Limit      count  `name:"limit" default:"100" help:"How many at most."`
}

func (p *parkedSkipped) Run(ctx context.Context, out output) error {
	return p.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		checkpoint, err := checkpointNamed(ctx, pool, p.Checkpoint)
		if err != nil {
			return err
		}
		found, err := outbox.ListSkipped(ctx, pool, checkpoint, int(p.Limit))
		if err != nil {
			return err
		}
		return p.print(out, found, func() error {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "CHECKPOINT\tPOSITION\tSTREAM\tTYPE\tBY\tAT\tREASON")
			for _, s := range found {
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", s.Checkpoint, s.Position, s.Stream, s.Type, s.By,
					s.At.UTC().Format(time.RFC3339), firstLine(s.Reason))
			}
			return table.Flush()
		})
	})
}
