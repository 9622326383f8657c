package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// unhurried are a dispatcher's times for tests that count deliveries: what is in hand does not come again because the machine
// stood still, and no outcome is given up.
func unhurried() outbox.DispatcherConfig {
	return outbox.DispatcherConfig{
		PublishTimeout: 4 * never, Grace: 20 * time.Second, RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond,
		PollMin: time.Millisecond, PollMax: 20 * time.Millisecond, Logger: quiet(),
	}
}

// impatient is a dispatcher's configuration for tests in which much fails.
func impatient(attempts int) outbox.DispatcherConfig {
	cfg := unhurried()
	cfg.Attempts, cfg.RetryMax = attempts, time.Millisecond
	return cfg
}

// That a broker is away says nothing about a message: only what it will never take is a dead letter.
func TestMessagesWaitForASharedBroker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := impatient(3)
	cfg.Shared = true
	r := newReceiver(func(msg *message.Message) error {
		switch attempt := msg.Metadata.Get(outbox.MetaAttempt); {
		case msg.Metadata.Get("lang") == "large":
			return fmt.Errorf("publishing: %w", outbox.ErrTooLarge)
		case len(attempt) < 2: // the first nine
			return errors.New("no servers available")
		}
		return nil
	})
	b.send(4, nil)
	large := b.send(1, func(m *eventstore.Message) { m.Headers = map[string]string{"lang": "large"} })[0]
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	until(b.ctx, t, "one is dead and all others are delivered", func() bool {
		return b.count(`select count(*) from outbox`) == 1 && b.count(`select count(*) from outbox where dead_at is not null`) == 1
	})
	dead, err := outbox.ListDead(b.ctx, b.pool, 10)
	if err != nil || len(dead) != 1 || dead[0].ID != large || dead[0].Attempts != 1 || !strings.Contains(dead[0].LastError, "larger") {
		t.Fatalf("dead letters %+v, %v", dead, err)
	}
}

// Receivers have all their attempts, however often the broker was away, and all of them anew when an operator says so.
func TestReturnsAreCountedByThemselves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := impatient(3)
	cfg.Shared = true
	var d *outbox.Dispatcher
	r := newReceiver(func(msg *message.Message) error {
		if attempt := msg.Metadata.Get(outbox.MetaAttempt); attempt != "5" && len(attempt) < 2 {
			return errors.New("no servers available")
		}
		return d.Return(b.ctx, "letters", msg, errors.New("the mail server is down"))
	})
	d = outbox.NewDispatcher(b.pool, b.store, r, cfg)
	b.run(d.Run)
	id := b.send(1, nil)[0]
	for range 2 {
		until(b.ctx, t, "it is dead", func() bool { return b.count(`select count(*) from outbox where dead_at is not null`) == 1 })
		dead, err := outbox.ListDead(b.ctx, b.pool, 10)
		// Taken at the 5th, the 10th and the 11th.
		if err != nil || len(dead) != 1 || dead[0].Attempts != 11 || dead[0].Headers[outbox.MetaReturned] != "3" {
			t.Fatalf("dead letters %+v, %v", dead, err)
		}
		if n, err := outbox.RetryDead(b.ctx, b.pool, id); n != 1 || err != nil {
			t.Fatalf("retried %d, %v", n, err)
		}
	}
}

// forgetful is a broker whose acknowledgement of the first attempt is lost, which is then away, and then back.
type forgetful struct {
	*natsjs.Broker
	away    chan struct{} // closed at the second attempt, which fails
	resumed chan struct{} // the third waits for it
}

func (f *forgetful) Publish(topic string, messages ...*message.Message) error {
	switch messages[0].Metadata.Get(outbox.MetaAttempt) {
	case "1":
		if err := f.Broker.Publish(topic, messages...); err != nil {
			return err
		}
		return errors.New("the acknowledgement is lost")
	case "2":
		close(f.away)
		return errors.New("no servers available")
	}
	<-f.resumed
	return f.Broker.Publish(topic, messages...)
}

// A receiver fails with a delivery of which the outbox knows only that it failed. The next one is the message's last chance:
// the broker must not take it for a repeat.
func TestAnAttemptAfterALostAcknowledgementIsNoRepeat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	nats := b.nats(natsjs.Config{URL: natstest.Start(t).URL, Group: "shop", Refuse: true, PublishTimeout: never})
	broker := &forgetful{Broker: nats, away: make(chan struct{}), resumed: make(chan struct{})}
	cfg := impatient(3)
	cfg.Shared = true
	d := outbox.NewDispatcher(b.pool, b.store, broker, cfg)
	b.run(d.Run)
	b.send(1, nil)
	from, err := nats.Subscribe(b.ctx, "letters")
	if err != nil {
		t.Fatal(err)
	}
	first := receive(b.ctx, t, from)
	<-broker.away
	if err := d.Return(b.ctx, "letters", first, errors.New("the mail server is down")); err != nil {
		t.Fatal(err)
	}
	first.Ack()
	close(broker.resumed)
	second := receive(b.ctx, t, from)
	if second.UUID != first.UUID {
		t.Fatalf("got %s, want %s", second.UUID, first.UUID)
	}
	second.Ack()
	b.delivered()
}

// Of two copies of a message that fail at receivers, the newer one decides, in whichever order they come back.
func TestTheNewerReturnDecides(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := outbox.NewDispatcher(b.pool, b.store, newReceiver(nil), impatient(9))
	returned := func(attempt, times string) {
		t.Helper()
		msg := message.NewMessage("7b0a8f3e-3c5e-4c57-9a53-0d6f3a3c7b11", []byte(`{}`))
		msg.Metadata = message.Metadata{
			outbox.MetaAttempt: attempt, outbox.MetaReturned: times, outbox.MetaCreatedAt: time.Now().Format(time.RFC3339Nano),
		}
		if err := d.Return(b.ctx, "letters", msg, errors.New("no")); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		attempt, times   string
		attempts, counts int // as they are then
	}{{"2", "0", 2, 1}, {"3", "1", 3, 2}, {"2", "0", 3, 2}} {
		returned(step.attempt, step.times)
		if n := b.count(`select attempts from outbox`); n != step.attempts {
			t.Errorf("after the return of attempt %s there are %d attempts", step.attempt, n)
		}
		if n := b.count(`select (headers->>'returned')::int from outbox`); n != step.counts {
			t.Errorf("after the return of attempt %s there are %d returns", step.attempt, n)
		}
	}
}

// A process of an older release leaves alone what only newer ones know.
func TestDispatcherLeavesOtherTopicsToOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := newReceiver(nil)
	cfg := impatient(1)
	cfg.Topics = []string{"letters"}
	b.send(3, func(m *eventstore.Message) { m.Topic = "parcels" })
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	b.send(3, nil)
	until(b.ctx, t, "the letters are delivered", func() bool { return b.count(`select count(*) from outbox`) == 3 })
	if n := b.count(`select count(*) from outbox where topic = 'parcels' and attempts = 0 and dead_at is null`); n != 3 {
		t.Fatalf("%d of 3 parcels were left alone", n)
	}
	cfg.Topics = []string{} // none, and not all
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	cfg.Topics = nil
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	b.delivered()
}

// What nobody was free to take was not tried.
func TestDispatcherCountsNoAttemptThatNobodyTook(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	busy := 5
	r := newReceiver(func(msg *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if busy--; busy >= 0 {
			return fmt.Errorf("publishing: %w: %w", outbox.ErrNotTaken, context.DeadlineExceeded)
		}
		if attempt := msg.Metadata.Get(outbox.MetaAttempt); attempt != "1" {
			return fmt.Errorf("this is attempt %s", attempt)
		}
		return nil
	})
	b.run(outbox.NewDispatcher(b.pool, b.store, r, impatient(2)).Run)
	b.send(1, nil)
	b.delivered()
}

// held is a publisher whose messages are in hand until they are released or cut off.
type held struct {
	taken, release chan struct{}
	once           *sync.Once
}

func (held) Close() error { return nil }

func (h held) Publish(_ string, messages ...*message.Message) error {
	ctx := messages[0].Context()
	h.once.Do(func() { close(h.taken) }) // a claim that is on its way may hand it out once more
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// stopWhileInHand ends a dispatcher that has one message in hand; then is what happens before it has ended.
func (b *bundle) stopWhileInHand(grace time.Duration, then func(h held)) {
	b.t.Helper()
	h := held{make(chan struct{}), make(chan struct{}), new(sync.Once)}
	cfg := impatient(1)
	cfg.Grace = grace
	ctx, stop := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- outbox.NewDispatcher(b.pool, b.store, h, cfg).Run(ctx) }()
	b.send(1, nil)
	<-h.taken
	stop()
	then(h)
	if err := <-ended; err != nil {
		b.t.Fatal(err)
	}
}

func TestAStoppedDispatcherFinishesWhatIsInHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stopWhileInHand(time.Hour, func(h held) { close(h.release) })
	if n := b.count(`select count(*) from outbox`); n != 0 {
		t.Fatal("a message that was in hand is not delivered")
	}
}

func TestWhatAStoppedDispatcherCutsOffWasNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stopWhileInHand(time.Millisecond, func(held) {})
	if n := b.count(`select count(*) from outbox where attempts = 0 and dead_at is null and available_at <= clock_timestamp()`); n != 1 {
		t.Fatal("a message that was cut off is not due as it was before")
	}
}

func TestWhatAStoppedInboxCutsOffWasNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := hasty()
	cfg.Attempts, cfg.Grace = 1, time.Millisecond
	taken := make(chan struct{})
	take := sync.OnceFunc(func() { close(taken) }) // a claim that is on its way may hand it out once more
	in := b.inbox(nil, cfg, outbox.InboxRoute{Topic: "payments", Handle: func(ctx context.Context, _ outbox.Incoming) error {
		take()
		<-ctx.Done()
		return ctx.Err()
	}})
	stop := b.run(in.Run)
	if err := in.Accept(b.ctx, "payments", paid("p-1", `1`)); err != nil {
		t.Fatal(err)
	}
	<-taken
	stop()
	if r := b.received("p-1"); r.State != outbox.ReceivedWaiting || r.Attempts != 0 {
		t.Fatalf("got %+v", r)
	}
}
