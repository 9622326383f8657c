package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// deliveriesAtOnce is how many messages of the outbox the dispatcher has in hand at once, and how many of its topic a
// receiver has at most: as many, so that none waits for a slow one before it.
const deliveriesAtOnce = 16

// receiver works on the messages of a topic: on several at once, in no order, and on each at least once.
type receiver struct {
	broker message.Subscriber
	topic  string
	handle func(context.Context, *message.Message) error
}

func (a *app) receive(broker message.Subscriber, topic string, handle func(context.Context, *message.Message) error) {
	a.receivers = append(a.receivers, receiver{broker: broker, topic: topic, handle: handle})
}

// dispatch has the messages of the outbox published. It comes after all receivers are known.
func (a *app) dispatch(messages message.Publisher) {
	config := outbox.DispatcherConfig{
		Workers: deliveriesAtOnce, Shared: a.config.shared(), Grace: a.config.DrainTimeout, PollMax: idlePoll, Logger: a.log,
	}
	if !config.Shared {
		// Those of other topics are for processes of another release, which know them. None is not all.
		config.Topics = []string{}
		for _, r := range a.receivers {
			config.Topics = append(config.Topics, r.topic)
		}
	}
	dispatcher := outbox.NewDispatcher(a.pool, a.store, messages, config)
	if config.Shared {
		a.takeBack = dispatcher.Return
	}
	a.work("dispatcher", dispatcher.Run).first = true
}

// startReceivers subscribes all before the first message is dispatched. A broker that other processes share keeps the messages
// while it is away, or while nobody receives, so nothing waits for it here.
func (a *app) startReceivers(ctx context.Context, all *sync.WaitGroup) error {
	for _, r := range a.receivers {
		if a.takeBack != nil {
			all.Go(func() { a.receiveShared(ctx, r) })
			continue
		}
		// The subscription ends with the broker, after the dispatcher has had its answers.
		incoming, err := r.broker.Subscribe(context.WithoutCancel(ctx), r.topic)
		if err != nil {
			return fmt.Errorf("subscribing to %s: %w", r.topic, err)
		}
		all.Go(func() { a.deliverAll(r, incoming, all) })
	}
	return nil
}

// receiveShared subscribes again and again until ctx ends.
func (a *app) receiveShared(ctx context.Context, r receiver) {
	for {
		incoming, err := r.broker.Subscribe(context.WithoutCancel(ctx), r.topic)
		if err == nil {
			for m := range incoming {
				a.deliver(r, m)
			}
		}
		if !a.sleep(ctx, "subscribing", r.topic, err) {
			return
		}
	}
}

// deliverAll works on what comes until the subscription ends, on as many messages at once as the dispatcher has in hand.
func (a *app) deliverAll(r receiver, incoming <-chan *message.Message, all *sync.WaitGroup) {
	free := make(chan struct{}, deliveriesAtOnce)
	for {
		free <- struct{}{} // before the message is taken: what nobody works on is for its publisher to withdraw
		m, open := <-incoming
		if !open {
			return
		}
		all.Go(func() {
			defer func() { <-free }()
			a.deliver(r, m)
		})
	}
}

// sleep waits until it is worth another try; it returns false when there is none to be made.
func (a *app) sleep(ctx context.Context, what, topic string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		a.log.Warn(what+" failed; it is tried again", "topic", topic, "error", err)
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt has a message worked on. A panic is a failure like any other: it would take down every process that the message
// is given to, one after the other.
func (a *app) attempt(ctx context.Context, r receiver, m *message.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("a receiver panicked", "topic", r.topic, "message", m.UUID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.handle(ctx, m)
}

// abandonedOften is how many receivers have taken a message from a shared broker and not answered when no other tries it
// before the outbox has counted that.
const abandonedOften = 2

// abandoned says that others have taken the message and not answered. The broker would give it to one process after the
// other; the outbox counts, waits longer each time, and has an end.
func abandoned(m *message.Message) error {
	if n, _ := strconv.Atoi(m.Metadata.Get(outbox.MetaHandedOut)); n >= abandonedOften {
		return fmt.Errorf("%d receivers took it and did not answer, as when a message ends its process", n)
	}
	return nil
}

func (a *app) deliver(r receiver, m *message.Message) {
	ctx, cancel := context.WithTimeout(m.Context(), receiverTimeout)
	defer cancel()
	err := abandoned(m)
	if err == nil {
		err = a.attempt(ctx, r, m)
	}
	if err == nil {
		m.Ack()
		return
	}
	if m.Context().Err() != nil {
		m.Nack() // the server is shutting down: nothing is wrong with the message
		return
	}
	a.log.Error("a message could not be worked on; it comes again", "topic", r.topic, "message", m.UUID, "error", err)
	if a.takeBack == nil {
		m.Nack()
		return
	}
	bounded, stop := context.WithTimeout(m.Context(), receiverTimeout)
	defer stop()
	switch back := a.takeBack(bounded, r.topic, m, err); {
	case back == nil:
		m.Ack()
	case errors.Is(back, outbox.ErrForeign):
		a.log.Error("the message is given up: it did not come from the outbox", "topic", r.topic, "message", m.UUID, "error", back)
		m.Ack()
	default:
		a.log.Error("taking the message back failed; the broker repeats it", "topic", r.topic, "message", m.UUID, "error", back)
		m.Nack()
	}
}
