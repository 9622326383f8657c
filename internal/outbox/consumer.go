package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// Subscription says who wants which events and what happens with them. Exactly one of Apply and React is set.
type Subscription struct {
	// Name of the checkpoint, such as "cart_v1".
	Name string
	// Types of the events that are handed over; none means all. The checkpoint moves over the others too.
	Types []string
	// Shard and Shards limit it to the events of one share of the streams: those for which eventstore.Shard(stream, Shards)
	// is Shard. Each shard has a checkpoint row and an owner of its own, and moves over the events of the others. The
	// number is that with which the checkpoint was begun; a consumer of another does nothing but say so. 0 and 1 Shards: all
	// streams.
	Shard, Shards int
	// Apply writes what the events mean in tx, which also moves the checkpoint: each event has its effect in the
	// database once. Events come in order of position, and the slices that they share memory with must not be changed.
	// It may be called again for the same events after tx was rolled back, so it must have no effect outside tx, and it
	// must leave commit and rollback alone. Postgres ends a tx that nothing was sent on for as long as a lease lasts, which
	// may belong to an owner that is no more; Apply is then called again and has twice that time.
	Apply func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error
	// React is called with one event at a time, before the checkpoint moves over it: at least once. It is for policies,
	// whose commands carry an id derived from the event, so that a repeat has no second effect.
	React func(ctx context.Context, event eventstore.Event) error
	// OnFailure says what becomes of an event that cannot be handled. The zero value halts.
	OnFailure OnFailure
	// Parked is told which streams are parked when ownership begins and whenever that changed, each time before Committed
	// is told of the checkpoint that it goes with. It must not block.
	Parked func(ParkedStreams)
	// Forget is called when ownership begins: what Apply keeps in memory from before may not be what the tables hold, since
	// another process may have handled or passed over other events.
	Forget func()
	// From says where a checkpoint begins that is not there yet. One that is there goes on from where it is, whatever this
	// says; a consumer that finds it begun elsewhere says so in the log. The zero value is FromBeginning.
	From From
	// Committed is told how far the checkpoint is when ownership begins and after each commit that moved it. It must
	// not block.
	Committed func(at eventstore.Token)
}

// ConsumerConfig configures a Consumer. The zero value is ready for use.
type ConsumerConfig struct {
	// Topic of the log's runs. Default LogTopic.
	Topic string
	// Batch is how many events one Apply is given at most. Default 500.
	Batch int
	// BufferBytes bounds the runs that wait while a batch is applied; what is over it is dropped and read from the log.
	// Default 4 MiB.
	BufferBytes int
	// Probe is how often the head of the log is compared with what arrived, which heals the loss of the last message.
	// Default 1 s.
	Probe time.Duration
	// MoveEvery and MoveAfter bound how far, in events and in time, the checkpoint lags behind events of other types and
	// of other shards. Defaults 1,000 and 250 ms; of a shard 50 ms, since whoever waits for the view waits for all shards,
	// also for those in other processes.
	MoveEvery int64
	MoveAfter time.Duration
	// Owner names this process in the lease; a lease under the same name is taken over at once. Default: random.
	Owner string
	// TTL is how long a lease lasts without renewal. Default 5 s.
	TTL time.Duration
	// Node shares the leases of this process out among all that live, and renews them; its ID and TTL take the place of
	// Owner and TTL, and it says when to try for the lease, in the place of Standby. It has to run. Default nil: alone.
	Node *Node
	// Standby is how often a process that is not the owner tries to become it. Default a tenth of TTL.
	Standby time.Duration
	// ParkedMax is how many streams of the subscription, or of a shard of it, may be parked. One more, and it halts: then
	// it is not one event that is wrong. Default 1,000.
	ParkedMax int
	// RequestPoll is how often, while streams are parked, the owner looks for what operators asked. Default 500 ms.
	RequestPoll time.Duration
	// RetryMax bounds the time between attempts after a failure that may pass, which starts at 20 ms. Default 5 s.
	RetryMax time.Duration
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c ConsumerConfig) withDefaults() ConsumerConfig {
	c.Topic = orDefault(c.Topic, LogTopic)
	c.Batch = orDefault(c.Batch, 500)
	c.BufferBytes = orDefault(c.BufferBytes, 4<<20)
	c.Probe = orDefault(c.Probe, time.Second)
	c.MoveEvery = orDefault(c.MoveEvery, 1000)
	c.MoveAfter = orDefault(c.MoveAfter, 250*time.Millisecond)
	c.TTL = orDefault(c.TTL, defaultTTL)
	c.Standby = orDefault(c.Standby, c.TTL/10)
	c.ParkedMax = orDefault(c.ParkedMax, 1000)
	c.RequestPoll = orDefault(c.RequestPoll, 500*time.Millisecond)
	c.RetryMax = orDefault(c.RetryMax, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Consumer brings one subscription from its checkpoint to the head of the log and keeps it there. Any number of
// processes may run one under the same name: the owner of the lease works, the others stand by.
//
// When an event cannot be handled, the subscription's OnFailure says what comes of it. Unless it says otherwise, everything
// before it is committed and the consumer halts: the reason stands in the checkpoint's row, and no process goes on until a
// process starts anew or an operator clears halted_at.
type Consumer struct {
	pool       *pgxpool.Pool
	store      *eventstore.Store
	subscriber message.Subscriber
	sub        Subscription
	cfg        ConsumerConfig
	flush      chan struct{}
	said       atomic.Bool // that the checkpoint was begun elsewhere

	mu     sync.Mutex
	status Status
}

// NewConsumer makes a consumer, which Run starts. Without a subscriber it reads the log only, woken by commits of this
// process and by a poll.
func NewConsumer(
	pool *pgxpool.Pool, store *eventstore.Store, subscriber message.Subscriber, sub Subscription, cfg ConsumerConfig,
) *Consumer {
	sub.Shards = max(1, sub.Shards)
	if sub.Shards > 1 {
		cfg.MoveAfter = orDefault(cfg.MoveAfter, 50*time.Millisecond)
	}
	return &Consumer{
		pool: pool, store: store, subscriber: subscriber, sub: sub, cfg: cfg.withDefaults(),
		flush: make(chan struct{}, 1), status: Status{Name: sub.Name, Shard: sub.Shard, Shards: sub.Shards},
	}
}

// Flush asks for the checkpoint to move at once, and for the next second, over events of other types too. It does not
// wait, and may be called by any goroutine.
func (c *Consumer) Flush() { signal(c.flush) }

// Status returns the consumer's state. It may be called by any goroutine.
func (c *Consumer) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Consumer) update(change func(s *Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// Run works until ctx ends: then it rolls back what is in hand, records how far it came, gives the lease back and returns
// nil. It returns an error only for a subscription that makes no sense. It may be called once at a time.
func (c *Consumer) Run(ctx context.Context) error {
	if c.sub.Name == "" || (c.sub.Apply == nil) == (c.sub.React == nil) {
		return fmt.Errorf("subscription %q needs a name and one of Apply and React", c.sub.Name)
	}
	if _, _, err := c.sub.From.read(); err != nil {
		return fmt.Errorf("subscription %q: %w", c.sub.Name, err)
	}
	if p := c.sub.OnFailure; p != Halt && p != Park && p != Skip {
		return fmt.Errorf("subscription %q: what is %q on failure? There are %q, %q and, empty, halt", c.sub.Name, p, Park, Skip)
	}
	if c.sub.Shard < 0 || c.sub.Shard >= c.sub.Shards {
		return fmt.Errorf("subscription %q has no shard %d of %d", c.sub.Name, c.sub.Shard, c.sub.Shards)
	}
	c.update(func(s *Status) { s.Running = true })
	defer c.update(func(s *Status) { s.Running, s.Owner = false, false })

	l := newLease(c.pool, c.sub.Name, c.sub.Shard, c.cfg.Owner, c.cfg.TTL)
	l.shards = c.sub.Shards
	l.join(c.cfg.Node, c.standsBy)
	defer l.part()
	retry := pace{least: 20 * time.Millisecond, most: c.cfg.RetryMax}
	evenHalted := true // a process that starts anew tries again
	for ctx.Err() == nil {
		at, taken, err := c.begin(ctx, l, evenHalted)
		if err == nil {
			evenHalted = false
			if taken {
				err = c.own(ctx, l, at)
			} else {
				err = c.look(ctx, l)
			}
		}
		if refused := c.refuse(err); refused || err == nil || errors.Is(err, errLost) {
			retry.reset()
			c.standBy(ctx, l, refused)
			continue
		}
		c.failing(ctx, err)
		retry.sleep(ctx)
	}
	return nil
}

// standBy waits until it is worth another try for the lease. While this program must not have it, it does not ask for it.
func (c *Consumer) standBy(ctx context.Context, l *lease, refused bool) {
	if !refused || l.node == nil {
		l.standBy(ctx, c.cfg.Standby)
		return
	}
	l.part()
	pause(ctx, jitter(l.ttl))
	l.join(c.cfg.Node, c.standsBy)
}

// standsBy is the status while another process has the lease, or nobody.
func (c *Consumer) standsBy(row Status) {
	c.update(func(s *Status) {
		if !s.Owner {
			s.standBy(row)
		}
	})
}

// refuse tells whether an error says that this program must not work on the checkpoint, and reports it once. A look now
// and then finds out when it may.
func (c *Consumer) refuse(err error) bool {
	var shards *ShardsError
	refused, reason := errors.As(err, &shards), ""
	if refused {
		reason = shards.Error()
	}
	if before := c.Status().Refused; refused && reason != before {
		c.cfg.Logger.Error("consumer refuses to work", "name", c.sub.Name, "shard", c.sub.Shard, "error", reason)
	}
	c.update(func(s *Status) { s.Refused = reason })
	return refused
}

// failing reports an error that is going to be retried.
func (c *Consumer) failing(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.update(func(s *Status) { s.LastError = err.Error() })
	c.cfg.Logger.Warn("consumer tries again", "name", c.sub.Name, "error", err)
}

// Prepare makes the checkpoint if there is none, as Run does too: what is appended after it has returned is handed over also
// when the checkpoint begins at the head of the log.
func (c *Consumer) Prepare(ctx context.Context) error {
	l := newLease(c.pool, c.sub.Name, c.sub.Shard, c.cfg.Owner, c.cfg.TTL)
	l.shards = c.sub.Shards
	return c.prepare(ctx, l)
}

func (c *Consumer) prepare(ctx context.Context, l *lease) error {
	asked := orDefault(c.sub.From, FromBeginning)
	begun, err := l.create(ctx, asked, func(ctx context.Context) (eventstore.Token, error) { return asked.token(ctx, c.store) })
	if err != nil {
		return err
	}
	if begun != "" && begun != asked && !c.said.Swap(true) {
		c.cfg.Logger.Warn("the checkpoint is there already, and goes on from where it is", "name", c.sub.Name, "asked", asked, "begun", begun)
	}
	return nil
}

// begin makes the checkpoint if there is none and tries to take its lease.
func (c *Consumer) begin(ctx context.Context, l *lease, evenHalted bool) (eventstore.Token, bool, error) {
	if err := c.prepare(ctx, l); err != nil {
		return eventstore.Token{}, false, err
	}
	return l.take(ctx, evenHalted)
}

// look brings the status of a process that stands by up to date.
func (c *Consumer) look(ctx context.Context, l *lease) error {
	seen, err := l.look(ctx)
	if err != nil {
		return err
	}
	c.standsBy(seen)
	return nil
}

// own works while the lease is held, and then gives it back.
func (c *Consumer) own(ctx context.Context, l *lease, at eventstore.Token) error {
	held, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { l.keep(held, stop) })

	t := &tenure{
		c: c, lease: l, runs: newRunBuffer(c.cfg.BufferBytes), away: l.ttl,
		retry: pace{least: 20 * time.Millisecond, most: c.cfg.RetryMax},
	}
	if len(c.sub.Types) > 0 {
		t.want = func(eventType string) bool { return slices.Contains(c.sub.Types, eventType) }
	}
	c.update((*Status).own)
	defer c.update(func(s *Status) { s.Owner = false })

	if c.sub.Forget != nil {
		c.sub.Forget()
	}
	err := t.verify(held, at)
	if err == nil {
		if c.subscriber != nil {
			helpers.Go(func() { c.receive(held, t.runs) })
		}
		err = t.work(held)
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell(l.ttl))
	defer cancel()
	var poison *poisonError
	switch {
	case errors.As(err, &poison) || eventstore.Diverged(err):
		return c.halt(ending, l, err)
	case errors.Is(err, errLost):
		return err
	}
	if t.seen > t.at.Position {
		_ = t.move(ending, t.seen, t.seenID) // what is not recorded is looked at again
	}
	return errors.Join(err, l.release(ending, ctx.Err() != nil))
}

func (c *Consumer) halt(ctx context.Context, l *lease, reason error) error {
	c.cfg.Logger.Error("consumer halts", "name", c.sub.Name, "error", reason)
	c.update(func(s *Status) { s.HaltedAt, s.HaltReason, s.LastError = time.Now(), reason.Error(), "" })
	return l.halt(ctx, reason.Error())
}

// receive acknowledges whatever the broker sends, since the log has it too, and keeps what the buffer has room for.
func (c *Consumer) receive(ctx context.Context, into *runBuffer) {
	retry := pace{least: 20 * time.Millisecond, most: c.cfg.RetryMax}
	for ctx.Err() == nil {
		messages, err := c.subscriber.Subscribe(ctx, c.cfg.Topic)
		if err != nil {
			c.cfg.Logger.Warn("subscribing failed; the log is polled meanwhile", "topic", c.cfg.Topic, "error", err)
			retry.sleep(ctx)
			continue
		}
		retry.reset()
		into.miss() // what was published after the log was read and before this is for nobody here
		for msg := range messages {
			if len(msg.Payload) == 0 {
				into.miss() // the run was too large for the broker
			} else if head, err := messageHead(msg); err != nil {
				into.miss()
				c.cfg.Logger.Warn("a message on the log's topic is no run", "topic", c.cfg.Topic, "error", err)
			} else {
				into.put(head, msg.Payload)
			}
			msg.Ack()
		}
		retry.sleep(ctx)
	}
}
