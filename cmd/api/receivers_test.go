package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/outbox"
)

// receiving is a program that has receivers and nothing else, with a broker within the process.
func receiving(t *testing.T, topic string, handle func(context.Context, *message.Message) error) (*outbox.Local, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	local := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	a := &app{log: slog.New(slog.DiscardHandler)}
	a.receive(local, topic, handle)
	var all sync.WaitGroup
	if err := a.startReceivers(ctx, &all); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = local.Close()
		all.Wait()
	})
	return local, ctx
}

// A receiver that panics has failed, and takes nothing else down: the message would be claimed by one process after the other.
func TestAPanickingReceiverHasFailed(t *testing.T) {
	t.Parallel()
	local, ctx := receiving(t, "letters", func(_ context.Context, m *message.Message) error {
		if m.UUID == "bad" {
			panic("ouch")
		}
		return nil
	})
	publish := func(id string) error {
		return local.Publish("letters", message.NewMessageWithContext(ctx, id, nil))
	}
	if err := publish("bad"); !errors.Is(err, outbox.ErrNotAcknowledged) {
		t.Fatalf("after a panic publish gave %v", err)
	}
	if err := publish("good"); err != nil {
		t.Fatalf("the receiver is gone: %v", err)
	}
}

// Messages of a slow receiver do not wait for each other: each has its time for itself, and none of another topic waits.
func TestAReceiverHasAsManyMessagesAtOnceAsTheDispatcher(t *testing.T) {
	t.Parallel()
	var started atomic.Int32
	full := make(chan struct{})
	local, ctx := receiving(t, "letters", func(ctx context.Context, _ *message.Message) error {
		if started.Add(1) == deliveriesAtOnce {
			close(full)
		}
		select {
		case <-full:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var all sync.WaitGroup
	for range deliveriesAtOnce {
		all.Go(func() {
			if err := local.Publish("letters", message.NewMessageWithContext(ctx, uuid.NewString(), nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// With a shared broker it is the broker that repeats what ends its receiver's process. The outbox counts, and the broker not.
func TestAnAbandonedMessageGoesBackToTheOutbox(t *testing.T) {
	t.Parallel()
	tried, returned := 0, 0
	a := &app{log: slog.New(slog.DiscardHandler), takeBack: func(context.Context, string, *message.Message, error) error {
		returned++
		return nil
	}}
	r := receiver{topic: "letters", handle: func(context.Context, *message.Message) error { tried++; return nil }}
	for before, want := range map[string][2]int{"": {1, 0}, "1": {1, 0}, "2": {0, 1}, "30": {0, 1}} {
		tried, returned = 0, 0
		m := message.NewMessage(uuid.NewString(), nil)
		m.Metadata.Set(outbox.MetaHandedOut, before)
		a.deliver(r, m)
		select {
		case <-m.Acked():
		default:
			t.Errorf("after %q that did not answer it is not acknowledged", before)
		}
		if got := [2]int{tried, returned}; got != want {
			t.Errorf("after %q that did not answer it was tried and returned %v times, want %v", before, got, want)
		}
	}
}
