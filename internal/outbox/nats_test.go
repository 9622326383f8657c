package outbox_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
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

// Other programs read every event once, in the order of the log, though the connection breaks and a relay repeats.
func TestEachEventIsPublishedForOtherPrograms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server)
	open := func(url string) *natsjs.Broker {
		broker, err := natsjs.Open(natsjs.Config{URL: url, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = broker.Close() })
		return broker
	}
	b.add(700, 7)
	large := eventstore.Request{Stream: "sum-9", Events: []eventstore.Payload{text{strings.Repeat("x", 1<<20-200)}}}
	if _, err := b.store.Append(b.ctx, large); err != nil {
		t.Fatal(err)
	}
	from, err := open(server.URL).Subscribe(b.ctx, "events")
	if err != nil {
		t.Fatal(err)
	}
	cfg := outbox.RelayConfig{Each: true, Topic: "events", Pool: b.pool, RetryMax: 20 * time.Millisecond, Logger: quiet()}
	stop := b.run(outbox.NewRelay(b.store, open(proxy.URL), cfg).Run)
	for position := int64(1); position <= 760; position++ {
		switch position {
		case 300:
			proxy.Cut()
		case 310:
			proxy.Mend()
		case 701: // as if the process had died before it recorded anything
			stop()
			b.exec(`update checkpoints c set position = 100, event_id = e.id from events e where c.name = 'relay' and e.position = 100`)
			b.run(outbox.NewRelay(b.store, open(server.URL), cfg).Run)
			b.add(59, 1)
		}
		msg := receive(b.ctx, t, from)
		var event outbox.PublicEvent
		if err := json.Unmarshal(msg.Payload, &event); err != nil {
			t.Fatal(err)
		}
		if event.Position != position || msg.UUID != event.ID.String() || msg.Metadata[outbox.MetaKey] != event.Stream ||
			msg.Metadata[outbox.MetaType] != event.Type || event.Version < 1 || event.Omitted != (position == 701) ||
			(len(event.Data) == 0) != event.Omitted {
			t.Fatalf("want position %d, got %+v with %v", position, event, msg.Metadata)
		}
		msg.Ack()
	}
}
