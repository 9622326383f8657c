package natsjs_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

func open(t testing.TB, cfg natsjs.Config) *natsjs.Broker {
	t.Helper()
	b := openUnconnected(t, cfg)
	until(deadline(t), t, "a connection", b.Connected) // on a busy machine it may be made only after Open has returned
	return b
}

func openUnconnected(t testing.TB, cfg natsjs.Config) *natsjs.Broker {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = 30 * time.Second // on a busy machine answers take long
	}
	b, err := natsjs.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// deadline is the one time limit of a test's waits.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// numbered returns messages whose UUIDs are from to to, in order.
func numbered(from, to int) []*message.Message {
	var all []*message.Message
	for n := from; n <= to; n++ {
		all = append(all, message.NewMessage(fmt.Sprint(n), []byte("x")))
	}
	return all
}

func publish(t testing.TB, b *natsjs.Broker, topic string, messages ...*message.Message) {
	t.Helper()
	if err := b.Publish(topic, messages...); err != nil {
		t.Fatal(err)
	}
}

// insist repeats a call until it succeeds, as a relay does.
func insist(ctx context.Context, t testing.TB, b *natsjs.Broker, topic string, messages ...*message.Message) {
	t.Helper()
	for {
		err := b.Publish(topic, messages...)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func subscribe(ctx context.Context, t testing.TB, b *natsjs.Broker, topic string) <-chan *message.Message {
	t.Helper()
	from, err := b.Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

func next(ctx context.Context, t testing.TB, from <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-from:
		if !open {
			t.Fatal("the subscription ended")
		}
		return msg
	case <-ctx.Done():
		t.Fatal("no message came in time")
	}
	return nil
}

// expect acknowledges the messages from to to, and wants them in order. One that was seen may come again.
func expect(ctx context.Context, t testing.TB, from <-chan *message.Message, first, last int) {
	t.Helper()
	seen := first - 1
	for seen < last {
		msg := next(ctx, t, from)
		var n int
		if _, err := fmt.Sscan(msg.UUID, &n); err != nil {
			t.Fatal(err)
		}
		if n > seen+1 {
			t.Fatalf("got %d after %d", n, seen)
		}
		seen = max(seen, n)
		msg.Ack()
	}
}

// admin is a connection of an operator.
func admin(t testing.TB, server *natstest.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	conn, err := nats.Connect(server.URL, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// stream is a topic's.
func stream(ctx context.Context, t testing.TB, js jetstream.JetStream, name string) jetstream.Stream {
	t.Helper()
	s, err := js.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until waits for what has no channel of its own.
func until(ctx context.Context, t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		}
	}
}

// modes are the two kinds of subscription.
func modes(t *testing.T, f func(t *testing.T, cfg natsjs.Config)) {
	for name, cfg := range map[string]natsjs.Config{"group": {Group: "g", AckWait: 5 * time.Second}, "no group": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, cfg)
		})
	}
}

func TestARefusedMessageComesAgainBeforeAnyOther(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, cfg natsjs.Config) {
		ctx := deadline(t)
		cfg.URL = natstest.Start(t).URL
		b := open(t, cfg)
		publish(t, b, "t", numbered(1, 50)...)
		from := subscribe(ctx, t, b, "t")
		for n := 1; n <= 50; n++ {
			for range n % 4 {
				msg := next(ctx, t, from)
				if msg.UUID != fmt.Sprint(n) {
					t.Fatalf("got %s before %d was acknowledged", msg.UUID, n)
				}
				msg.Nack()
			}
			msg := next(ctx, t, from)
			if msg.UUID != fmt.Sprint(n) {
				t.Fatalf("got %s, want %d", msg.UUID, n)
			}
			msg.Ack()
		}
	})
}

func TestARepeatedPublishIsStoredOnce(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	b := open(t, natsjs.Config{URL: natstest.Start(t).URL})
	publish(t, b, "t", numbered(1, 3)...)
	publish(t, b, "t", numbered(1, 600)...) // more than are on their way at a time
	publish(t, b, "t", numbered(1, 600)...)
	publish(t, b, "t", numbered(601, 601)...)
	from := subscribe(ctx, t, b, "t")
	for n := 1; n <= 601; n++ {
		msg := next(ctx, t, from)
		if msg.UUID != fmt.Sprint(n) {
			t.Fatalf("got %s, want %d", msg.UUID, n)
		}
		msg.Ack()
	}
	claimed := message.NewMessage("601", nil)
	claimed.Metadata.Set(outbox.MetaClaim, "2026-01-02T15:04:05.000006Z")
	publish(t, b, "t", claimed)
	if msg := next(ctx, t, from); msg.UUID != "601" {
		t.Fatalf("got %s, want the one that an outbox gave out again", msg.UUID)
	}
}

// Whoever takes a message is told how many took it before and did not answer.
func TestAGroupIsToldOfAbandonedMessages(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	for n := range 3 {
		b := open(t, natsjs.Config{URL: server.URL, Group: "shop"})
		if n == 0 {
			publish(t, b, "t", message.NewMessage("1", nil))
		}
		msg := next(ctx, t, subscribe(ctx, t, b, "t"))
		want := ""
		if n > 0 {
			want = fmt.Sprint(n)
		}
		if got := msg.Metadata.Get(outbox.MetaHandedOut); got != want {
			t.Errorf("after %d that did not answer it says %q", n, got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Each call's messages follow each other in order, whatever other processes publish in between.
func TestManyPublishersEachKeepTheirOrder(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	const publishers, each = 4, 120
	var all sync.WaitGroup
	for p := range publishers {
		b := open(t, natsjs.Config{URL: server.URL})
		all.Go(func() {
			for n := 0; n < each; n += 6 {
				var messages []*message.Message
				for i := range 6 {
					messages = append(messages, message.NewMessage(fmt.Sprintf("%d-%d", p, n+i), nil))
				}
				if err := b.Publish("t", messages...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	from := subscribe(ctx, t, open(t, natsjs.Config{URL: server.URL}), "t")
	var counts [publishers]int
	for range publishers * each {
		msg := next(ctx, t, from)
		var p, n int
		if _, err := fmt.Sscanf(msg.UUID, "%d-%d", &p, &n); err != nil || n != counts[p] {
			t.Fatalf("got %s, want number %d", msg.UUID, counts[p])
		}
		counts[p]++
		msg.Ack()
	}
}

func TestNothingIsLostWhenTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, cfg natsjs.Config) {
		ctx := deadline(t)
		proxy := natstest.NewProxy(t, natstest.Start(t))
		cfg.URL = proxy.URL
		publisher, subscriber := open(t, cfg), open(t, cfg)
		from := subscribe(ctx, t, subscriber, "t")
		var all sync.WaitGroup
		all.Go(func() {
			for n := 1; n <= 2000; n += 20 {
				if n%400 == 1 {
					proxy.Cut()
					if err := publisher.Publish("t", numbered(n, n+19)...); err == nil {
						t.Error("acknowledged without a connection")
					}
					proxy.Mend()
				}
				insist(ctx, t, publisher, "t", numbered(n, n+19)...)
			}
		})
		expect(ctx, t, from, 1, 2000)
		all.Wait()
	})
}

func TestARestartedServerIsFoundAgain(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, cfg natsjs.Config) {
		ctx := deadline(t)
		server := natstest.Start(t)
		cfg.URL = server.URL
		b := open(t, cfg)
		publish(t, b, "t", numbered(1, 10)...)
		from := subscribe(ctx, t, b, "t")
		expect(ctx, t, from, 1, 5)
		server.Stop()
		if err := b.Publish("t", numbered(11, 11)...); err == nil {
			t.Fatal("acknowledged without a server")
		}
		server.Start()
		insist(ctx, t, b, "t", numbered(11, 20)...)
		expect(ctx, t, from, 6, 20)
	})
}

func TestALostStoreIsMadeAnew(t *testing.T) {
	t.Parallel()
	modes(t, func(t *testing.T, cfg natsjs.Config) {
		ctx := deadline(t)
		server := natstest.Start(t)
		cfg.URL = server.URL
		b := open(t, cfg)
		publish(t, b, "t", numbered(1, 10)...)
		from := subscribe(ctx, t, b, "t")
		expect(ctx, t, from, 1, 10)
		server.Wipe()
		server.Start()
		insist(ctx, t, b, "t", numbered(11, 20)...)
		expect(ctx, t, from, 11, 20)
	})
}

func TestAServerThatComesLateIsFound(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	server.Stop()
	b := openUnconnected(t, natsjs.Config{URL: server.URL})
	if err := b.Publish("t", numbered(1, 1)...); err == nil {
		t.Fatal("published to nobody")
	}
	if _, err := b.Subscribe(ctx, "t"); err == nil {
		t.Fatal("subscribed to nobody")
	}
	server.Start()
	insist(ctx, t, b, "t", numbered(1, 1)...)
	expect(ctx, t, subscribe(ctx, t, b, "t"), 1, 1)
}

func TestNewStartsWithWhatIsPublishedNext(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	b := open(t, natsjs.Config{URL: server.URL, New: true})
	publish(t, b, "t", numbered(1, 10)...)
	from := subscribe(ctx, t, b, "t")
	publish(t, b, "t", numbered(11, 20)...)
	expect(ctx, t, from, 11, 20)
}
