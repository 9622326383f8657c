package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// LogTopic is where runs of the log travel unless a config names another topic.
const LogTopic = "headrace.log"

// ErrTooLarge is what a publisher's error wraps when the broker does not take messages of that size, however often they
// are sent.
var ErrTooLarge = errors.New("the message is larger than the broker takes")

// RelayConfig configures a Relay. The zero value relays to a broker within the process.
type RelayConfig struct {
	// Topic is where runs are published. Default LogTopic.
	Topic string
	// Contract publishes its public events, each as a message of its own with the stream as its key, for other programs,
	// and nothing else of the log. It needs a Pool. Default nil: runs of the whole log, for consumers.
	Contract *Contract
	// Pool makes this a leased relay for a broker that processes share: a checkpoint of this name in its database says
	// how far the broker was told, and one process at a time moves it. Default nil: no lease and no cursor, the relay
	// starts at the head.
	Pool *pgxpool.Pool
	// Name of the checkpoint of a leased relay. Default "relay".
	Name string
	// Owner names this process in the lease; a lease under the same name is taken over at once. Default: random.
	Owner string
	// TTL is how long a lease lasts without renewal. Default 5 s.
	TTL time.Duration
	// Node shares the leases of this process out among all that live, and renews them; its ID and TTL take the place of
	// Owner and TTL. It has to run. Default nil: alone.
	Node *Node
	// PollMin and PollMax bound the time between two looks at the log while nothing is committed in this process; it
	// doubles while nothing is found. Defaults 25 ms and 1 s.
	PollMin, PollMax time.Duration
	// RetryMax bounds the time between attempts to publish, which starts at 10 ms and doubles. Default 10 s.
	RetryMax time.Duration
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c RelayConfig) withDefaults() RelayConfig {
	c.Topic = orDefault(c.Topic, LogTopic)
	c.Name = orDefault(c.Name, "relay")
	c.TTL = orDefault(c.TTL, defaultTTL)
	c.PollMin = orDefault(c.PollMin, 25*time.Millisecond)
	c.PollMax = orDefault(c.PollMax, time.Second)
	c.RetryMax = orDefault(c.RetryMax, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Relay publishes the log, run by run and in order, each event at least once while it runs. A leased relay goes on where
// the last one stopped. It never skips: an error of the publisher is retried for ever. In the place of what is too large
// for the broker it publishes a message without the events' data: consumers then look into the log.
//
// With a contract it publishes the public events alone, and halts before one that cannot be made or is too large for the
// broker: the checkpoint says why, and the relay tries again when its process starts anew or the halt is undone.
type Relay struct {
	store     *eventstore.Store
	publisher message.Publisher
	cfg       RelayConfig

	mu     sync.Mutex
	status Status
}

// Status returns the relay's state. It may be called by any goroutine.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *Relay) update(change func(s *Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// told says up to where everything was published, and how many events more than before.
func (r *Relay) told(position int64, events int) {
	r.update(func(s *Status) { s.Position, s.Events, s.LastError = position, s.Events+int64(events), "" })
}

// NewRelay makes a relay, which Run starts.
func NewRelay(store *eventstore.Store, publisher message.Publisher, cfg RelayConfig) *Relay {
	r := &Relay{store: store, publisher: publisher, cfg: cfg.withDefaults(), status: Status{Shards: 1}}
	if cfg.Pool != nil {
		r.status.Name = r.cfg.Name
	}
	return r
}

// Run relays until ctx ends, and then returns nil. It may be called once at a time. It fails at once when there is a
// contract and no place for a cursor: beginning at the head, it would skip.
func (r *Relay) Run(ctx context.Context) error {
	r.update(func(s *Status) { s.Running = true })
	defer r.update(func(s *Status) { s.Running, s.Owner = false, false })
	if r.cfg.Pool != nil {
		return r.runLeased(ctx)
	}
	if r.cfg.Contract != nil {
		return errors.New("a relay with a contract needs a pool for its checkpoint")
	}
	retry := pace{least: 50 * time.Millisecond, most: r.cfg.RetryMax}
	var at eventstore.Token
	begun := false // then it goes on from where it stopped
	for ctx.Err() == nil {
		var err error
		if !begun {
			at, err = r.store.Head(ctx)
		}
		if err == nil {
			begun = true
			retry.reset()
			r.told(at.Position, 0) // before it owns that: who looks is not to take it for at the beginning
			r.update((*Status).own)
			at, err = r.follow(ctx, at, nil)
		}
		if eventstore.Diverged(err) {
			begun = false // there is nothing to go on from
		}
		r.complain(ctx, err)
		retry.sleep(ctx)
	}
	return nil
}

func (r *Relay) complain(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		r.update(func(s *Status) { s.LastError = err.Error() })
		r.cfg.Logger.Warn("relay starts again", "topic", r.cfg.Topic, "error", err)
	}
}

// runLeased waits for the lease, follows the log while it is held, and gives it back.
func (r *Relay) runLeased(ctx context.Context) error {
	l := newLease(r.cfg.Pool, r.cfg.Name, 0, r.cfg.Owner, r.cfg.TTL)
	l.join(r.cfg.Node, r.standBy)
	defer l.part()
	retry := pace{least: 20 * time.Millisecond, most: l.ttl}
	first := true
	for ctx.Err() == nil {
		err := r.tenure(ctx, l, first)
		if err == nil || errors.Is(err, errLost) {
			first = false
			retry.reset()
			l.standBy(ctx, l.ttl/10)
			continue
		}
		r.complain(ctx, err)
		retry.sleep(ctx)
	}
	return nil
}

// standBy is the status while another process has the lease, or nobody.
func (r *Relay) standBy(row Status) {
	r.update(func(s *Status) {
		if !s.Owner {
			s.standBy(row)
		}
	})
}

func (r *Relay) tenure(ctx context.Context, l *lease, evenHalted bool) error {
	head, err := r.store.Head(ctx)
	if err != nil {
		return err
	}
	_, err = l.create(ctx, FromBeginning, func(context.Context) (eventstore.Token, error) {
		return eventstore.Token{LogID: head.LogID, Epoch: head.Epoch}, nil
	})
	if err != nil {
		return err
	}
	at, taken, err := l.take(ctx, evenHalted)
	if err != nil {
		return err
	}
	if !taken {
		row, err := l.look(ctx)
		if err == nil {
			r.standBy(row)
		}
		return err
	}
	r.update((*Status).own)
	defer r.update(func(s *Status) { s.Owner = false })
	r.told(at.Position, 0)
	ending := context.WithoutCancel(ctx)
	held, stop := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	defer keeper.Wait() // before the lease is taken anew, which would be let go by the old keeper
	defer stop()
	keeper.Go(func() { l.keep(held, stop) })
	err = r.store.CheckToken(held, at)
	ours := err == nil
	if ours {
		if err = l.stamp(held, &at, head); err == nil {
			_, err = r.follow(held, at, l)
		}
	}
	if eventstore.Diverged(err) && !ours {
		r.cfg.Logger.Error("relay halts: its checkpoint is not of this log", "checkpoint", l.name, "error", err)
		return r.halt(ending, l, err.Error())
	}
	if refused := (*ContractError)(nil); errors.As(err, &refused) {
		r.cfg.Logger.Error("relay halts before an event that it cannot publish", "checkpoint", l.name, "error", err, "stack", refused.stack())
		return r.halt(ending, l, refused.Error())
	}
	if errors.Is(err, errLost) {
		return err
	}
	bounded, cancel := context.WithTimeout(ending, farewell(l.ttl))
	defer cancel()
	if held.Err() != nil {
		err = nil // it was told to end
	}
	return errors.Join(err, l.release(bounded, ctx.Err() != nil))
}

func (r *Relay) halt(ctx context.Context, l *lease, reason string) error {
	r.update(func(s *Status) { s.HaltedAt, s.HaltReason, s.LastError = time.Now(), reason, "" })
	return l.halt(ctx, reason)
}

// follow publishes what comes after at, and returns how far it came. It returns when ctx ended or something failed that a
// new start may mend.
func (r *Relay) follow(ctx context.Context, at eventstore.Token, l *lease) (eventstore.Token, error) {
	if r.cfg.Contract != nil {
		return at, r.tell(ctx, at, l)
	}
	poll := pace{least: r.cfg.PollMin, most: r.cfg.PollMax}
	for ctx.Err() == nil {
		_, next := r.store.Committed() // asked before the read, so that no commit falls between
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: at.Position, Seen: at.EventID, Limit: MaxRunEvents})
		if err != nil {
			return at, err // of another history too: what was published last is no more, and the checkpoint says where to go on
		}
		if epoch, _ := r.store.Epoch(); epoch > at.Epoch {
			at.Epoch = epoch // of the page's, which follows an event that this log still has
		}
		if len(page.Events) == 0 {
			if at, err = r.idle(ctx, at, next, &poll); err != nil {
				return at, err
			}
			continue
		}
		poll.reset()
		for rest := page.Events; len(rest) > 0; {
			var events []eventstore.Event
			events, rest = cutRun(rest)
			run := Run{LogID: at.LogID, Epoch: at.Epoch, Prev: at.EventID, First: events[0].Position, Events: events}
			if err := r.publish(ctx, run); err != nil {
				return at, err
			}
			to := at
			to.Position, to.EventID = run.Last(), events[len(events)-1].ID
			if l != nil {
				if to, err = r.record(ctx, l, at, to); err != nil {
					return at, err
				}
			}
			at = to
			r.told(at.Position, len(events))
		}
	}
	return at, nil
}

// record moves the cursor over what was published, also when ctx has just ended: what is not recorded is told again.
func (r *Relay) record(ctx context.Context, l *lease, at, to eventstore.Token) (eventstore.Token, error) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.ttl)
	defer cancel()
	to, err := l.advance(bounded, at, to)
	if errors.Is(err, errFenced) {
		return to, errLost
	}
	return to, err
}

// idle waits for a commit in this process or for the next poll, and looks whether the log is still the same.
func (r *Relay) idle(ctx context.Context, at eventstore.Token, next <-chan struct{}, poll *pace) (eventstore.Token, error) {
	timer := time.NewTimer(poll.step())
	defer timer.Stop()
	select {
	case <-next:
		return at, nil
	case <-ctx.Done():
		return at, nil
	case <-timer.C:
	}
	head, err := r.store.Head(ctx)
	if err != nil {
		return at, err
	}
	if head.LogID != at.LogID || head.Epoch != at.Epoch || head.Position < at.Position {
		if err := r.store.CheckToken(ctx, at); err != nil {
			return at, fmt.Errorf("the log has changed: %w", err)
		}
		at.LogID, at.Epoch = head.LogID, head.Epoch
	}
	return at, nil
}

// publish publishes a run. When it is too large for the broker, its events are left out and what announces them is not.
func (r *Relay) publish(ctx context.Context, run Run) error {
	msg := runMessage(run)
	err := r.insist(ctx, run.First, run.Last(), msg)
	if errors.Is(err, ErrTooLarge) {
		msg.Payload = nil
		err = r.insist(ctx, run.First, run.Last(), msg)
	}
	return err
}

// insist tries until it succeeds, ctx ends, or a message is too large. The positions are for people.
func (r *Relay) insist(ctx context.Context, first, last int64, messages ...*message.Message) error {
	retry := pace{least: 10 * time.Millisecond, most: r.cfg.RetryMax}
	for {
		for _, msg := range messages {
			msg.SetContext(ctx)
		}
		err := r.publisher.Publish(r.cfg.Topic, messages...)
		if err == nil || errors.Is(err, ErrTooLarge) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.update(func(s *Status) { s.LastError = err.Error() })
		r.cfg.Logger.Warn("publishing failed", "topic", r.cfg.Topic, "first", first, "last", last, "error", err)
		if !retry.sleep(ctx) {
			return ctx.Err()
		}
	}
}
