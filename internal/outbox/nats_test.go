package outbox_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// Whatever happens to NATS, two processes with one leased relay end with the view that a replay gives.
func TestProjectionEqualsAReplayWhateverHappensToNATS(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			random := rand.New(rand.NewPCG(seed, 7))
			server := natstest.Start(t)
			proxy := natstest.NewProxy(t, server)
			var ats []*progress
			for _, url := range []string{proxy.URL, server.URL} {
				broker, err := natsjs.Open(natsjs.Config{URL: url, New: true, PublishTimeout: time.Second, Logger: quiet()})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = broker.Close() })
				sub, at := sums("sums_v1")
				ats = append(ats, at)
				b.run(outbox.NewRelay(b.store, broker, outbox.RelayConfig{
					Pool: b.pool, TTL: time.Second, RetryMax: 20 * time.Millisecond, Logger: quiet(),
				}).Run)
				b.run(outbox.NewConsumer(b.pool, b.store, broker, sub, outbox.ConsumerConfig{
					Batch: 1 + random.IntN(50), TTL: time.Second, Probe: 100 * time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: quiet(),
				}).Run)
			}
			troubles := []func(){
				proxy.Cut, proxy.Mend,
				func() { server.Stop(); server.Start() },
				func() { server.Wipe(); server.Start() },
			}
			for range 12 {
				b.add(1+random.IntN(40), 1+random.IntN(5))
				troubles[random.IntN(len(troubles))]()
				b.add(1+random.IntN(40), 1+random.IntN(5))
			}
			proxy.Mend()
			b.add(1, 1) // the last one is of a type that counts
			head := b.head()
			until(b.ctx, t, "a process has projected all", func() bool {
				return ats[0].position() == head || ats[1].position() == head
			})
			b.checkSums("sums_v1", head)
			// The relay too comes to the end, however long the broker was away.
			until(b.ctx, t, "the broker was told of all", func() bool {
				return b.count(`select position from checkpoints where name = 'relay'`) == int(head)
			})
		})
	}
}

// The messages reach the consumer at all: with a probe of an hour only the broker can bring what is new.
func TestTheBrokerBringsRunsToAConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := natstest.Start(t)
	open := func() *natsjs.Broker {
		broker, err := natsjs.Open(natsjs.Config{URL: server.URL, New: true, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = broker.Close() })
		return broker
	}
	b.run(outbox.NewRelay(b.store, open(), outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run)
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, open(), sub, outbox.ConsumerConfig{Probe: time.Hour, Logger: quiet()}).Run)
	for range 20 {
		b.add(31, 31)
		at.reach(b.ctx, t, b.head())
	}
	b.checkSums("sums_v1", b.head())
}
