package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrNotAcknowledged is returned by Publish of a Local with AwaitAck when not every subscriber acknowledged: one
// refused the message, or ended before it answered, or there was none.
var ErrNotAcknowledged = errors.New("the message was not acknowledged")

// ErrNotTaken is returned by Publish of a Local with AwaitAck when the message's context ended while all subscribers were
// busy: it was offered to them and withdrawn, and none of them has seen it.
var ErrNotTaken = errors.New("no subscriber was free to take the message")

// ask is Publish with AwaitAck. Messages do not queue, since those behind a slow one would be given up by their publishers
// and worked on all the same; they are on offer beside each other, for as long as their publishers wait.
func (l *Local) ask(topic string, msg *message.Message) error {
	subs, err := l.askable(topic)
	if err != nil {
		return err
	}
	ctx := msg.Context()
	var taken atomic.Bool
	var onOffer sync.WaitGroup
	answers := make(chan bool, len(subs))
	for _, s := range subs {
		onOffer.Add(1)
		go func() {
			answers <- l.askOne(ctx, s, msg, func(took bool) {
				if took {
					taken.Store(true)
				}
				onOffer.Done()
			})
		}()
	}
	gaveUp := func() error {
		onOffer.Wait() // ctx has ended, and with it all offers; from here on nobody takes the message
		if taken.Load() {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w", ErrNotTaken, context.Cause(ctx))
	}
	for range subs {
		select {
		case acked := <-answers:
			switch {
			case acked:
			case l.isClosing():
				return ErrClosed
			case ctx.Err() != nil:
				return gaveUp()
			default:
				return ErrNotAcknowledged
			}
		case <-ctx.Done():
			return gaveUp()
		}
	}
	return nil
}

// askable returns the subscriptions of the topic. Each of them does not end before it was asked.
func (l *Local) askable(topic string) ([]*localSubscription, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	var subs []*localSubscription
	if t := l.topics[topic]; t != nil {
		for _, s := range t.subs {
			if s.ctx.Err() == nil { // else it is about to be removed
				s.asked.Add(1)
				subs = append(subs, s)
			}
		}
	}
	if len(subs) == 0 {
		return nil, fmt.Errorf("%w: no subscriber", ErrNotAcknowledged)
	}
	return subs, nil
}

// askOne offers the message to one subscription until ctx ends, says whether it was taken, and waits for the answer.
func (l *Local) askOne(ctx context.Context, s *localSubscription, original *message.Message, offered func(taken bool)) (acked bool) {
	defer s.asked.Done()
	msg, cancel := s.copyOf(original)
	defer cancel()
	taken := l.hand(s, msg, ctx.Done())
	offered(taken)
	if !taken {
		return false
	}
	acked, _ = l.answer(s, msg)
	return acked
}

func (l *Local) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}
