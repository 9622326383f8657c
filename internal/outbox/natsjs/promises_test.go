package natsjs_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// After an outage that is longer than the server knows repeats, a repeated call is stored once more, each message behind the one
// before it, and what follows is stored behind it.
func TestACallRepeatedAfterTheWindowKeepsItsOrder(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	b := open(t, natsjs.Config{URL: server.URL, Dedupe: 100 * time.Millisecond})
	publish(t, b, "t", numbered(1, 5)...)
	_, js := admin(t, server)
	until(ctx, t, "the server knows the messages no more", func() bool {
		publish(t, b, "t", message.NewMessage("probe", nil)) // is younger than they are, and stored again when it is forgotten
		return stream(ctx, t, js, "t").CachedInfo().State.Msgs > 6
	})
	publish(t, b, "t", numbered(3, 3)...) // so that of the next call it knows one, and not those before it
	publish(t, b, "t", numbered(1, 8)...)
	from := subscribe(ctx, t, b, "t")
	seen, stored := 0, 0
	for seen < 8 {
		msg := next(ctx, t, from)
		msg.Ack()
		var n int
		if _, err := fmt.Sscan(msg.UUID, &n); err != nil {
			continue // the probe
		}
		stored++
		if n > seen+1 {
			t.Fatalf("got %d after %d", n, seen)
		}
		seen = max(seen, n)
	}
	if stored <= 8 {
		t.Errorf("%d messages are stored, and none was forgotten", stored)
	}
}

// Messages of a call are on their way together: the server's answers are held back until it has been sent all.
func TestACallDoesNotWaitForEachAcknowledgement(t *testing.T) {
	t.Parallel()
	proxy := natstest.NewProxy(t, natstest.Start(t))
	b := open(t, natsjs.Config{URL: proxy.URL})
	publish(t, b, "t", numbered(1, 1)...) // makes the stream
	proxy.Withhold(10)
	publish(t, b, "t", numbered(2, 11)...)
}

// A stream that belongs to others is taken as it is: its name, its limits and its other subjects.
func TestAForeignStreamIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	_, js := admin(t, server)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "EVENTS", Subjects: []string{"payments.>"}, MaxAge: time.Hour, MaxMsgs: 1000, Duplicates: time.Minute, Description: "of others",
	})
	if err != nil {
		t.Fatal(err)
	}
	before := stream(ctx, t, js, "EVENTS").CachedInfo().Config
	cfg := natsjs.Config{URL: server.URL, Group: "g", Foreign: true, Refuse: true}
	from := subscribe(ctx, t, open(t, cfg), "payments.captured")
	for n := 1; n <= 5; n++ {
		for _, topic := range []string{"payments.refused", "payments.captured"} {
			if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: topic, Data: fmt.Append(nil, topic, n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := 1; n <= 5; n++ {
		msg := next(ctx, t, from)
		if want := fmt.Sprint("payments.captured", n); string(msg.Payload) != want {
			t.Fatalf("got %q, want %q", msg.Payload, want)
		}
		msg.Ack()
	}
	if err := open(t, cfg).SubscribeInitialize("payments.captured"); err != nil {
		t.Fatal(err)
	}
	if after := stream(ctx, t, js, "EVENTS").CachedInfo().Config; !reflect.DeepEqual(before, after) {
		t.Errorf("the stream was changed from %+v to %+v", before, after)
	}
	var names []string
	for name := range js.StreamNames(ctx).Name() {
		names = append(names, name)
	}
	if len(names) != 1 {
		t.Errorf("there are streams %q", names)
	}
}

// The time in which a message must be answered does not run while it waits for somebody to take it: its claim is renewed.
func TestAMessageThatNobodyTakesKeepsItsClaim(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	conn, _ := admin(t, server)
	answers, err := conn.SubscribeSync("$JS.ACK.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	cfg := natsjs.Config{URL: server.URL, Group: "g", AckWait: 3 * time.Second}
	publish(t, open(t, cfg), "t", numbered(1, 1)...)
	from := subscribe(ctx, t, open(t, cfg), "t")
	for range 3 {
		answer, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatalf("in vain: the message in hand is renewed: %v", err)
		}
		if string(answer.Data) != "+WPI" {
			t.Fatalf("a message that nobody took was answered with %q", answer.Data)
		}
	}
	if msg := next(ctx, t, from); msg.UUID != "1" {
		t.Fatalf("got %s", msg.UUID)
	}
}

// A process that was cut off, and whose message was given to another meanwhile, may still answer: the message is done with.
func TestALateAnswerCounts(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server)
	_, js := admin(t, server)
	cfg := natsjs.Config{URL: proxy.URL, Group: "g", AckWait: 200 * time.Millisecond}
	late := open(t, cfg)
	publish(t, late, "t", numbered(1, 2)...)
	held := next(ctx, t, subscribe(ctx, t, late, "t"))
	cfg.URL = server.URL
	other := subscribe(ctx, t, open(t, cfg), "t")
	proxy.Cut()
	again := next(ctx, t, other)
	if held.UUID != "1" || again.UUID != "1" {
		t.Fatalf("got %s and then %s, want 1 twice", held.UUID, again.UUID)
	}
	until(ctx, t, "the connection is lost", func() bool { return !late.Connected() })
	proxy.Mend()
	until(ctx, t, "the connection is back", late.Connected)
	held.Ack()
	until(ctx, t, "the server has heard of it", func() bool {
		consumer, err := js.Consumer(ctx, "t", "g")
		return err == nil && consumer.CachedInfo().AckFloor.Stream >= 1
	})
	again.Ack() // without harm
}

// A full stream that refuses takes nothing, and drops nothing for it; when there is room it goes on.
func TestAFullStreamRefuses(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	_, js := admin(t, server)
	b := open(t, natsjs.Config{URL: server.URL, Refuse: true, MaxBytes: 4 << 10, Dedupe: 100 * time.Millisecond})
	var full error
	stored := 0
	for n := 1; full == nil && n < 100; n++ {
		if full = b.Publish("t", message.NewMessage(fmt.Sprint(n), make([]byte, 1<<10))); full == nil {
			stored = n
		}
	}
	if full == nil || stored == 0 {
		t.Fatalf("after %d messages: %v", stored, full)
	}
	if is := stream(ctx, t, js, "t").CachedInfo().State; is.Msgs != uint64(stored) || is.FirstSeq != 1 {
		t.Errorf("%d messages are stored from %d on, want %d", is.Msgs, is.FirstSeq, stored)
	}
	if err := stream(ctx, t, js, "t").Purge(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "t", numbered(stored+1, stored+1)...)
	expect(ctx, t, subscribe(ctx, t, b, "t"), stored+1, stored+1)
}
