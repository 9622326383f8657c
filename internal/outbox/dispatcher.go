package outbox

import (
	"context"
	"fmt"
	"log/slog"
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
	// RetryMin and RetryMax bound the time to the next attempt, which doubles with each. Defaults 1 s and 10 min.
	RetryMin, RetryMax time.Duration
	// PollMin and PollMax bound the time between two looks at the table while nothing is due. Commits of this process
	// are looked at once in PollMin. Defaults 25 ms and 1 s.
	PollMin, PollMax time.Duration
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
// acknowledged: use a Local with AwaitAck. With a broker that keeps what it acknowledged, delivery ends there, and Return
// is for the receivers on its other side.
type Dispatcher struct {
	pool      *pgxpool.Pool
	store     *eventstore.Store
	publisher message.Publisher
	cfg       DispatcherConfig
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
}

// Run dispatches until ctx ends, waits for the publishers that it called, records their outcome, and returns nil.
func (d *Dispatcher) Run(ctx context.Context) error {
	p := pump[claimed]{
		what: "outbox messages", workers: d.cfg.Workers, pollMin: d.cfg.PollMin, pollMax: d.cfg.PollMax, log: d.cfg.Logger,
		next: func() <-chan struct{} {
			_, next := d.store.Committed()
			return next
		},
		due: func(ctx context.Context) (due float64, err error) {
			err = d.pool.QueryRow(ctx, sqlNextDue).Scan(&due)
			return due, err
		},
		claim: d.claim,
		work: func(ctx context.Context, m claimed) claimed {
			m.err = d.publish(ctx, m)
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
	b.Queue(sqlClaim, limit, 1.5*d.cfg.PublishTimeout.Seconds(), d.cfg.Attempts, noOutcome)
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
	return d.publisher.Publish(m.topic, msg)
}

func (d *Dispatcher) settle(ctx context.Context, batch []claimed) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.PublishTimeout/4)
	defer cancel()
	var delivered, failed []uuid.UUID
	var claims []time.Time
	var attempts []int
	var waits []float64
	var reasons []string
	for _, m := range batch {
		if m.err == nil {
			delivered, claims = append(delivered, m.id), append(claims, m.until)
			continue
		}
		failed, attempts = append(failed, m.id), append(attempts, m.attempt)
		waits, reasons = append(waits, d.backOff(m.attempt).Seconds()), append(reasons, eventstore.Reason(m.err.Error()))
	}
	var b pgx.Batch
	b.Queue(sqlAsync)
	b.Queue(sqlDelivered, delivered, claims)
	b.Queue(sqlFailed, failed, attempts, waits, reasons, d.cfg.Attempts)
	results := d.pool.SendBatch(ctx, &b)
	defer results.Close()
	for range 2 {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		var dead bool
		if err := rows.Scan(&id, &dead); err != nil {
			return err
		}
		if dead {
			d.cfg.Logger.Error("an outbox message is a dead letter", "id", id)
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	return results.Close()
}

// backOff is the time from a failed attempt to the next.
func (d *Dispatcher) backOff(attempt int) time.Duration {
	return backOff(attempt, d.cfg.RetryMin, d.cfg.RetryMax)
}
