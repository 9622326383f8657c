// Package natsjs carries messages through NATS JetStream: a Watermill Publisher and Subscriber in one.
//
// What it promises:
//
//   - Publish returns nil only when the server has acknowledged every message, and the messages of one call are stored
//     in their order, also when the connection breaks and the caller repeats the call: each carries its UUID as
//     Nats-Msg-Id, by which the server drops repeats within Config.Dedupe.
//   - A subscription hands out the next message when the last one was acknowledged, and a refused one again before any
//     other. Subscriptions of one group share the messages, in order across all of them while Config.InFlight is 1. A
//     subscription without a group sees every message, and keeps its place across reconnects by itself, also when the
//     server comes back with an older copy of its store.
//   - A group's message goes to another process when its own is cut off for longer than Config.AckWait. The answer of the
//     first one still counts when it comes: the message is done with, for both.
//   - A message that no Headrace wrote is handed out as it is. Nothing that arrives makes it panic.
//   - A connection that is lost is made again for ever, and a stream that is lost is made anew.
//
// What it does not promise: that the server still has what it acknowledged. JetStream writes to disk some time after it
// acknowledges unless its sync_interval says "always", and a stream forgets what is older or more than Config allows.
// Consumers of the log do not mind: they trust Postgres, and read there what does not come.
package natsjs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrClosed is returned by a Broker that was closed.
var ErrClosed = errors.New("the connection to NATS is closed")

// Config configures a Broker. The zero value connects to a server on this machine.
type Config struct {
	// URL of the servers, comma-separated. Default nats://127.0.0.1:4222. A scheme of tls:// demands TLS.
	URL string
	// Credentials is the path of a credentials file. Default none.
	Credentials string
	// Name of the connection, as the server lists it. Default "headrace".
	Name string

	// Group is the name of the durable consumer that subscriptions share: each message goes to one of them, and what
	// comes while there is none waits. Default none: every subscription sees every message.
	Group string
	// New lets a subscription without a group start with what is published after it. Default: with the oldest message
	// that the stream has.
	New bool
	// InFlight is how many messages of a group may be handed out and not yet answered, in all processes together; the
	// server's MaxAckPending. Default 1: strictly in order. With more each subscription still keeps order for itself.
	InFlight int
	// AckWait is how long after its process died a message of a group is handed out again. While the process lives, a
	// message may take as long as it needs. Default 5 s.
	AckWait time.Duration
	// PublishTimeout is how long Publish waits for an acknowledgement. Default 5 s.
	PublishTimeout time.Duration

	// MaxAge and MaxBytes bound what a stream keeps. Defaults 7 days and 1 GiB, which the server reserves. They are
	// set anew when the program starts; whatever else an operator changed about a stream is left alone.
	MaxAge   time.Duration
	MaxBytes int64
	// Refuse makes a full stream refuse what is new. Default: it drops what is oldest. For messages that are nowhere
	// else, a publisher that waits is better than a message that is lost.
	Refuse bool
	// Replicas of a stream, 1 to 5, in a cluster. Default 0: one when the stream is made, and then what an operator set.
	Replicas int
	// Foreign says that the topics belong to others: whichever stream carries one is taken as it is, whatever its name, its
	// limits and its other subjects are. One that no stream carries gets one as usual.
	Foreign bool
	// Dedupe is for how long the server knows a message again. Default 2 minutes.
	Dedupe time.Duration

	// Logger is told when the connection is lost and found. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.URL = orDefault(c.URL, nats.DefaultURL)
	c.Name = orDefault(c.Name, "headrace")
	c.InFlight = orDefault(c.InFlight, 1)
	c.AckWait = orDefault(c.AckWait, 5*time.Second)
	c.PublishTimeout = orDefault(c.PublishTimeout, 5*time.Second)
	c.MaxAge = orDefault(c.MaxAge, 7*24*time.Hour)
	c.MaxBytes = orDefault(c.MaxBytes, 1<<30)
	c.Dedupe = orDefault(c.Dedupe, 2*time.Minute)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Broker is one connection. It is a message.Publisher, a message.Subscriber and a message.SubscribeInitializer; all its
// methods are safe for concurrent use.
type Broker struct {
	cfg     Config
	conn    *nats.Conn
	js      jetstream.JetStream
	closing context.Context // ends with Close
	close   context.CancelFunc
	once    sync.Once

	mu          sync.Mutex
	closed      bool
	running     sync.WaitGroup // calls of Publish, and subscriptions; added to with mu held while not closed
	streams     map[string]jetstream.Stream
	publishing  map[string]*sync.Mutex // one for each topic
	reconnected chan struct{}          // closed and replaced whenever the connection was made again
	lost        chan struct{}          // closed and replaced whenever the connection was lost
}

// Open connects. A server that does not answer is no error: it is tried again until Close, and meanwhile Publish and
// Subscribe fail. It fails for an address or a credentials file that cannot be read.
func Open(cfg Config) (*Broker, error) {
	b := &Broker{
		cfg: cfg.withDefaults(), streams: make(map[string]jetstream.Stream), publishing: make(map[string]*sync.Mutex),
		reconnected: make(chan struct{}), lost: make(chan struct{}),
	}
	b.closing, b.close = context.WithCancel(context.Background())
	options := []nats.Option{
		nats.Name(b.cfg.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 500*time.Millisecond),
		// What is published while there is no connection fails at once, and is not sent later behind its caller's back.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(c *nats.Conn) { b.cfg.Logger.Info("connected to NATS", "server", c.ConnectedServerName()) }),
		nats.ReconnectHandler(b.again),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if b.closing.Err() == nil {
				b.cfg.Logger.Warn("the connection to NATS is lost", "error", err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			close(b.lost)
			b.lost = make(chan struct{})
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.cfg.Logger.Warn("NATS reports an error", "error", err)
		}),
	}
	if b.cfg.Credentials != "" {
		if _, err := os.Stat(b.cfg.Credentials); err != nil {
			return nil, fmt.Errorf("the credentials of NATS: %w", err)
		}
		options = append(options, nats.UserCredentials(b.cfg.Credentials))
	}
	var err error
	if b.conn, err = nats.Connect(b.cfg.URL, options...); err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	// The library would send an unanswered message again while later ones are on their way; order is kept here.
	if b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncTimeout(b.cfg.PublishTimeout)); err != nil {
		b.conn.Close()
		return nil, fmt.Errorf("connecting to JetStream: %w", err)
	}
	return b, nil
}

// Connected tells whether there is a connection now.
func (b *Broker) Connected() bool { return b.conn.IsConnected() }

// again is called when a connection was made that is not the first.
func (b *Broker) again(conn *nats.Conn) {
	b.cfg.Logger.Info("connected to NATS again", "server", conn.ConnectedServerName())
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.streams) // whoever answers now may not have them
	close(b.reconnected)
	b.reconnected = make(chan struct{})
}

// nextConnection is closed when the connection is made again.
func (b *Broker) nextConnection() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reconnected
}

// asking bounds a request to the server, whose answer does not come when the connection is lost meanwhile.
func (b *Broker) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	b.mu.Lock()
	lost := b.lost
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// enter counts a call that Close waits for, unless it is too late.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.running.Add(1)
	return true
}

// Close ends all subscriptions, gives back what they hold, waits for acknowledgements that Publish waits for, and closes
// the connection. It takes no longer than PublishTimeout, and without a connection no time. It may be called again.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.mu.Lock()
		b.closed = true
		b.mu.Unlock()
		b.close()
		b.running.Wait()
		if b.conn.IsConnected() {
			_ = b.conn.FlushTimeout(time.Second) // answers that do not arrive are given again
		}
		b.conn.Close()
	})
	return nil
}

// SubscribeInitialize makes the topic's stream, so that what is published before the first subscription is kept.
func (b *Broker) SubscribeInitialize(topic string) error { return b.Provide(b.closing, topic) }

// Provide makes the topic's stream if it is not there. It fails when the server does not answer, and when ctx ends before it
// does.
func (b *Broker) Provide(ctx context.Context, topic string) error {
	_, err := b.stream(ctx, topic)
	return err
}

// stream returns the stream of a topic. The first time on each connection it is made, or its limits are set.
func (b *Broker) stream(ctx context.Context, topic string) (jetstream.Stream, error) {
	b.mu.Lock()
	known := b.streams[topic]
	b.mu.Unlock()
	if known != nil {
		return known, nil
	}
	name, err := streamName(topic)
	if err != nil {
		return nil, err
	}
	ctx, cancel := b.asking(ctx)
	defer cancel()
	if !b.conn.IsConnected() {
		return nil, nats.ErrDisconnected
	}
	if b.cfg.Foreign {
		if carrier, err := b.js.StreamNameBySubject(ctx, topic); err == nil {
			name = carrier
		}
	}
	stream, err := b.js.Stream(ctx, name)
	switch {
	case err == nil && b.cfg.Foreign:
	case errors.Is(err, jetstream.ErrStreamNotFound):
		stream, err = b.js.CreateStream(ctx, b.limit(jetstream.StreamConfig{Name: name, Subjects: []string{topic}}))
	case err == nil:
		stream, err = b.adjust(ctx, stream, topic)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams[topic] = stream
	return stream, nil
}

// adjust sets the limits of a stream that is there, and leaves the rest as it is.
func (b *Broker) adjust(ctx context.Context, stream jetstream.Stream, topic string) (jetstream.Stream, error) {
	is := stream.CachedInfo().Config
	if len(is.Subjects) != 1 || is.Subjects[0] != topic {
		return nil, fmt.Errorf("it carries the subjects %q and not the topic %q alone", is.Subjects, topic)
	}
	want := b.limit(is)
	if want.MaxAge == is.MaxAge && want.MaxBytes == is.MaxBytes && want.Discard == is.Discard &&
		want.Duplicates == is.Duplicates && want.Replicas == is.Replicas {
		return stream, nil
	}
	return b.js.UpdateStream(ctx, want)
}

func (b *Broker) limit(c jetstream.StreamConfig) jetstream.StreamConfig {
	c.MaxAge, c.MaxBytes, c.Discard = b.cfg.MaxAge, b.cfg.MaxBytes, jetstream.DiscardOld
	c.Duplicates = min(b.cfg.Dedupe, c.MaxAge)
	if b.cfg.Refuse {
		c.Discard = jetstream.DiscardNew
	}
	if b.cfg.Replicas > 0 {
		c.Replicas = b.cfg.Replicas
	}
	return c
}

// forget has the stream of a topic looked up again: it is not there any more.
func (b *Broker) forget(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.streams, topic)
}

// streamName makes a topic's stream's name, which may hold no dots. The topic itself is the subject.
func streamName(topic string) (string, error) {
	for token := range strings.SplitSeq(topic, ".") {
		if token == "" || strings.ContainsAny(token, "*>/\\ \t\r\n") {
			return "", fmt.Errorf("%q cannot be a topic: give words joined by dots, without *, >, / or spaces", topic)
		}
	}
	return strings.ReplaceAll(topic, ".", "_"), nil
}
