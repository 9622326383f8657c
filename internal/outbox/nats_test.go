package outbox_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// nats is a connection to a server that runs. On a busy machine it may be made only after Open has returned.
func (b *bundle) nats(cfg natsjs.Config) *natsjs.Broker {
	b.t.Helper()
	cfg.Logger = quiet()
	broker, err := natsjs.Open(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = broker.Close() })
	until(b.ctx, b.t, "a connection to NATS", broker.Connected)
	return broker
}

// Whatever happens to NATS, two processes with one leased relay end with the view that a replay gives.
func TestProjectionEqualsAReplayWhateverHappensToNATS(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := setupLong(t)
			random := rand.New(rand.NewPCG(seed, 7))
			server := natstest.Start(t)
			proxy := natstest.NewProxy(t, server)
			var ats []*progress
			for _, url := range []string{proxy.URL, server.URL} {
				broker := b.nats(natsjs.Config{URL: url, New: true, PublishTimeout: 500 * time.Millisecond, Dedupe: 100 * time.Millisecond})
				sub, at := sums("sums_v1")
				ats = append(ats, at)
				b.run(outbox.NewRelay(b.store, broker, outbox.RelayConfig{
					Pool: b.pool, TTL: time.Second, RetryMax: 20 * time.Millisecond, Logger: quiet(),
				}).Run)
				b.run(outbox.NewConsumer(b.pool, b.store, broker, sub, outbox.ConsumerConfig{
					Batch: 1 + random.IntN(50), TTL: time.Second, Probe: 100 * time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: quiet(),
				}).Run)
			}
			saved := server.Save()
			server.Start()
			troubles := []func(){
				proxy.Cut, proxy.Mend,
				func() { server.Stop(); server.Start() },
				func() { server.Wipe(); server.Start() },
				func() { saved = server.Save(); server.Start() },
				func() { server.Restore(saved); server.Start() },
			}
			for range 12 {
				b.add(1+random.IntN(40), 1+random.IntN(5))
				troubles[random.IntN(len(troubles))]()
				b.add(1+random.IntN(40), 1+random.IntN(5))
			}
			proxy.Mend()
			outage(b, server)
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

// outage stops the server for longer than anything here waits for or remembers: the acknowledgement of a message, the next
// attempt to connect, a lease, and what the server knows of repeats. On a small scale it is one of hours.
func outage(b *bundle, server *natstest.Server) {
	b.t.Helper()
	server.Stop()
	b.add(40, 3)
	select {
	case <-time.After(1500 * time.Millisecond):
	case <-b.ctx.Done():
		b.t.Fatal("no time left")
	}
	b.add(40, 3)
	server.Start()
}

// The messages reach the consumer at all: with a probe of an hour only the broker can bring what is new.
func TestTheBrokerBringsRunsToAConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := natstest.Start(t)
	open := func() *natsjs.Broker { return b.nats(natsjs.Config{URL: server.URL, New: true}) }
	b.run(outbox.NewRelay(b.store, open(), outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run)
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, open(), sub, outbox.ConsumerConfig{Probe: time.Hour, Logger: quiet()}).Run)
	for range 20 {
		b.add(31, 31)
		at.reach(b.ctx, t, b.head())
	}
	b.checkSums("sums_v1", b.head())
}

// A message stays in the outbox while the broker's stream is full, and leaves it when there is room.
func TestAMessageWaitsForAFullStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := natstest.Start(t)
	broker := b.nats(natsjs.Config{URL: server.URL, Group: "g", Refuse: true, MaxBytes: 4 << 10, PublishTimeout: never})
	var full error
	for n := 0; full == nil && n < 100; n++ {
		full = broker.Publish("letters", newMessage(fmt.Sprint("filler ", n)), newMessage(strings.Repeat("x", 1<<10)+fmt.Sprint(n)))
	}
	if full == nil {
		t.Fatal("the stream takes everything")
	}
	letter := b.send(1, func(m *eventstore.Message) { m.Payload = json.RawMessage(`"` + strings.Repeat("y", 1<<10) + `"`) })[0]
	b.run(outbox.NewDispatcher(b.pool, b.store, broker, outbox.DispatcherConfig{
		RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond, Attempts: 1_000_000, Logger: quiet(),
	}).Run)
	until(b.ctx, t, "the message was refused", func() bool {
		return b.count(`select count(*) from outbox where attempts > 1 and last_error like '%maximum bytes%'`) == 1
	})
	from, err := broker.Subscribe(b.ctx, "letters") // a stream that refuses drops nothing: there is room when an operator makes it
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(server.URL, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(b.ctx, "letters")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.delivered()
	for msg := receive(b.ctx, t, from); ; msg = receive(b.ctx, t, from) { // one filler may have been on its way
		msg.Ack()
		if msg.UUID == letter.String() {
			return
		}
	}
}
