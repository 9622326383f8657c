package natsjs

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/outbox"
)

// window is how many messages of one call may be on their way before the first of them is acknowledged.
const window = 256

const (
	// codeWrongLastID is the server's answer to a message that does not follow the one that it names.
	codeWrongLastID jetstream.ErrorCode = 10070
	// codeTooLarge is its answer to a message that is over the limit of the stream, which an operator may have set.
	codeTooLarge jetstream.ErrorCode = 10054
)

// Publish sends the messages and returns when the server has acknowledged all. They are sent without waiting for each
// other, and yet a message is stored only if the one before it was: after an error, of which the caller knows not how
// many messages it hit, the same call may be repeated without harm.
//
// It fails with ErrClosed, with outbox.ErrTooLarge, with the error of a message's context, or because the server did not
// acknowledge within PublishTimeout.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	if !b.enter() {
		return fmt.Errorf("publish to %s: %w", topic, ErrClosed)
	}
	defer b.running.Done()
	if err := b.publish(topic, messages); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

func (b *Broker) publish(topic string, messages []*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if _, err := b.stream(messages[0].Context(), topic); err != nil {
		return err
	}
	encoded := make([]*nats.Msg, len(messages))
	chained := true
	var err error
	for i, msg := range messages {
		if encoded[i], err = encode(topic, msg); err != nil {
			return err
		}
		if limit := b.conn.MaxPayload(); limit > 0 && int64(size(encoded[i])) > limit {
			return fmt.Errorf("message %s: %w: the server takes %d bytes", msg.UUID, outbox.ErrTooLarge, limit)
		}
		chained = chained && encoded[i].Header[jetstream.MsgIDHeader] != nil
	}
	if len(messages) > 1 {
		// Messages of other calls in between would break the chain.
		turn := b.turn(topic)
		turn.Lock()
		defer turn.Unlock()
	}
	done := 0
	if chained {
		done, err = b.send(messages, encoded, window)
	}
	if !chained || refusedWith(err, codeWrongLastID) {
		// Another process publishes to this topic too. Then one message goes after the other.
		for _, msg := range encoded[done:] {
			delete(msg.Header, jetstream.ExpectedLastMsgIDHeader)
		}
		_, err = b.send(messages[done:], encoded[done:], 1)
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) {
		b.forget(topic)
	}
	if refusedWith(err, codeTooLarge) {
		return fmt.Errorf("%w: %w", outbox.ErrTooLarge, err)
	}
	return err
}

// turn lets calls with several messages for one topic follow each other.
func (b *Broker) turn(topic string) *sync.Mutex {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.publishing[topic] == nil {
		b.publishing[topic] = &sync.Mutex{}
	}
	return b.publishing[topic]
}

// send returns how many messages, from the first, were acknowledged. With a limit above one each message names the one
// before it, and the server refuses it unless that is the last it stored.
func (b *Broker) send(messages []*message.Message, encoded []*nats.Msg, limit int) (done int, err error) {
	acks := make([]jetstream.PubAckFuture, 0, len(encoded))
	var failed error
	for done < len(encoded) {
		for failed == nil && len(acks) < len(encoded) && len(acks)-done < limit {
			next := encoded[len(acks)]
			if limit > 1 && len(acks) > 0 {
				next.Header[jetstream.ExpectedLastMsgIDHeader] = encoded[len(acks)-1].Header[jetstream.MsgIDHeader]
			}
			var ack jetstream.PubAckFuture
			// No retries by the library: they would come after what was sent meanwhile.
			if ack, failed = b.js.PublishMsgAsync(next, jetstream.WithRetryAttempts(0)); failed == nil {
				acks = append(acks, ack)
			}
		}
		if done == len(acks) {
			return done, failed
		}
		ctx := messages[done].Context()
		select {
		case <-acks[done].Ok():
			done++
		case err := <-acks[done].Err():
			return done, err
		case <-ctx.Done():
			return done, context.Cause(ctx)
		}
	}
	return done, nil
}

func refusedWith(err error, code jetstream.ErrorCode) bool {
	var refused *jetstream.APIError
	return errors.As(err, &refused) && refused.ErrorCode == code
}

// size is a little more than what the server counts against its limit.
func size(msg *nats.Msg) int {
	n := len(msg.Data) + 64
	for name, values := range msg.Header {
		for _, value := range values {
			n += len(name) + len(value) + 4
		}
	}
	return n
}
