package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// liar is a publisher that drops, repeats, reorders, damages and makes up messages, and answers at random.
type liar struct {
	to     *outbox.Local
	random *rand.Rand
	late   []*message.Message
}

func (l *liar) Close() error { return nil }

func (l *liar) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		var send []*message.Message
		switch l.random.IntN(9) {
		case 0: // drop
		case 1: // repeat
			send = append(send, msg, msg.Copy())
		case 2: // reorder
			l.late = append(l.late, msg)
		case 3: // damage
			damaged := msg.Copy()
			damaged.Payload = append([]byte{}, msg.Payload...)
			damaged.Payload[l.random.IntN(len(damaged.Payload))] ^= 0x40
			send = append(send, damaged)
		case 4: // say what is not in the log
			send = append(send, l.forge(msg), msg)
		case 5: // not a run at all
			send = append(send, message.NewMessage("", []byte("hello")), msg)
		default:
			send = append(send, msg)
		}
		if len(l.late) > 3 {
			l.random.Shuffle(len(l.late), func(i, j int) { l.late[i], l.late[j] = l.late[j], l.late[i] })
			send, l.late = append(send, l.late...), nil
		}
		if err := l.to.Publish(topic, send...); err != nil {
			return err
		}
	}
	if l.random.IntN(10) == 0 {
		return errors.New("failed, says the broker, after it delivered")
	}
	return nil
}

// forge makes a well-formed run that is not of this log: of another log, of the future, or of another history.
func (l *liar) forge(msg *message.Message) *message.Message {
	run, err := outbox.DecodeRun(msg.Payload)
	if err != nil {
		return msg
	}
	switch l.random.IntN(4) {
	case 0:
		run.LogID = uuid.New()
	case 1:
		run.Epoch++
	case 2:
		run.First += 1000
	case 3:
		run.Prev = uuid.New()
		for i := range run.Events {
			run.Events[i].ID, run.Events[i].Data = uuid.New(), []byte(`{"n":1000000}`)
		}
	}
	return runMessage(run)
}

func TestProjectionEqualsAReplayWhateverTheBrokerDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := setupLong(t)
			random := rand.New(rand.NewPCG(seed, 0))
			local := outbox.NewLocal(outbox.LocalConfig{Queue: 1 + random.IntN(20)})
			defer local.Close()
			relay := outbox.NewRelay(b.store, &liar{to: local, random: rand.New(rand.NewPCG(seed, 1))}, outbox.RelayConfig{
				RetryMax: time.Millisecond, Logger: quiet(),
			})
			b.run(relay.Run)
			cfg := outbox.ConsumerConfig{
				Batch: 1 + random.IntN(50), BufferBytes: 1 + random.IntN(10_000),
				Probe: 5 * time.Millisecond, RetryMax: time.Millisecond, Logger: quiet(),
			}
			sub, at := sums("sums_v1")
			b.run(outbox.NewConsumer(b.pool, b.store, local, sub, cfg).Run)
			for range 40 {
				b.add(1+random.IntN(30), 1+random.IntN(5))
			}
			b.add(1, 1) // the last one is of a type that counts
			at.reach(b.ctx, t, b.head())
			b.checkSums("sums_v1", b.head())
		})
	}
}

// kills are the places where a consumer's connection or process can die within a batch.
var kills = map[string]func(s *sabotage) func(context.Context, pgx.Tx, []eventstore.Event) error{
	"before apply": func(s *sabotage) func(context.Context, pgx.Tx, []eventstore.Event) error {
		return func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			s.killed(ctx, tx)
			return s.apply(ctx, tx, events)
		}
	},
	"after apply": func(s *sabotage) func(context.Context, pgx.Tx, []eventstore.Event) error {
		return func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			if err := s.apply(ctx, tx, events); err != nil {
				return err
			}
			s.killed(ctx, tx)
			return nil
		}
	},
	"in the commit": func(s *sabotage) func(context.Context, pgx.Tx, []eventstore.Event) error {
		return func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			if err := s.apply(ctx, tx, events); err != nil {
				return err
			}
			if s.times.Add(-1) >= 0 {
				_, err := tx.Exec(ctx, `insert into killed values (1)`) // a deferred trigger kills the backend at commit
				return err
			}
			return nil
		}
	},
}

type sabotage struct {
	apply func(context.Context, pgx.Tx, []eventstore.Event) error
	times atomic.Int64
}

func (s *sabotage) killed(ctx context.Context, tx pgx.Tx) {
	if s.times.Add(-1) >= 0 {
		_, _ = tx.Exec(ctx, `select pg_terminate_backend(pg_backend_pid())`)
	}
}

func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	for step, kill := range kills {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.exec(`create table killed (n int)`)
			b.exec(`create function kill() returns trigger language plpgsql as
				$$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$`)
			b.exec(`create constraint trigger kill after insert on killed deferrable initially deferred
				for each row execute function kill()`)
			b.add(200, 3)
			sub, at := sums("sums_v1")
			s := &sabotage{apply: sub.Apply}
			s.times.Store(5)
			sub.Apply = kill(s)
			c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{
				Batch: 20, RetryMax: time.Millisecond, Logger: quiet(),
			})
			b.run(c.Run)
			at.reach(b.ctx, t, 197) // the last are noise
			b.checkSums("sums_v1", 200)
			if s.times.Load() >= 0 {
				t.Fatal("nothing was killed")
			}
		})
	}
}

func TestProcessEndsBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	b.add(200, 3)
	// Each life of the process ends at another moment: before Apply, after it, or right after the commit.
	for life := 0; ; life++ {
		ctx, end := context.WithCancel(b.ctx)
		sub, at := sums("sums_v1")
		apply, committed := sub.Apply, sub.Committed
		sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			if life%4 == 0 {
				end()
			}
			err := apply(ctx, tx, events)
			if life%4 == 1 {
				end()
			}
			return err
		}
		sub.Committed = func(at eventstore.Token) {
			committed(at)
			if at.Position > 0 && life%4 == 2 {
				end()
			}
			if at.Position >= 197 {
				end()
			}
		}
		c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{Batch: 10, Owner: "the same"})
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		end()
		if life%4 == 3 && at.position() >= 197 {
			break
		}
		if b.ctx.Err() != nil {
			t.Fatal("the consumer never came to the end")
		}
	}
	b.checkSums("sums_v1", 200)
}

func TestOversleptLeaseWritesNothing(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{true, false} {
		t.Run(fmt.Sprint("taken over: ", taken), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.add(30, 3)
			sub, at := sums("sums_v1")
			asleep, wake := make(chan struct{}), make(chan struct{})
			apply := sub.Apply
			var slept atomic.Bool
			sleeper := sub
			sleeper.Committed = nil
			sleeper.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
				if slept.CompareAndSwap(false, true) {
					close(asleep)
					<-wake // the context has no say: the process is stopped
				}
				return apply(context.WithoutCancel(ctx), tx, events)
			}
			cfg := outbox.ConsumerConfig{TTL: time.Hour, Standby: time.Millisecond, RetryMax: time.Millisecond, Logger: quiet()}
			zombie := outbox.NewConsumer(b.pool, b.store, nil, sleeper, cfg)
			stop := b.run(zombie.Run)
			<-asleep
			b.exec(`update checkpoints set lease_until = clock_timestamp() - interval '1 second' where name = 'sums_v1'`)
			if taken {
				b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
				at.reach(b.ctx, t, 27)
				close(wake)
				until(b.ctx, t, "the zombie notices", func() bool { return !zombie.Status().Owner })
			} else {
				close(wake)
				until(b.ctx, t, "the sleeper takes the lease anew", func() bool {
					var epoch int
					_ = b.pool.QueryRow(b.ctx, `select lease_epoch from checkpoints where name = 'sums_v1'`).Scan(&epoch)
					return epoch == 2 && zombie.Status().Position >= 27
				})
			}
			stop()
			b.checkSums("sums_v1", 30)
		})
	}
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	cfg := outbox.ConsumerConfig{TTL: time.Hour, Standby: time.Millisecond, Logger: quiet()}
	first, firstAt := sums("sums_v1")
	second, secondAt := sums("sums_v1")
	owner := outbox.NewConsumer(b.pool, b.store, nil, first, cfg)
	stop := b.run(owner.Run)
	firstAt.reach(b.ctx, t, 27)
	standby := outbox.NewConsumer(b.pool, b.store, nil, second, cfg)
	b.run(standby.Run)
	until(b.ctx, t, "the standby sees the owner's position", func() bool { return standby.Status().Position >= 27 })
	if standby.Status().Owner {
		t.Fatal("two owners")
	}
	stop() // gives the lease back
	b.add(31, 31)
	secondAt.reach(b.ctx, t, 61)
	b.checkSums("sums_v1", 61)
}

func TestZombieWritesNothingBeforeItsSuccessorDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	sub, _ := sums("sums_v1")
	asleep, wake := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	apply := sub.Apply
	sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		if once.CompareAndSwap(false, true) {
			close(asleep)
			<-wake
		}
		return apply(context.WithoutCancel(ctx), tx, events)
	}
	zombie := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: time.Hour, Standby: time.Millisecond, Logger: quiet()})
	b.run(zombie.Run)
	<-asleep
	b.exec(`update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'successor',
		lease_until = clock_timestamp() + interval '1 hour' where name = 'sums_v1'`)
	close(wake)
	until(b.ctx, t, "the zombie notices", func() bool { return !zombie.Status().Owner })
	b.checkSums("sums_v1", 0)
	if n := b.count(`select count(*) from checkpoints where name = 'sums_v1' and position = 0 and lease_owner = 'successor'`); n != 1 {
		t.Fatal("the zombie changed the checkpoint")
	}
}
