package outbox

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// DeadError says that a message is of no use to try again; see Dead.
type DeadError struct{ Err error }

func (e *DeadError) Error() string { return e.Err.Error() }
func (e *DeadError) Unwrap() error { return e.Err }

// Dead is the answer of a route to a message that it will never be able to handle: a *DeadError. Nil stays nil.
func Dead(err error) error {
	if err == nil {
		return nil
	}
	return &DeadError{Err: err}
}

// InboxRoute says what is done with the messages of one topic.
type InboxRoute struct {
	Topic string
	// Handle works on a message: at least once, in no order, and with others of its topic beside it. It is for commands
	// whose id is the message's, so that a repeat has no second effect. Nil: it is handled. A *DeadError: it is a dead
	// letter at once. Any other error: it is tried again.
	Handle func(ctx context.Context, m Incoming) error
}

// InboxConfig configures an Inbox. The zero value is ready for use.
type InboxConfig struct {
	// Workers is how many messages are worked on at a time. Default 16.
	Workers int
	// HandleTimeout bounds the work on one message through its context. A message whose process died comes back this
	// long, and half as long again, after its claim. Default 15 s.
	HandleTimeout time.Duration
	// Attempts is how often a message is tried before it is a dead letter. Default 10.
	Attempts int
	// RetryMin and RetryMax bound the time to the next attempt, which doubles with each. Defaults 1 s and 10 min.
	RetryMin, RetryMax time.Duration
	// PollMin and PollMax bound the time between two looks at the table while nothing is due. What arrives in this
	// process is looked at once in PollMin. Defaults 25 ms and 1 s.
	PollMin, PollMax time.Duration
	// Grace is how long the messages in hand may go on when Run is to end. Then they are cut off, which counts as no
	// attempt. Default HandleTimeout, which is as long as one takes.
	Grace time.Duration
	// MaxPayloadBytes, MaxHeaders and MaxHeaderBytes bound what a message may hold. One that holds more is a dead letter
	// of which so much is kept. Defaults 1 MiB, 64 and 16 KiB.
	MaxPayloadBytes, MaxHeaders, MaxHeaderBytes int
	// Keep is for how long the ids of handled messages are known. Default 0: for ever.
	Keep time.Duration
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c InboxConfig) withDefaults() InboxConfig {
	c.Workers = orDefault(c.Workers, 16)
	c.HandleTimeout = orDefault(c.HandleTimeout, 15*time.Second)
	c.Attempts = orDefault(c.Attempts, 10)
	c.RetryMin = orDefault(c.RetryMin, time.Second)
	c.RetryMax = orDefault(c.RetryMax, 10*time.Minute)
	c.PollMin = orDefault(c.PollMin, 25*time.Millisecond)
	c.PollMax = orDefault(c.PollMax, time.Second)
	c.Grace = orDefault(c.Grace, c.HandleTimeout)
	c.MaxPayloadBytes = orDefault(c.MaxPayloadBytes, 1<<20)
	c.MaxHeaders = orDefault(c.MaxHeaders, 64)
	c.MaxHeaderBytes = orDefault(c.MaxHeaderBytes, 16<<10)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Inbox takes messages of others in and sees that each has its effect once.
//
// A message is written to the inbox table as it came and only then acknowledged, so that none holds up its topic, and none
// is lost while Postgres is away: it is then not acknowledged. The table's key is topic and id: a message that comes again
// is known for ever, or for Keep, and dropped; one that comes with a known id and another content is a dead letter. From
// the table it is worked on by any process, tried again with growing pauses, and a dead letter after the last attempt.
//
// Between the effect of a message and the note that it was handled a process may die; then the message is worked on again.
// Its commands carry its id, so that they have no second effect as long as the event store keeps receipts.
type Inbox struct {
	pool       *pgxpool.Pool
	subscriber message.Subscriber
	routes     map[string]func(context.Context, Incoming) error
	topics     []string
	subscribed []string
	cfg        InboxConfig

	mu   sync.Mutex
	next chan struct{} // closed and replaced when something arrived in this process
}

// NewInbox makes an inbox, which Run starts. It works on the messages of all routes, and takes in those of the subscribed
// topics, which must have routes; a nil subscriber takes in none. It fails for a topic without a route, or with two.
func NewInbox(
	pool *pgxpool.Pool, subscriber message.Subscriber, subscribed []string, cfg InboxConfig, routes ...InboxRoute,
) (*Inbox, error) {
	in := &Inbox{
		pool: pool, subscriber: subscriber, subscribed: subscribed, cfg: cfg.withDefaults(),
		routes: make(map[string]func(context.Context, Incoming) error, len(routes)), next: make(chan struct{}),
	}
	for _, r := range routes {
		if in.routes[r.Topic] != nil {
			return nil, fmt.Errorf("topic %s has two routes", r.Topic)
		}
		in.routes[r.Topic] = r.Handle
		in.topics = append(in.topics, r.Topic)
	}
	for _, topic := range subscribed {
		if in.routes[topic] == nil {
			return nil, fmt.Errorf("topic %s has no route", topic)
		}
	}
	return in, nil
}

// Run takes messages in and works on them until ctx ends, waits for the handlers that it called, for Grace at most, and
// returns nil.
func (in *Inbox) Run(ctx context.Context) error {
	var taking sync.WaitGroup
	defer taking.Wait()
	if in.subscriber != nil {
		for _, topic := range in.subscribed {
			taking.Go(func() { in.subscribe(ctx, topic) })
		}
	}
	if in.cfg.Keep > 0 {
		taking.Go(func() { in.forget(ctx) })
	}
	p := pump[incoming]{
		what: "inbox messages", workers: in.cfg.Workers, pollMin: in.cfg.PollMin, pollMax: in.cfg.PollMax,
		grace: in.cfg.Grace, log: in.cfg.Logger,
		next: in.arrived,
		due: func(ctx context.Context) (due float64, err error) {
			err = in.pool.QueryRow(ctx, sqlInboxDue, in.topics).Scan(&due)
			return due, err
		},
		claim: in.claim,
		work: func(ctx context.Context, m incoming) incoming {
			m.err = in.handle(ctx, m)
			_, final := errors.AsType[*DeadError](m.err)
			m.untried = m.err != nil && !final && ctx.Err() != nil
			return m
		},
		settle: in.settle,
	}
	p.run(ctx)
	return nil
}

func (in *Inbox) arrived() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.next
}

func (in *Inbox) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.next)
	in.next = make(chan struct{})
}

// subscribe takes in the messages of a topic. What cannot be written down is not acknowledged, and tried until it can.
func (in *Inbox) subscribe(ctx context.Context, topic string) {
	retry := pace{least: 20 * time.Millisecond, most: 5 * time.Second}
	for ctx.Err() == nil {
		messages, err := in.subscriber.Subscribe(ctx, topic)
		if err != nil {
			if ctx.Err() == nil {
				in.cfg.Logger.Warn("subscribing failed; it is tried again", "topic", topic, "error", err)
			}
			retry.sleep(ctx)
			continue
		}
		retry.reset()
		for msg := range messages {
			again := pace{least: 20 * time.Millisecond, most: 5 * time.Second}
			err := in.Accept(ctx, topic, msg)
			for err != nil && msg.Context().Err() == nil {
				in.cfg.Logger.Warn("a message waits at the broker: it could not be written down", "topic", topic, "error", err)
				if !again.sleep(ctx) {
					break
				}
				err = in.Accept(ctx, topic, msg)
			}
			if err != nil {
				msg.Nack()
			} else {
				msg.Ack()
			}
		}
		retry.sleep(ctx)
	}
}

// Accept writes a message down. When it returns nil the message is safe, or was known; then it may be acknowledged.
func (in *Inbox) Accept(ctx context.Context, topic string, msg *message.Message) error {
	a := in.cfg.arrive(topic, msg)
	known, err := put(ctx, in.pool, a)
	if err != nil {
		return err
	}
	switch {
	case a.flaw != "" && !known:
		in.cfg.Logger.Error("a message from outside is a dead letter", "topic", topic, "id", a.id, "error", a.flaw)
	case known:
		in.cfg.Logger.Debug("a message from outside came again", "topic", topic, "id", a.id)
	}
	in.wake()
	return nil
}

// flawOtherContent is why a message is dead whose id came before with something else.
const flawOtherContent = "a message of this id came before with another content"

// put writes an arrival down unless it is known.
func put(ctx context.Context, pool *pgxpool.Pool, a arrival) (known bool, err error) {
	for {
		var inserted bool
		var digest []byte
		err := pool.QueryRow(ctx, sqlInboxPut, a.topic, a.id, a.digest, a.size, a.payload, a.headers, a.after.Seconds(), eventstore.Reason(a.flaw)).
			Scan(&inserted, &digest)
		switch {
		case err != nil:
			return false, fmt.Errorf("writing message %s of %s down: %w", a.id, a.topic, err)
		case inserted:
			return false, nil
		case digest == nil: // somebody wrote it down at the same time; now it is to be seen
			continue
		case bytes.Equal(digest, a.digest):
			return true, nil
		}
		a.id, a.flaw = a.id+"~"+hex.EncodeToString(a.digest[:8]), flawOtherContent
	}
}

// incoming is a message in the hands of this process.
type incoming struct {
	Incoming
	dead    bool  // its attempts were used up, so that it is in nobody's hands
	err     error // of the handler
	untried bool  // it was cut off
}

func (in *Inbox) claim(ctx context.Context, limit int) ([]incoming, error) {
	rows, err := in.pool.Query(ctx, sqlInboxClaim, limit, in.topics, 1.5*in.cfg.HandleTimeout.Seconds(), in.cfg.Attempts, noOutcome)
	if err != nil {
		return nil, err
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m incoming, err error) {
		err = row.Scan(&m.Topic, &m.ID, &m.Payload, &m.Headers, &m.Attempt, &m.ReceivedAt, &m.dead)
		return m, err
	})
	return slices.DeleteFunc(messages, func(m incoming) bool {
		if m.dead {
			in.cfg.Logger.Error("a message from outside is a dead letter", "topic", m.Topic, "id", m.ID, "error", noOutcome)
		}
		return m.dead
	}), err
}

func (in *Inbox) handle(ctx context.Context, m incoming) (err error) {
	defer func() {
		if p := recover(); p != nil {
			in.cfg.Logger.Error("a handler panicked", "topic", m.Topic, "id", m.ID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	event, data, _, err := readCloudEvent(m.Payload, m.Headers)
	if err != nil {
		return Dead(err)
	}
	m.Type, m.Data = event.Type, data
	bounded, cancel := context.WithTimeout(ctx, in.cfg.HandleTimeout)
	defer cancel()
	return in.routes[m.Topic](bounded, m.Incoming)
}

func (in *Inbox) settle(ctx context.Context, batch []incoming) error {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.HandleTimeout/4)
	defer cancel()
	var handled, failed struct{ topics, ids []string }
	var attempts []int
	var waits []float64
	var reasons []string
	var dead, untried []bool
	for _, m := range batch {
		if m.err == nil {
			handled.topics, handled.ids = append(handled.topics, m.Topic), append(handled.ids, m.ID)
			continue
		}
		_, final := errors.AsType[*DeadError](m.err)
		wait := backOff(m.Attempt, in.cfg.RetryMin, in.cfg.RetryMax)
		if m.untried {
			wait = 0
		}
		failed.topics, failed.ids = append(failed.topics, m.Topic), append(failed.ids, m.ID)
		attempts, waits = append(attempts, m.Attempt), append(waits, wait.Seconds())
		reasons, untried = append(reasons, eventstore.Reason(m.err.Error())), append(untried, m.untried)
		dead = append(dead, !m.untried && (final || m.Attempt >= in.cfg.Attempts))
	}
	var b pgx.Batch
	b.Queue(sqlInboxHandled, handled.topics, handled.ids)
	b.Queue(sqlInboxFailed, failed.topics, failed.ids, attempts, waits, reasons, dead, untried).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var topic, id, reason string
			if err := rows.Scan(&topic, &id, &reason); err != nil {
				return err
			}
			in.cfg.Logger.Error("a message from outside is a dead letter", "topic", topic, "id", id, "error", reason)
		}
		return rows.Err()
	})
	return in.pool.SendBatch(ctx, &b).Close()
}

// forget deletes, a part at a time, the ids of messages that were handled longer ago than they are to be kept.
func (in *Inbox) forget(ctx context.Context) {
	for pause(ctx, jitter(min(in.cfg.Keep, time.Minute))) {
		for ctx.Err() == nil {
			tag, err := in.pool.Exec(ctx, sqlInboxForget, in.cfg.Keep.Seconds(), 1000)
			if err != nil && ctx.Err() == nil {
				in.cfg.Logger.Warn("forgetting handled messages failed", "error", err)
			}
			if err != nil || tag.RowsAffected() < 1000 {
				break
			}
		}
	}
}
