package natsjs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

func TestAGroupHandsOutNoMoreThanInFlight(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	cfg := natsjs.Config{URL: server.URL, Group: "g", InFlight: 2, AckWait: 3 * time.Second}
	publish(t, open(t, cfg), "t", numbered(1, 6)...)
	all := make(chan *message.Message)
	for range 3 {
		from := subscribe(ctx, t, open(t, cfg), "t")
		go func() {
			for msg := range from {
				all <- msg
			}
		}()
	}
	held := []*message.Message{next(ctx, t, all), next(ctx, t, all)}
	select {
	case msg := <-all:
		t.Fatalf("%s was handed out while two were held", msg.UUID) // though much more than AckWait has passed
	case <-time.After(7 * time.Second):
	}
	got := map[string]bool{}
	for len(got) < 6 {
		if len(held) == 0 {
			held = append(held, next(ctx, t, all))
		}
		if got[held[0].UUID] {
			t.Fatalf("%s came twice", held[0].UUID)
		}
		got[held[0].UUID] = true
		held[0].Ack()
		held = held[1:]
	}
}

func TestAGroupsMessageGoesToAnotherWhenItsProcessIsGone(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server)
	cfg := natsjs.Config{URL: proxy.URL, Group: "g", AckWait: 200 * time.Millisecond}
	dying := open(t, cfg)
	publish(t, dying, "t", numbered(1, 3)...)
	next(ctx, t, subscribe(ctx, t, dying, "t")) // and no answer
	cfg.URL = server.URL
	from := subscribe(ctx, t, open(t, cfg), "t")
	proxy.Cut()
	expect(ctx, t, from, 1, 3)
}

func TestCloseIsPromptAndGivesBackWhatIsInHand(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	cfg := natsjs.Config{URL: server.URL, Group: "g", AckWait: time.Hour}
	b := open(t, cfg)
	publish(t, b, "t", numbered(1, 3)...)
	from := subscribe(ctx, t, b, "t")
	held := next(ctx, t, from)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	<-held.Context().Done()
	if _, open := <-from; open {
		t.Fatal("the channel is open after Close")
	}
	if err := b.Publish("t", numbered(4, 4)...); !errors.Is(err, natsjs.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if _, err := b.Subscribe(ctx, "t"); !errors.Is(err, natsjs.ErrClosed) {
		t.Fatalf("got %v", err)
	}
	expect(ctx, t, subscribe(ctx, t, open(t, cfg), "t"), 1, 3)
}

func TestAMessageIsTooLarge(t *testing.T) {
	t.Parallel()
	b := open(t, natsjs.Config{URL: natstest.Start(t).URL})
	err := b.Publish("t", message.NewMessage("1", []byte("x")), message.NewMessage("2", make([]byte, 2<<20)))
	if !errors.Is(err, outbox.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	publish(t, b, "t", message.NewMessage("3", make([]byte, 1000<<10)))
}

// A message is stored only after the one before it: what follows a refused one is refused with it.
func TestNothingIsStoredBehindAHole(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	b := open(t, natsjs.Config{URL: server.URL})
	publish(t, b, "t", numbered(1, 1)...)
	raw, err := nats.Connect(server.URL, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	js, err := jetstream.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.MaxMsgSize = 1000
	if _, err := js.UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
	call := numbered(2, 5)
	call[1].Payload = make([]byte, 2000)
	if err := b.Publish("t", call...); !errors.Is(err, outbox.ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	call[1].Payload = []byte("x")
	publish(t, b, "t", call...)
	from := subscribe(ctx, t, b, "t")
	for n := 1; n <= 5; n++ {
		msg := next(ctx, t, from)
		if msg.UUID != fmt.Sprint(n) {
			t.Fatalf("got %s, want %d", msg.UUID, n)
		}
		msg.Ack()
	}
}

func TestNoMessageDoesHarm(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	b := open(t, natsjs.Config{URL: server.URL})
	if err := b.SubscribeInitialize("t"); err != nil {
		t.Fatal(err)
	}
	raw, err := nats.Connect(server.URL, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	foreign := []*nats.Msg{
		{Subject: "t"},
		{Subject: "t", Header: nats.Header{"a": {"1", "2"}, "_watermill_message_uuid": {"x", "y"}, "empty": {""}}},
		{Subject: "t", Header: nats.Header{"Headrace-Metadata": {"not JSON"}, "Nats-Msg-Id": {"id"}}, Data: []byte("\x00\xff")},
	}
	for _, msg := range foreign {
		if err := raw.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	if err := raw.Flush(); err != nil {
		t.Fatal(err)
	}
	odd := message.NewMessage("odd id with ümlaut\nand line", nil)
	odd.Metadata = message.Metadata{
		"plain": "a b", "colon:": "1", "": "2", "line": "a\r\nNats-Rollup: all", " space": " 3 ", "Nats-Rollup": "all", "ü": "ü", "zero": "",
	}
	publish(t, b, "t", odd)
	from := subscribe(ctx, t, b, "t")
	for i, want := range []string{"t:1", "x", "id"} {
		msg := next(ctx, t, from)
		if msg.UUID != want || string(msg.Payload) != string(foreign[i].Data) {
			t.Errorf("message %d: got %q with %q", i, msg.UUID, msg.Payload)
		}
		msg.Ack()
	}
	got := next(ctx, t, from)
	if got.UUID != odd.UUID {
		t.Errorf("got id %q", got.UUID)
	}
	for name, value := range odd.Metadata {
		if got.Metadata[name] != value {
			t.Errorf("metadata %q is %q, want %q", name, got.Metadata[name], value)
		}
	}
}

func TestStreamsAreMadeWithLimitsAndKeepWhatAnOperatorSet(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	server := natstest.Start(t)
	raw, err := nats.Connect(server.URL, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	js, err := jetstream.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	config := func() jetstream.StreamConfig {
		t.Helper()
		stream, err := js.Stream(ctx, "a_b")
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().Config
	}
	if err := open(t, natsjs.Config{URL: server.URL}).SubscribeInitialize("a.b"); err != nil {
		t.Fatal(err)
	}
	if c := config(); c.MaxAge != 7*24*time.Hour || c.MaxBytes != 1<<30 || c.Duplicates != 2*time.Minute || c.Discard != jetstream.DiscardOld {
		t.Fatalf("made with %+v", c)
	}
	c := config()
	c.Description = "by an operator"
	if _, err := js.UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
	changed := open(t, natsjs.Config{URL: server.URL, MaxAge: time.Hour, Refuse: true})
	publish(t, changed, "a.b", numbered(1, 1)...)
	if c := config(); c.MaxAge != time.Hour || c.Discard != jetstream.DiscardNew || c.Description != "by an operator" {
		t.Fatalf("changed to %+v", c)
	}
	if err := changed.Publish("a_b", numbered(2, 2)...); err == nil || !strings.Contains(err.Error(), "carries the subjects") {
		t.Fatalf("got %v", err)
	}
	for _, topic := range []string{"", "a..b", "a b", "*", "a.>", "a/b"} {
		if err := changed.Publish(topic, numbered(3, 3)...); err == nil {
			t.Errorf("%q is taken for a topic", topic)
		}
	}
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for _, cfg := range []natsjs.Config{{URL: "nats://bad url"}, {Credentials: "/does/not/exist"}} {
		if _, err := natsjs.Open(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
