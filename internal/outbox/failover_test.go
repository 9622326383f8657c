package outbox_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
	"github.com/headrace/headrace/internal/pgtest"
)

// A broker outlives a failover that loses the end of the log, and still holds what it was told of that end, at positions which
// other events have now. The relay and a view go on with the log, and a new view that hears all of it from the broker too.
func TestWhatABrokerHoldsOfLostEventsIsNotTaken(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	standby := primary.Standby(nil)
	pool, err := pgxpool.New(t.Context(), pgtest.Failover(t, standby, primary))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := open(t, longDeadline(t), pool)
	server := natstest.Start(t)
	broker := func() *natsjs.Broker { return b.nats(natsjs.Config{URL: server.URL}) }
	cfg := outbox.ConsumerConfig{TTL: time.Second, Probe: 50 * time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: quiet()}
	b.run(outbox.NewRelay(b.store, broker(), outbox.RelayConfig{
		Pool: pool, TTL: time.Second, PollMax: 50 * time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: quiet(),
	}).Run)
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(pool, b.store, broker(), sub, cfg).Run)

	b.add(60, 5)
	at.reach(b.ctx, t, 60)
	standby.CatchUp(primary)
	standby.Detach()
	b.add(40, 5)
	at.reach(b.ctx, t, 100)
	told := func(head int64) func() bool {
		return func() bool {
			return b.count(`select count(*) from checkpoints where name in ('relay', 'sums_v1') and position = $1`, head) == 2
		}
	}
	until(b.ctx, t, "the broker to be told of what will be lost", told(100))
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	standby.Promote()
	pool.Reset()
	until(b.ctx, t, "an append to the new primary", func() bool {
		_, err := b.store.Append(b.ctx, eventstore.Request{Stream: "sum-0", Expected: eventstore.Any, Events: []eventstore.Payload{noise{}}})
		return err == nil
	})
	b.add(80, 5)
	head := b.head()
	if head <= 100 {
		t.Fatalf("the head is at %d, and no position has two histories", head)
	}
	until(b.ctx, t, "the relay and the view to come to the new end", told(head))
	b.checkSums("sums_v1", head)

	late, reached := sums("sums_v2")
	b.run(outbox.NewConsumer(pool, b.store, broker(), late, cfg).Run)
	reached.reach(b.ctx, t, head)
	b.checkSums("sums_v2", head)
}
