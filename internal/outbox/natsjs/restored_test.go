package natsjs_test

import (
	"testing"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// A server that comes back with an older copy of its store gives out sequences a second time. What it stores then is new to a
// subscription that had come further, whether that comes back first or finds those sequences taken.
func TestWhatARestoredServerStoresIsHandedOut(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"the subscription is back first": false, "the subscription comes late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			server := natstest.Start(t)
			proxy := natstest.NewProxy(t, server)
			publisher, subscriber := open(t, natsjs.Config{URL: server.URL}), open(t, natsjs.Config{URL: proxy.URL})
			publish(t, publisher, "t", numbered(1, 10)...)
			from := subscribe(ctx, t, subscriber, "t")
			expect(ctx, t, from, 1, 10)
			copied := server.Save()
			server.Start()
			insist(ctx, t, publisher, "t", numbered(11, 20)...)
			expect(ctx, t, from, 11, 20)
			if late {
				proxy.Cut()
			}
			server.Restore(copied)
			server.Start()
			if late {
				insist(ctx, t, publisher, "t", numbered(21, 50)...)
				proxy.Mend()
				expect(ctx, t, from, 21, 50)
			}
			insist(ctx, t, publisher, "t", numbered(51, 60)...)
			expect(ctx, t, from, 51, 60)
		})
	}
}

// A subscription that begins with what is new has its place before anything came.
func TestARestoredServerHasWhatASubscriptionWaitsFor(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	b := open(t, natsjs.Config{URL: server.URL, New: true})
	if err := b.SubscribeInitialize("t"); err != nil {
		t.Fatal(err)
	}
	copied := server.Save()
	server.Start()
	insist(ctx, t, b, "t", numbered(1, 20)...)
	from := subscribe(ctx, t, b, "t")
	_, js := admin(t, server)
	server.Restore(copied)
	server.Start()
	until(ctx, t, "the subscription is back", func() bool {
		s, err := js.Stream(ctx, "t")
		return err == nil && s.CachedInfo().State.Consumers > 0 // one whose making seemed to fail is there for a minute too
	})
	publish(t, b, "t", numbered(21, 21)...)
	expect(ctx, t, from, 21, 21)
}

// A subscription that is back on a stream that has forgotten what it saw last, for its age or its size, misses nothing.
func TestASubscriptionOutlivesWhatItSawLast(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server)
	publisher, subscriber := open(t, natsjs.Config{URL: server.URL}), open(t, natsjs.Config{URL: proxy.URL})
	publish(t, publisher, "t", numbered(1, 10)...)
	from := subscribe(ctx, t, subscriber, "t")
	expect(ctx, t, from, 1, 10)
	proxy.Cut()
	_, js := admin(t, server)
	if err := stream(ctx, t, js, "t").Purge(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, publisher, "t", numbered(11, 20)...)
	proxy.Mend()
	for _, want := range numbered(11, 20) {
		msg := next(ctx, t, from)
		if msg.UUID != want.UUID {
			t.Fatalf("got %s, want %s", msg.UUID, want.UUID)
		}
		msg.Ack()
	}
}
