package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// Metadata of a message from the outbox table, beside its headers. The message's UUID is its id in the table, by which
// receivers dedupe.
const (
	MetaKey       = "key"
	MetaAttempt   = "attempt"    // 1 at the first delivery
	MetaCreatedAt = "created_at" // when it was committed, RFC 3339
	MetaReturned  = "returned"   // how often a receiver has sent it back; absent: never
	// MetaClaim tells this delivery from all others of the message, and is the id by which a broker may drop a repeat: a
	// message that is delivered again is meant to come again.
	MetaClaim = "claim"
	// MetaHandedOut is how often a shared broker had handed the message to a receiver before that did not answer; absent:
	// never, or the broker does not say.
	MetaHandedOut = "handed_out"
)

// DispatcherConfig configures a Dispatcher. The zero value is ready for use.
type DispatcherConfig struct {
	// Workers is how many messages are published at a time. Default 16.
	Workers int
	// PublishTimeout bounds one Publish through the message's context. A message whose process died comes back this
	// long, and half as long again, after its claim. Default 20 s.
	PublishTimeout time.Duration
	// Attempts is how many deliveries are tried before the message is a dead letter. Default 10.
	Attempts int
	// Shared says that the publisher is a broker that keeps what it has acknowledged. What it does not take says nothing
	// about the message, which waits and is tried again without end, unless it is too large for the broker (ErrTooLarge);
	// Attempts is then how often receivers send a message back with Return before it is a dead letter.
	Shared bool
	// Topics are those whose messages are published; all others are left to the processes that know them. Default: all.
	Topics []string
	// RetryMin and RetryMax bound the time to the next attempt, which doubles with each. Defaults 1 s and 10 min.
	RetryMin, RetryMax time.Duration
	// PollMin and PollMax bound the time between two looks at the table while nothing is due. Commits of this process
	// are looked at once in PollMin. Defaults 25 ms and 1 s.
	PollMin, PollMax time.Duration
	// Grace is how long the messages in hand may go on when Run is to end. Then they are cut off, which counts as no
	// attempt. Default PublishTimeout, which is as long as one takes.
	Grace time.Duration
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c DispatcherConfig) withDefaults() DispatcherConfig {
	c.Workers = orDefault(c.Workers, 16)
	c.PublishTimeout = orDefault(c.PublishTimeout, 20*time.Second)
	c.Attempts = orDefault(c.Attempts, 10)
	c.RetryMin = orDefault(c.RetryMin, time.Second)
	c.RetryMax = orDefault(c.RetryMax, 10*time.Minute)
	c.PollMin = orDefault(c.PollMin, 25*time.Millisecond)
	c.PollMax = orDefault(c.PollMax, time.Second)
	c.Grace = orDefault(c.Grace, c.PublishTimeout)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Dispatcher publishes the messages of the outbox table when they are due, on the topic that each names: at least once,
// in no order. Any number of processes may run one. No transaction is open while a receiver works: a claimed message is
// hidden for a while, and comes back by itself when its process died.
//
// Nil from the publisher counts as delivery, so a publisher within the process must say nil only for what was
// acknowledged: use a Local with AwaitAck. With a broker that keeps what it acknowledged (Shared), delivery ends there, and
// Return is for the receivers on its other side.
type Dispatcher struct {
	pool      *pgxpool.Pool
	store     *eventstore.Store
	publisher message.Publisher
	cfg       DispatcherConfig
	away      bool // the broker took nothing the last time; for settle alone
}

// NewDispatcher makes a dispatcher, which Run starts.
func NewDispatcher(
	pool *pgxpool.Pool, store *eventstore.Store, publisher message.Publisher, cfg DispatcherConfig,
) *Dispatcher {
	return &Dispatcher{pool: pool, store: store, publisher: publisher, cfg: cfg.withDefaults()}
}

// claimed is a message in the hands of this process.
type claimed struct {
	id        uuid.UUID
	topic     string
	key       string
	payload   []byte
	headers   map[string]string
	attempt   int
	createdAt time.Time
	until     time.Time // when it comes back by itself, which no two claims of it have in common
	dead      bool      // its attempts were used up, so that it is in nobody's hands
	err       error     // of the publisher
	untried   bool      // it was cut off, or nobody was free to take it
}

// Run dispatches until ctx ends, waits for the publishers that it called, for Grace at most, records their outcome, and
// returns nil.
func (d *Dispatcher) Run(ctx context.Context) error {
	p := pump[claimed]{
		what: "outbox messages", workers: d.cfg.Workers, pollMin: d.cfg.PollMin, pollMax: d.cfg.PollMax,
		grace: d.cfg.Grace, log: d.cfg.Logger,
		next: func() <-chan struct{} {
			_, next := d.store.Committed()
			return next
		},
		due: func(ctx context.Context) (due float64, err error) {
			err = d.pool.QueryRow(ctx, sqlNextDue, d.cfg.Topics).Scan(&due)
			return due, err
		},
		claim: d.claim,
		work: func(ctx context.Context, m claimed) claimed {
			m.err = d.publish(ctx, m)
			m.untried = m.err != nil && (ctx.Err() != nil || errors.Is(m.err, ErrNotTaken))
			return m
		},
		settle: d.settle,
	}
	p.run(ctx)
	return nil
}

func (d *Dispatcher) claim(ctx context.Context, limit int) ([]claimed, error) {
	var b pgx.Batch
	b.Queue(sqlAsync)
	b.Queue(sqlClaim, limit, 1.5*d.cfg.PublishTimeout.Seconds(), d.limit(), noOutcome, d.cfg.Topics)
	results := d.pool.SendBatch(ctx, &b)
	defer results.Close()
	if _, err := results.Exec(); err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m claimed, err error) {
		err = row.Scan(&m.id, &m.topic, &m.key, &m.payload, &m.headers, &m.attempt, &m.createdAt, &m.until, &m.dead)
		return m, err
	})
	if err != nil {
		return nil, err
	}
	messages = slices.DeleteFunc(messages, func(m claimed) bool {
		if m.dead {
			d.cfg.Logger.Error("an outbox message is a dead letter", "id", m.id, "error", noOutcome)
		}
		return m.dead
	})
	return messages, results.Close()
}

func (d *Dispatcher) publish(ctx context.Context, m claimed) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the publisher panicked: %v", p)
		}
	}()
	bounded, cancel := context.WithTimeout(ctx, d.cfg.PublishTimeout)
	defer cancel()
	msg := message.NewMessageWithContext(bounded, m.id.String(), m.payload)
	for name, value := range m.headers {
		msg.Metadata.Set(name, value)
	}
	msg.Metadata.Set(MetaKey, m.key)
	msg.Metadata.Set(MetaAttempt, strconv.Itoa(m.attempt))
	msg.Metadata.Set(MetaCreatedAt, m.createdAt.UTC().Format(time.RFC3339Nano))
	msg.Metadata.Set(MetaClaim, m.until.UTC().Format(time.RFC3339Nano))
	return d.publisher.Publish(m.topic, msg)
}

// limit is how many attempts a message has: with a broker that is away, any number.
func (d *Dispatcher) limit() int {
	if d.cfg.Shared {
		return math.MaxInt32
	}
	return d.cfg.Attempts
}

func (d *Dispatcher) settle(ctx context.Context, batch []claimed) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.PublishTimeout/4)
	defer cancel()
	var delivered, failed struct {
		ids    []uuid.UUID
		claims []time.Time
	}
	var waits []float64
	var reasons []string
	var dead, untried []bool
	var refused error
	for _, m := range batch {
		if m.err == nil {
			delivered.ids, delivered.claims = append(delivered.ids, m.id), append(delivered.claims, m.until)
			continue
		}
		wait, tooLarge := d.backOff(m.attempt), errors.Is(m.err, ErrTooLarge)
		switch {
		case errors.Is(m.err, ErrNotTaken):
			d.cfg.Logger.Warn("no receiver was free to take an outbox message, which waits", "topic", m.topic, "id", m.id)
		case !m.untried && !tooLarge:
			refused = m.err
		}
		if m.untried {
			wait = 0
		}
		failed.ids, failed.claims = append(failed.ids, m.id), append(failed.claims, m.until)
		waits, reasons = append(waits, wait.Seconds()), append(reasons, eventstore.Reason(m.err.Error()))
		dead, untried = append(dead, !m.untried && (tooLarge || m.attempt >= d.limit())), append(untried, m.untried)
	}
	d.say(len(delivered.ids), refused)
	var b pgx.Batch
	b.Queue(sqlAsync)
	b.Queue(sqlDelivered, delivered.ids, delivered.claims)
	b.Queue(sqlFailed, failed.ids, failed.claims, waits, reasons, dead, untried).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id uuid.UUID
			if err := rows.Scan(&id); err != nil {
				return err
			}
			d.cfg.Logger.Error("an outbox message is a dead letter", "id", id)
		}
		return rows.Err()
	})
	return d.pool.SendBatch(ctx, &b).Close()
}

// say logs when a broker begins to take no messages, and when it takes them again. Those that wait are no failures that
// somebody would be told of one by one.
func (d *Dispatcher) say(delivered int, refused error) {
	switch {
	case !d.cfg.Shared:
	case refused != nil && !d.away:
		d.away = true
		d.cfg.Logger.Warn("the broker did not take outbox messages; they wait in the database", "error", refused)
	case refused == nil && delivered > 0 && d.away:
		d.away = false
		d.cfg.Logger.Info("the broker takes outbox messages again")
	}
}

// backOff is the time from a failed attempt to the next.
func (d *Dispatcher) backOff(attempt int) time.Duration {
	return backOff(attempt, d.cfg.RetryMin, d.cfg.RetryMax)
}
