package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// A subscriber that refuses for ever holds up neither the others, as far as its own queue reaches, nor a processor: it is told
// less and less often.
func TestLocalKeepsOneThatRefusesFromTheOthers(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{Queue: 4})
	defer l.Close()
	refusing, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	willing, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("t", newMessage("1"), newMessage("2"), newMessage("3"), newMessage("4")); err != nil {
		t.Fatal(err)
	}
	start, least := time.Now(), time.Duration(0)
	for refusals := range 30 {
		msg := receive(ctx, t, refusing)
		if msg.UUID != "1" {
			t.Fatalf("got %s before 1 was acknowledged", msg.UUID)
		}
		if took := time.Since(start); took < least {
			t.Fatalf("refused %d times within %v, and the pauses alone take %v", refusals, took, least)
		}
		msg.Nack()
		least += min(time.Duration(refusals)*time.Millisecond, 20*time.Millisecond)
	}
	for _, want := range []string{"1", "2", "3", "4"} {
		msg := receive(ctx, t, willing)
		if msg.UUID != want {
			t.Fatalf("got %s, want %s", msg.UUID, want)
		}
		msg.Ack()
	}
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Publish("t", message.NewMessageWithContext(impatient, "5", nil)); !errors.Is(err, context.Canceled) {
		t.Fatalf("with a queue full of what is refused publish gave %v", err)
	}
}

// A publisher that waits for answers is let go by Close, whether its message is in somebody's hands or still in a queue.
func TestLocalAwaitAckEndsWithClose(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	from, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id string) <-chan error {
		done := make(chan error, 1)
		go func() { done <- l.Publish("t", newMessage(id)) }()
		return done
	}
	inHand := publish("in hand")
	receive(ctx, t, from) // and never answered
	queued := publish("queued")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for what, done := range map[string]<-chan error{"in hand": inHand, "queued": queued} {
		select {
		case err := <-done:
			if !errors.Is(err, outbox.ErrClosed) {
				t.Errorf("the publisher of the message %s got %v", what, err)
			}
		case <-ctx.Done():
			t.Fatalf("the publisher of the message %s waits on", what)
		}
	}
}
