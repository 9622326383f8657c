package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/headrace/headrace/internal/outbox"
)

func TestLocalPassesWatermillsSuite(t *testing.T) {
	t.Parallel()
	features := tests.Features{GuaranteedOrder: true, ExactlyOnceDelivery: true, RequireSingleInstance: true}
	tests.TestPubSub(t, features, func(*testing.T) (message.Publisher, message.Subscriber) {
		l := outbox.NewLocal(outbox.LocalConfig{Keep: 20_000})
		return l, l
	}, nil)
}

func newMessage(id string) *message.Message { return message.NewMessage(id, []byte(id)) }

// receive takes the next message, or fails the test when ctx ends first.
func receive(ctx context.Context, t testing.TB, from <-chan *message.Message) *message.Message {
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

func TestLocalGivesAllSubscriptionsOneOrder(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{Queue: 4})
	const publishers, each = 8, 100
	orders := make([][]string, 3)
	var readers, writers sync.WaitGroup
	for i := range orders {
		from, err := l.Subscribe(ctx, "t")
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			for msg := range from { // which ends with the deadline
				orders[i] = append(orders[i], msg.UUID)
				msg.Ack()
				if len(orders[i]) == publishers*each {
					return
				}
			}
		})
	}
	for p := range publishers {
		writers.Go(func() {
			for n := range each {
				if err := l.Publish("t", newMessage(fmt.Sprintf("%d-%d", p, n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	readers.Wait()
	for i := range orders {
		if len(orders[i]) != publishers*each {
			t.Fatalf("subscription %d saw %d messages", i, len(orders[i]))
		}
		for n := range orders[0] {
			if orders[i][n] != orders[0][n] {
				t.Fatalf("subscription %d saw %s as its message %d, the first one saw %s", i, orders[i][n], n, orders[0][n])
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLocalRedeliversBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{})
	defer l.Close()
	from, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("t", newMessage("a"), newMessage("b")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		msg := receive(ctx, t, from)
		if msg.UUID != "a" {
			t.Fatalf("got %s before a was acknowledged", msg.UUID)
		}
		msg.Nack()
	}
	for _, want := range []string{"a", "b"} {
		msg := receive(ctx, t, from)
		if msg.UUID != want {
			t.Fatalf("got %s, want %s", msg.UUID, want)
		}
		msg.Ack()
	}
}

func TestLocalKeepsTheNewestUntilSomebodySubscribes(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{Keep: 3})
	defer l.Close()
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		if err := l.Publish("t", newMessage(id)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3", "4", "5"} {
		msg := receive(ctx, t, first)
		if msg.UUID != want {
			t.Fatalf("got %s, want %s", msg.UUID, want)
		}
		msg.Ack()
		<-msg.Context().Done()
	}
	second, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("t", newMessage("6")); err != nil {
		t.Fatal(err)
	}
	if msg := receive(ctx, t, second); msg.UUID != "6" {
		t.Fatalf("a later subscription got %s, which was acknowledged before", msg.UUID)
	}
}

func TestLocalPublishBlocksWhileAQueueIsFull(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{Queue: 1})
	defer l.Close()
	from, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("t", newMessage("a")); err != nil {
		t.Fatal(err)
	}

	// A publisher that gives up is told so.
	impatient, cancel := context.WithCancel(ctx)
	refused := make(chan error, 1)
	go func() { refused <- l.Publish("t", message.NewMessageWithContext(impatient, "b", nil)) }()
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Fatalf("publish to a full queue gave %v", err)
	}

	// A publisher that waits goes on when the subscriber has acknowledged.
	done := make(chan error, 1)
	go func() { done <- l.Publish("t", newMessage("c")) }()
	receive(ctx, t, from).Ack()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if msg := receive(ctx, t, from); msg.UUID != "c" {
		t.Fatalf("got %s: a message whose publisher was refused was delivered", msg.UUID)
	}
}

func TestLocalCloseEndsEverything(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{Queue: 1})
	from, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("t", newMessage("a")); err != nil {
		t.Fatal(err)
	}
	held := receive(ctx, t, from) // never answered
	blocked := make(chan error, 1)
	go func() { blocked <- l.Publish("t", newMessage("b")) }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-blocked; !errors.Is(err, outbox.ErrClosed) {
		t.Fatalf("a blocked publisher got %v", err)
	}
	if _, open := <-from; open {
		t.Fatal("the subscription outlived its broker")
	}
	if held.Context().Err() == nil {
		t.Fatal("the context of an unanswered message outlived the broker")
	}
	if err := l.Publish("t", newMessage("c")); !errors.Is(err, outbox.ErrClosed) {
		t.Fatalf("publish after close gave %v", err)
	}
	if _, err := l.Subscribe(ctx, "t"); !errors.Is(err, outbox.ErrClosed) {
		t.Fatalf("subscribe after close gave %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLocalAwaitAck(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	defer l.Close()
	one, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	leaving, leave := context.WithCancel(ctx)
	two, err := l.Subscribe(leaving, "t")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id string) <-chan error {
		done := make(chan error, 1)
		go func() { done <- l.Publish("t", newMessage(id)) }()
		return done
	}

	done := publish("both acknowledge")
	receive(ctx, t, one).Ack()
	select {
	case err := <-done:
		t.Fatalf("publish returned %v before all had answered", err)
	default:
	}
	receive(ctx, t, two).Ack()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	done = publish("one refuses")
	receive(ctx, t, two).Nack()
	if err := <-done; !errors.Is(err, outbox.ErrNotAcknowledged) {
		t.Fatalf("after a refusal publish gave %v", err)
	}
	receive(ctx, t, one).Ack()

	done = publish("one leaves")
	receive(ctx, t, one).Ack()
	receive(ctx, t, two)
	leave()
	if err := <-done; !errors.Is(err, outbox.ErrNotAcknowledged) {
		t.Fatalf("when a subscriber left publish gave %v", err)
	}

	done = publish("one is enough")
	if msg := receive(ctx, t, one); msg.UUID != "one is enough" {
		t.Fatalf("%s was delivered again", msg.UUID)
	} else {
		msg.Ack()
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// One message that takes long holds up no other, and what its publisher gave up is handed out to nobody.
func TestLocalAwaitAckOffersEachMessageByItself(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	l := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	defer l.Close()
	from, err := l.Subscribe(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(ctx context.Context, id string) <-chan error {
		done := make(chan error, 1)
		go func() { done <- l.Publish("t", message.NewMessageWithContext(ctx, id, nil)) }()
		return done
	}
	slowDone := publish(ctx, "slow")
	slow := receive(ctx, t, from)

	gone, give := context.WithCancel(ctx)
	goneDone := publish(gone, "given up")
	give()
	if err := <-goneDone; !errors.Is(err, outbox.ErrNotTaken) || !errors.Is(err, context.Canceled) {
		t.Fatalf("nobody took it, and publish gave %v", err)
	}
	quickDone := publish(ctx, "quick")
	quick := receive(ctx, t, from)
	if quick.UUID != "quick" {
		t.Fatalf("%q came, whose publisher is gone", quick.UUID)
	}
	quick.Ack()
	if err := <-quickDone; err != nil {
		t.Fatal(err)
	}
	if slow.Context().Err() != nil {
		t.Fatal("the slow one's context ended before it was answered")
	}
	slow.Ack()
	if err := <-slowDone; err != nil {
		t.Fatal(err)
	}

	// Who took it and is silent was tried.
	gone, give = context.WithCancel(ctx)
	goneDone = publish(gone, "unanswered")
	receive(ctx, t, from)
	give()
	if err := <-goneDone; errors.Is(err, outbox.ErrNotTaken) || !errors.Is(err, context.Canceled) {
		t.Fatalf("without an answer publish gave %v", err)
	}
}

func TestLocalAwaitAckWithoutSubscriber(t *testing.T) {
	t.Parallel()
	l := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	defer l.Close()
	if err := l.Publish("t", newMessage("a")); !errors.Is(err, outbox.ErrNotAcknowledged) {
		t.Fatalf("without a subscriber publish gave %v", err)
	}
}
