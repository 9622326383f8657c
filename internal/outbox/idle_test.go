package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// While nothing happens, whoever polls looks ever more seldom. The time is the database's; whatever the test's own machine does
// meanwhile, the pauses double, so that there are 17 in the first ten minutes at the least of them. What polls the outbox and
// the inbox is tested by a clock of its own.
func TestWhoIsIdleAsksEverMoreSeldom(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(b *bundle) func(context.Context) error{
		"relay": func(b *bundle) func(context.Context) error {
			cfg := outbox.RelayConfig{Pool: b.pool, TTL: time.Hour, PollMin: 5 * time.Millisecond, PollMax: time.Hour, Logger: quiet()}
			return outbox.NewRelay(b.store, newReceiver(nil), cfg).Run
		},
		"relay without a cursor": func(b *bundle) func(context.Context) error {
			return outbox.NewRelay(b.store, newReceiver(nil), outbox.RelayConfig{PollMin: 5 * time.Millisecond, PollMax: time.Hour, Logger: quiet()}).Run
		},
		"consumer": func(b *bundle) func(context.Context) error {
			sub, _ := sums("sums_v1")
			return outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: time.Hour, Probe: time.Hour, Logger: quiet()}).Run
		},
		"consumer with a broker": func(b *bundle) func(context.Context) error {
			sub, _ := sums("sums_v1")
			local := outbox.NewLocal(outbox.LocalConfig{})
			b.t.Cleanup(func() { _ = local.Close() })
			return outbox.NewConsumer(b.pool, b.store, local, sub, outbox.ConsumerConfig{TTL: time.Hour, Probe: time.Hour, Logger: quiet()}).Run
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			traced, sent := b.traced()
			b.run(run(traced))
			until(b.ctx, t, "it begins", func() bool { return sent.most("") > 0 })
			b.exec(`select pg_sleep(2)`)
			if n := sent.most(""); n > 35 {
				t.Errorf("one statement was sent %d times in 2 s", n)
			}
		})
	}
}

// openTransactions counts those that wait for what their client does.
func (b *bundle) openTransactions() (n int, err error) {
	err = b.pool.QueryRow(b.ctx, `select count(*) from pg_stat_activity
		where datname = current_database() and state like 'idle in transaction%'`).Scan(&n)
	return n, err
}

// No transaction is open while somebody outside works, however long that takes: a broker, a reaction, the handler of a message.
// What Apply does belongs to one.
func TestNoTransactionIsOpenWhileOthersWork(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		run  func(b *bundle, work func() error) func(context.Context) error
		want int
	}{
		"apply": {func(b *bundle, work func() error) func(context.Context) error {
			sub, _ := sums("sums_v1")
			sub.Apply = func(context.Context, pgx.Tx, []eventstore.Event) error { return work() }
			return outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{Logger: quiet()}).Run
		}, 1},
		"reaction": {func(b *bundle, work func() error) func(context.Context) error {
			sub := outbox.Subscription{Name: "policy", React: func(context.Context, eventstore.Event) error { return work() }}
			return outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{Logger: quiet()}).Run
		}, 0},
		"relay": {func(b *bundle, work func() error) func(context.Context) error {
			broker := newReceiver(func(*message.Message) error { return work() })
			return outbox.NewRelay(b.store, broker, outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run
		}, 0},
		"dispatcher": {func(b *bundle, work func() error) func(context.Context) error {
			broker := newReceiver(func(*message.Message) error { return work() })
			return outbox.NewDispatcher(b.pool, b.store, broker, outbox.DispatcherConfig{Workers: 1, Logger: quiet()}).Run
		}, 0},
		"inbox": {func(b *bundle, work func() error) func(context.Context) error {
			route := outbox.InboxRoute{Topic: "payments", Handle: func(context.Context, outbox.Incoming) error { return work() }}
			cfg := hasty()
			cfg.Workers = 1
			return b.inbox(nil, cfg, route).Run
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.send(3, nil) // with an event
			for i := range 3 {
				if _, err := outbox.SendReceived(b.ctx, b.pool, "payments", fmt.Sprint("p-", i), json.RawMessage(`{}`), 0); err != nil {
					t.Fatal(err)
				}
			}
			var calls atomic.Int64
			wrong := make(chan error, 100)
			b.run(one.run(b, func() error {
				n, err := b.openTransactions()
				if err == nil && n != one.want {
					err = fmt.Errorf("%d transactions are open", n)
				}
				if err != nil {
					select {
					case wrong <- err:
					default:
					}
				}
				calls.Add(1)
				return nil
			}))
			until(b.ctx, t, "it is called", func() bool { return calls.Load() > 0 })
			select {
			case err := <-wrong:
				t.Error(errors.Join(err, b.ctx.Err()))
			default:
			}
		})
	}
}
