package natsjs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/outbox"
)

var (
	// errGap says that the server sent a message that did not arrive.
	errGap = errors.New("a message did not arrive")
	// errReplaced says that the stream has another message in the place of the one that was handed out last.
	errReplaced = errors.New("the server came back with an older copy of its store")
)

// clockSkew is how far the clock of a server may be behind that of the one it replaces. A store that was restored is read
// from so much before the last message that was handed out, since its sequences say nothing any more.
const clockSkew = time.Minute

// readAhead is how many messages a subscription without a group holds besides the one that is handed out.
const readAhead = 16

// subscription is one call of Subscribe. All but ctx is used by one goroutine at a time.
type subscription struct {
	b     *Broker
	ctx   context.Context
	topic string
	out   chan *message.Message

	// Without a group the place is kept here, and the server's consumer is thrown away whenever something breaks.
	made     time.Time // when the stream was made that next belongs to
	next     uint64    // the sequence in the stream to go on with
	last     time.Time // when the message before next was stored; zero: none was handed out
	seen     uint64    // the sequence within the consumer of the last message
	compare  bool      // the consumer begins with the message before next
	replaced bool      // the stream has it no more, though it is not old
}

// Subscribe starts a subscription that ends with ctx or with Close; then its channel is closed. When it returns, the
// server knows of it: nothing that is published from then on passes it by. The context of a message ends when it is
// answered. It fails when the server does not answer.
func (b *Broker) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if !b.enter() {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.closing, cancel)
	s := &subscription{b: b, ctx: ctx, topic: topic, out: make(chan *message.Message)}
	end := func() {
		stop()
		cancel()
		b.running.Done()
	}
	connection := b.nextConnection()
	consumer, err := s.open()
	if err != nil {
		end()
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	go func() {
		defer end()
		defer close(s.out)
		s.run(consumer, connection)
	}()
	return s.out, nil
}

// run consumes until the subscription ends, with a new consumer after each new connection and each failure.
func (s *subscription) run(consumer jetstream.Consumer, connection <-chan struct{}) {
	for wait := time.Duration(0); ; {
		if consumer != nil {
			err := s.consume(consumer, connection)
			s.leave(consumer)
			if s.ctx.Err() != nil {
				return
			}
			if err == nil {
				wait = 0
			} else if !errors.Is(err, errGap) {
				s.b.cfg.Logger.Warn("a subscription starts again", "topic", s.topic, "error", err)
				s.b.forget(s.topic)
			}
		}
		if !s.pause(wait) {
			return
		}
		wait = min(max(2*wait, 10*time.Millisecond), time.Second)
		connection = s.b.nextConnection()
		var err error
		if consumer, err = s.open(); err != nil {
			consumer = nil
			s.b.forget(s.topic)
		}
	}
}

// open makes the consumer on the server, and the stream if it is not there.
func (s *subscription) open() (jetstream.Consumer, error) {
	ctx, cancel := s.b.asking(s.ctx)
	defer cancel()
	stream, err := s.b.stream(ctx, s.topic)
	if err != nil {
		return nil, err
	}
	if group := s.b.cfg.Group; group != "" {
		return stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       strings.ReplaceAll(group, ".", "_"),
			FilterSubject: s.topic,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       s.b.cfg.AckWait,
			MaxAckPending: s.b.cfg.InFlight,
		})
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case !s.made.IsZero() && info.Created.Equal(s.made):
		s.replaced = s.replaced || s.next > info.State.LastSeq+1
	case s.made.IsZero() && s.b.cfg.New:
		s.next = info.State.LastSeq + 1
	default: // the first time; or another stream than before, which has nothing that was seen
		s.next, s.last, s.replaced = 1, time.Time{}, false
	}
	s.made, s.seen = info.Created, 0
	config := jetstream.ConsumerConfig{
		FilterSubject:     s.topic,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	}
	s.place(&config, info.State.LastSeq)
	return stream.CreateConsumer(ctx, config)
}

// place says where a consumer without a group starts: with the message that was handed out last, to see that it is still
// there. When it is not, the server has lost the end of its stream and gives those sequences out anew, perhaps has done so long
// since; what was stored after that message is then known by its time alone.
func (s *subscription) place(config *jetstream.ConsumerConfig, lastSequence uint64) {
	config.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
	s.compare = false
	switch {
	case s.last.IsZero():
		config.OptStartSeq = min(s.next, lastSequence+1) // the server waits for a sequence that is far off
	case s.replaced:
		since := s.last.Add(-clockSkew)
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	default:
		config.OptStartSeq, s.compare = s.next-1, true
	}
}

// leave takes a consumer off the server that nobody will come back to.
func (s *subscription) leave(consumer jetstream.Consumer) {
	if s.b.cfg.Group != "" || !s.b.conn.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Second)
	defer cancel()
	info := consumer.CachedInfo()
	_ = s.b.js.DeleteConsumer(ctx, info.Stream, info.Name) // otherwise the server does it after a minute
}

// consume hands out messages. It returns nil when the subscription ends or there is a new connection, on which it is
// unknown what the server believes to have sent; the message in hand is answered before that.
//
// It asks for one batch after the other. The library's own endless flow can forget to ask again when a message is
// answered very fast, and then waits until it misses heartbeats.
func (s *subscription) consume(consumer jetstream.Consumer, connection <-chan struct{}) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go func() {
		select {
		case <-connection:
			cancel()
		case <-ctx.Done():
		}
	}()
	ahead := readAhead
	if s.b.cfg.Group != "" {
		ahead = 1 // what waits here can go to no other process, and its time runs
	}
	for ctx.Err() == nil {
		batch, err := consumer.Fetch(ahead, jetstream.FetchContext(ctx))
		if err != nil {
			return err
		}
		for in := range batch.Messages() {
			if ctx.Err() != nil {
				s.giveBack(in)
			} else if err := s.take(in); err != nil {
				return err
			}
		}
		if err := batch.Error(); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// take hands out one message and waits for its answer. An error says that the consumer is of no more use.
func (s *subscription) take(in jetstream.Msg) error {
	at, err := in.Metadata()
	if err != nil {
		return err
	}
	if s.b.cfg.Group == "" {
		if at.Sequence.Consumer != s.seen+1 {
			return errGap
		}
		s.seen++
		if again, err := s.again(at); again || err != nil {
			return err
		}
	}
	if !s.deliver(in, at) {
		return s.ctx.Err()
	}
	s.next, s.last, s.replaced = at.Sequence.Stream+1, at.Timestamp, false
	return nil
}

// again tells whether it is the message that was handed out last, and fails when another has its place.
func (s *subscription) again(at *jetstream.MsgMetadata) (bool, error) {
	compare := s.compare
	s.compare = false
	if !compare || at.Sequence.Stream >= s.next { // it has grown old meanwhile
		return false, nil
	}
	s.replaced = !at.Timestamp.Equal(s.last)
	if s.replaced {
		return false, errReplaced
	}
	return true, nil
}

// giveBack lets a group's message go to another process at once.
func (s *subscription) giveBack(in jetstream.Msg) {
	if s.b.cfg.Group != "" {
		_ = in.Nak() // if it does not arrive, the message goes there after AckWait
	}
}

// deliver offers a message until it is acknowledged, and returns false when the subscription ended before that.
func (s *subscription) deliver(in jetstream.Msg, at *jetstream.MsgMetadata) bool {
	grouped := s.b.cfg.Group != ""
	alive := time.NewTicker(s.b.cfg.AckWait / 3)
	defer alive.Stop()
	decoded := decode(in, at.Stream, at.Sequence.Stream)
	if grouped && !s.b.cfg.Foreign && at.NumDelivered > 1 {
		decoded.Metadata.Set(outbox.MetaHandedOut, strconv.FormatUint(at.NumDelivered-1, 10))
	}
	for wait := time.Duration(0); ; wait = min(max(2*wait, time.Millisecond), time.Second) {
		acked, ended := s.offer(decoded.Copy(), wait, alive.C, func() {
			if grouped {
				_ = in.InProgress() // if it is not told, it hands the message to another: at least once
			}
		})
		if ended {
			s.giveBack(in)
			return false
		}
		if acked {
			if grouped {
				_ = in.Ack()
			}
			return true
		}
	}
}

// offer waits first, then for a taker, then for the answer, and says meanwhile that it is alive.
func (s *subscription) offer(
	msg *message.Message, wait time.Duration, alive <-chan time.Time, say func(),
) (acked, ended bool) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	msg.SetContext(ctx)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var out chan<- *message.Message
	for {
		select {
		case <-timer.C:
			out = s.out
		case out <- msg:
			out = nil
		case <-msg.Acked():
			return true, false
		case <-msg.Nacked():
			return false, false
		case <-alive:
			say()
		case <-s.ctx.Done():
			return false, true
		}
	}
}

// pause waits about so long; it returns false when the subscription ended.
func (s *subscription) pause(about time.Duration) bool {
	timer := time.NewTimer(about/2 + time.Duration(rand.Int64N(int64(about)+1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.b.nextConnection():
		return true
	case <-s.ctx.Done():
		return false
	}
}
