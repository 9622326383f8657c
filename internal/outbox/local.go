package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrClosed is returned by a Local that was closed.
var ErrClosed = errors.New("the local broker is closed")

// LocalConfig configures a Local. The zero value is ready for the log's topic.
type LocalConfig struct {
	// Queue is how many messages may wait for one subscription before Publish blocks. Default 256.
	Queue int
	// Keep is how many messages of a topic without subscriptions are kept: the newest that nobody has acknowledged.
	// A new subscription starts with them. Default 256; -1 keeps none.
	Keep int
	// AwaitAck makes Publish return when every subscriber has acknowledged, or with ErrNotAcknowledged at the first
	// refusal. Nothing is queued, kept or redelivered: each message is offered by itself, in no order with those of other
	// calls, and the publisher repeats. This is the mode for a Dispatcher.
	AwaitAck bool
}

// Local is a broker within the process: a message.Publisher and a message.Subscriber. All subscriptions of a topic see
// its messages in the same order, each message once; the next message comes when the last one was acknowledged, and a
// refused one comes again before any other. It is not durable: what it holds is gone with the process. With AwaitAck it
// is less: a call of those that subscribe.
//
// Publish blocks while the queue of a subscription is full, so a subscriber that does not acknowledge holds up the
// publishers of its topic. All methods are safe for concurrent use.
type Local struct {
	cfg     LocalConfig
	closing chan struct{}
	running sync.WaitGroup // one for each subscription

	mu     sync.Mutex
	closed bool
	topics map[string]*localTopic
}

type localTopic struct {
	subs []*localSubscription
	kept []*localEntry // in order, from the oldest that nobody acknowledged
	room chan struct{} // closed and replaced when a queue has room again or a subscription ends
}

// localEntry is one published message on its way.
type localEntry struct {
	msg   *message.Message
	acked bool // by at least one subscriber; guarded by Local.mu
}

type localSubscription struct {
	ctx   context.Context
	topic string
	out   chan *message.Message
	queue []*localEntry  // guarded by Local.mu
	more  chan struct{}  // holds a token when the queue may have become non-empty
	asked sync.WaitGroup // with AwaitAck: messages on offer or in hand; added to with Local.mu held while it is subscribed
}

// NewLocal returns an open broker. Close ends it.
func NewLocal(cfg LocalConfig) *Local {
	if cfg.Queue <= 0 {
		cfg.Queue = 256
	}
	if cfg.Keep == 0 {
		cfg.Keep = 256
	}
	return &Local{cfg: cfg, closing: make(chan struct{}), topics: make(map[string]*localTopic)}
}

// Publish queues the messages for every subscription of the topic, in order. It blocks while a queue is full, and with
// AwaitAck until all have answered the message. It fails with ErrClosed, with ErrNotAcknowledged, or with the error of a
// message's context, with ErrNotTaken beside it if nobody took the message; the messages before it are published.
func (l *Local) Publish(topic string, messages ...*message.Message) error {
	publish := l.publish
	if l.cfg.AwaitAck {
		publish = l.ask
	}
	for _, msg := range messages {
		if err := publish(topic, msg); err != nil {
			return fmt.Errorf("publish to %s: %w", topic, err)
		}
	}
	return nil
}

func (l *Local) publish(topic string, msg *message.Message) error {
	ctx := msg.Context()
	entry := &localEntry{msg: msg.Copy()}
	for {
		full, err := l.enqueue(topic, entry)
		if err != nil {
			return err
		}
		if full == nil {
			break
		}
		select {
		case <-full:
		case <-l.closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// enqueue puts the entry into all queues of the topic or into none: then it returns a channel that is closed when it is
// worth another try. All or none is what gives concurrent publishers one order for all subscriptions.
func (l *Local) enqueue(topic string, entry *localEntry) (full <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	t := l.topic(topic)
	for _, s := range t.subs {
		if len(s.queue) >= l.cfg.Queue {
			return t.room, nil
		}
	}
	t.keep(entry, l.cfg.Keep)
	for _, s := range t.subs {
		s.push(entry)
	}
	return nil, nil
}

// topic is called with the lock held.
func (l *Local) topic(name string) *localTopic {
	t := l.topics[name]
	if t == nil {
		t = &localTopic{room: make(chan struct{})}
		l.topics[name] = t
	}
	return t
}

func (t *localTopic) keep(entry *localEntry, limit int) {
	if limit < 0 {
		return
	}
	t.kept = append(t.kept, entry)
	// With subscriptions the queues are the bound: an entry leaves when the first of them acknowledges.
	if len(t.subs) == 0 && len(t.kept) > limit {
		t.kept = t.kept[1:]
	}
}

func (t *localTopic) wakePublishers() {
	close(t.room)
	t.room = make(chan struct{})
}

func (s *localSubscription) push(entry *localEntry) {
	s.queue = append(s.queue, entry)
	signal(s.more)
}

// Subscribe starts a subscription that ends with ctx or with Close; then its channel is closed. It starts with the
// messages that were kept for the topic. The context of a message is derived from ctx and ends when it is answered.
func (l *Local) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, ErrClosed)
	}
	t := l.topic(topic)
	s := &localSubscription{
		ctx: ctx, topic: topic,
		out:  make(chan *message.Message),
		more: make(chan struct{}, 1),
	}
	for _, entry := range t.kept {
		if !entry.acked {
			s.push(entry)
		}
	}
	t.subs = append(t.subs, s)
	l.running.Add(1)
	go l.serve(s)
	return s.out, nil
}

// Close ends all subscriptions and fails all publishers that wait. It returns when every subscription's channel is
// closed, and may be called more than once.
func (l *Local) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
	}
	l.mu.Unlock()
	l.running.Wait()
	return nil
}

func (l *Local) serve(s *localSubscription) {
	defer l.running.Done()
	defer close(s.out)
	defer s.asked.Wait()
	defer l.unsubscribe(s)
	for {
		entry := l.head(s)
		if entry == nil {
			select {
			case <-s.more:
				continue
			case <-s.ctx.Done():
				return
			case <-l.closing:
				return
			}
		}
		if ended := l.deliver(s, entry); ended {
			return
		}
	}
}

func (l *Local) head(s *localSubscription) *localEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	return s.queue[0]
}

// deliver offers the entry until it is acknowledged, which also settles it.
func (l *Local) deliver(s *localSubscription, entry *localEntry) (ended bool) {
	for refusals := 0; ; refusals++ {
		if acked, ended := l.offer(s, entry); acked || ended {
			return ended
		}
		// A subscriber that refuses at once must not keep a processor busy.
		pause := time.NewTimer(min(time.Duration(refusals)*time.Millisecond, 20*time.Millisecond))
		select {
		case <-pause.C:
		case <-s.ctx.Done():
			return true
		case <-l.closing:
			return true
		}
	}
}

func (l *Local) offer(s *localSubscription, entry *localEntry) (acked, ended bool) {
	msg, cancel := s.copyOf(entry.msg)
	defer cancel()
	if !l.hand(s, msg, nil) {
		return false, true
	}
	acked, ended = l.answer(s, msg)
	if acked {
		l.settle(s, entry) // before the message's context ends: whoever waits for that finds it taken
	}
	return acked, ended
}

// copyOf is what the subscription is given: answers belong to one subscription, and to one delivery.
func (s *localSubscription) copyOf(original *message.Message) (*message.Message, context.CancelFunc) {
	ctx, cancel := context.WithCancel(s.ctx)
	msg := original.Copy()
	msg.SetContext(ctx)
	return msg, cancel
}

// hand gives the message to the subscriber. False: it was withdrawn, or the subscription ended, before it was taken.
func (l *Local) hand(s *localSubscription, msg *message.Message, withdrawn <-chan struct{}) bool {
	select {
	case s.out <- msg:
		return true
	case <-withdrawn:
	case <-s.ctx.Done():
	case <-l.closing:
	}
	return false
}

// answer waits for the subscriber's answer to a message that it has taken, or for the end of the subscription.
func (l *Local) answer(s *localSubscription, msg *message.Message) (acked, ended bool) {
	select {
	case <-msg.Acked():
		return true, false
	case <-msg.Nacked():
		return false, false
	case <-s.ctx.Done():
		return false, true
	case <-l.closing:
		return false, true
	}
}

// settle takes the acknowledged entry off the subscription's queue.
func (l *Local) settle(s *localSubscription, entry *localEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[s.topic]
	wasFull := len(s.queue) >= l.cfg.Queue
	s.queue[0] = nil
	s.queue = s.queue[1:]
	if wasFull {
		t.wakePublishers()
	}
	entry.acked = true
	for len(t.kept) > 0 && t.kept[0].acked {
		t.kept[0] = nil
		t.kept = t.kept[1:]
	}
}

// unsubscribe removes the subscription.
func (l *Local) unsubscribe(s *localSubscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[s.topic]
	for i := range t.subs {
		if t.subs[i] == s {
			t.subs = append(t.subs[:i:i], t.subs[i+1:]...)
			break
		}
	}
	s.queue = nil
	t.wakePublishers()
	if len(t.subs) > 0 {
		return
	}
	if over := len(t.kept) - max(l.cfg.Keep, 0); over > 0 {
		t.kept = t.kept[over:]
	}
	if len(t.kept) == 0 {
		delete(l.topics, s.topic) // a topic that nobody uses must not stay in memory
	}
}
