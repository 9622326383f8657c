package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
)

// Inbox says what comes in from outside.
type Inbox struct {
	Topics []string      `name:"inbox-topics" env:"INBOX_TOPICS" placeholder:"TOPIC" help:"Topics of others to take messages from. Comma-separated; needs nats or kafka."`
	Keep   time.Duration `name:"inbox-keep" env:"INBOX_KEEP" default:"0" help:"How long the ids of handled messages are known. 0 for ever."`
}

func (i *Inbox) validate(shared bool) error {
	for _, topic := range i.Topics {
		if !slices.Contains(inboxTopics(), topic) {
			return fmt.Errorf("INBOX_TOPICS (--inbox-topics) holds %q, with whose messages nothing is done: give some of %s", topic, strings.Join(inboxTopics(), ", "))
		}
	}
	if len(i.Topics) > 0 && !shared {
		return errors.New("INBOX_TOPICS (--inbox-topics) is set, and no other program can send to BROKER=local: give BROKER=nats or kafka")
	}
	if i.Keep < 0 || (i.Keep > 0 && i.Keep < 24*time.Hour) {
		return fmt.Errorf("INBOX_KEEP (--inbox-keep) is %v: give 24h or more, or 0 for ever", i.Keep)
	}
	return nil
}

// takeIn works on the messages of the routes, and takes in those of the topics that are asked for.
func (a *app) takeIn(routes []outbox.InboxRoute) error {
	var broker pubSub
	var subscriber message.Subscriber
	if a.config.shared() && len(a.config.Topics) > 0 {
		var err error
		if broker, err = a.config.open(brokerUse{group: receiverGroup, foreign: true}, a.log); err != nil {
			return err
		}
		subscriber = broker
		a.brokers = append(a.brokers, broker)
	}
	inbox, err := outbox.NewInbox(a.pool, subscriber, a.config.Topics, outbox.InboxConfig{
		PollMax: switchPoll, Keep: a.config.Keep, Grace: a.config.DrainTimeout, Logger: a.log,
	}, routes...)
	if err != nil {
		return err
	}
	a.work("inbox", inbox.Run).first = true
	return nil
}

type inboxCommand struct {
	List    inboxList    `cmd:"" help:"List messages from outside, the oldest first: those that wait and those that are dead."`
	Show    inboxShow    `cmd:"" help:"Show a message as it came."`
	Retry   inboxRetry   `cmd:"" help:"Work on dead letters again, with all attempts anew."`
	Discard inboxDiscard `cmd:"" help:"Give dead letters up. Their ids stay known."`
	Send    inboxSend    `cmd:"" help:"Put a message into the inbox as if it had arrived."`
}

type inboxList struct {
	Database
	report
	Topic string   `name:"topic" help:"Only those of this topic."`
	State []string `name:"state" default:"waiting,dead" enum:"waiting,dead,handled" help:"waiting, dead, handled. Comma-separated."`
	Limit int      `name:"limit" default:"100" help:"How many of each state at most."`
}

func (l *inboxList) Run(ctx context.Context, out output) error {
	return l.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		all := []outbox.Received{} // [] and not null for machines
		for _, state := range l.State {
			some, err := outbox.ListReceived(ctx, pool, state, l.Topic, l.Limit)
			if err != nil {
				return err
			}
			all = append(all, some...)
		}
		return l.print(out, all, func() error {
			table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "TOPIC\tID\tSTATE\tATTEMPTS\tRECEIVED\tLAST ERROR")
			for _, r := range all {
				fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\n", r.Topic, plain(r.ID), r.State, r.Attempts, r.ReceivedAt.UTC().Format(time.RFC3339), plain(r.LastError))
			}
			return table.Flush()
		})
	})
}

// plain is a text of others for a terminal, which obeys control characters.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return utf8.RuneError
		}
		return r
	}, text)
}

type inboxShow struct {
	Database
	report
	Topic string `arg:"" help:"The message's topic."`
	ID    string `arg:"" name:"id" help:"Its id, as inbox list shows it."`
}

func (s *inboxShow) Run(ctx context.Context, out output) error {
	return s.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		r, err := outbox.ShowReceived(ctx, pool, s.Topic, s.ID)
		if errors.Is(err, outbox.ErrUnknownMessage) {
			return &exitError{exitFailed, fmt.Errorf("the inbox has no message %q of topic %s; see `api inbox list`", s.ID, s.Topic)}
		}
		if err != nil {
			return err
		}
		return s.print(out, r, func() error { return writeReceived(out, r) })
	})
}

// writeReceived writes a message with all that is known of it.
func writeReceived(out output, r outbox.Received) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "topic\t%s\nid\t%s\nstate\t%s\nattempts\t%d\nreceived\t%s\n", r.Topic, plain(r.ID), r.State, r.Attempts,
		r.ReceivedAt.UTC().Format(time.RFC3339))
	if r.State == outbox.ReceivedWaiting {
		fmt.Fprintf(table, "due\t%s\n", r.AvailableAt.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(table, "bytes\t%d\nlast error\t%s\n", r.Size, plain(r.LastError))
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		fmt.Fprintf(table, "header %s\t%s\n", plain(name), plain(r.Headers[name]))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	content := fmt.Sprintf("%q", r.Payload)
	if utf8.Valid(r.Payload) {
		content = plain(string(r.Payload))
	}
	_, err := fmt.Fprintf(out, "\n%s\n", content)
	return err
}

// chosenReceived names messages of a topic.
type chosenReceived struct {
	Database
	report
	Topic string   `arg:"" help:"The messages' topic."`
	IDs   []string `arg:"" name:"id" help:"Their ids, as inbox list shows them."`
}

func (c *chosenReceived) on(
	ctx context.Context, out output, done string, f func(context.Context, *pgxpool.Pool, string, ...string) (int64, error),
) error {
	return c.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		n, err := f(ctx, pool, c.Topic, c.IDs...)
		if err != nil {
			return err
		}
		err = c.print(out, map[string]any{done: n, "of": len(c.IDs)}, func() error {
			_, err := fmt.Fprintf(out, "%s %d of %d\n", done, n, len(c.IDs))
			return err
		})
		if n < int64(len(c.IDs)) {
			return errors.Join(err, errors.New("the others are no dead letters of this topic, or too large to be kept whole; see `api inbox list`"))
		}
		return err
	})
}

type inboxRetry struct{ chosenReceived }

func (r *inboxRetry) Run(ctx context.Context, out output) error {
	return r.on(ctx, out, "retrying", outbox.RetryReceived)
}

type inboxDiscard struct{ chosenReceived }

func (d *inboxDiscard) Run(ctx context.Context, out output) error {
	return d.on(ctx, out, "discarded", outbox.DiscardReceived)
}

type inboxSend struct {
	Database
	report
	Topic   string        `arg:"" help:"The topic that it is to have come on."`
	ID      string        `arg:"" name:"id" help:"Its id. One that is known has no second effect."`
	Payload string        `arg:"" name:"json" help:"Its content."`
	After   time.Duration `name:"after" help:"Not before this long from now."`
}

func (s *inboxSend) Run(ctx context.Context, out output) error {
	if !slices.Contains(inboxTopics(), s.Topic) {
		return &exitError{exitUsage, fmt.Errorf("nothing is done with messages on %q: give one of %s", s.Topic, strings.Join(inboxTopics(), ", "))}
	}
	if !json.Valid([]byte(s.Payload)) {
		return &exitError{exitUsage, fmt.Errorf("%q is no JSON", s.Payload)}
	}
	return s.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		known, err := outbox.SendReceived(ctx, pool, s.Topic, s.ID, []byte(s.Payload), s.After)
		if err != nil {
			return err
		}
		return s.print(out, map[string]any{"topic": s.Topic, "id": s.ID, "known": known}, func() error {
			what := "is in the inbox"
			if known {
				what = "was known, and has no second effect"
			}
			_, err := fmt.Fprintln(out, s.ID, what)
			return err
		})
	})
}
