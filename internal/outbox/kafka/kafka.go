// Package kafka carries messages through Kafka: Watermill's adapter with the settings that a log needs, and no others.
//
// It is tested against kfake, a fake broker in Go that speaks Kafka's protocol; untested against a real broker.
//
// What it promises, as far as Kafka keeps it: Publish returns nil when all in-sync replicas have a message; messages of
// one key stay in order; a new group starts with the oldest message; a message is handed out again until it is
// acknowledged, and holds up its partition meanwhile. Nothing that arrives makes it stop.
//
// No call waits for longer than its context lives: brokers that are away, or are there and say nothing, hold up neither the
// start of a program nor its end.
//
// What it does not promise: that a message comes once. A publisher that starts anew sends again what it does not know to
// be stored, and a group reads again what it acknowledged in the last second. Receivers dedupe, by position or by id.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// ErrClosed is returned by a Broker that was closed.
var ErrClosed = errors.New("the connection to Kafka is closed")

// Config configures a Broker. The zero value is for a broker on this machine.
type Config struct {
	// Brokers to ask for the others, as host:port. Default localhost:9092.
	Brokers []string
	// ClientID names the program to the brokers. Default "headrace".
	ClientID string
	// TLS encrypts the connection. CA is the path of a file of certificates to trust in place of the system's.
	TLS bool
	CA  string
	// User and Password log in with SASL/PLAIN, which says the password as it is: with TLS, that is. Default: no login.
	User, Password string

	// Group is the consumer group that subscriptions share: each message goes to one of them. Default none: every
	// subscription sees every message.
	Group string
	// New lets a subscription without a group start with what is published after it. Default: with the oldest message.
	New bool
	// Partitions and Replication are for topics that are not there yet. Defaults 8, and what the brokers are set to.
	// Where all messages must stay in one order, one partition is enough.
	Partitions  int32
	Replication int16
	// MaxMessageBytes is the largest message that the brokers take, message.max.bytes. Default 1,000,000.
	MaxMessageBytes int

	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if len(c.Brokers) == 0 {
		c.Brokers = []string{"localhost:9092"}
	}
	if c.ClientID == "" {
		c.ClientID = "headrace"
	}
	if c.Partitions == 0 {
		c.Partitions = 8
	}
	if c.Replication == 0 {
		c.Replication = -1
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 1_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// client returns the settings of the connection. Sarama's own defaults lose messages: they wait for one replica, send
// five requests at a time and sort nothing out when one of them fails.
func (c Config) client() (*sarama.Config, error) {
	s := sarama.NewConfig()
	s.ClientID = c.ClientID
	s.Version = sarama.V2_8_0_0
	s.Metadata.AllowAutoTopicCreation = false // they are made with the number of partitions that is wanted
	// A broker that drops packets says nothing at all. Sarama's own patience with one is two minutes.
	s.Net.DialTimeout = 3 * time.Second
	s.Metadata.Timeout = 10 * time.Second

	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Idempotent = true
	s.Net.MaxOpenRequests = 1 // what order and idempotence rest on
	s.Producer.Partitioner = sarama.NewHashPartitioner
	s.Producer.Retry.Max = 10
	s.Producer.Retry.Backoff = 100 * time.Millisecond
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	s.Producer.MaxMessageBytes = c.MaxMessageBytes

	s.Consumer.Offsets.Initial = sarama.OffsetOldest
	if c.New && c.Group == "" {
		s.Consumer.Offsets.Initial = sarama.OffsetNewest
	}
	s.Consumer.Offsets.AutoCommit.Enable = true // of what was acknowledged
	s.Consumer.Offsets.AutoCommit.Interval = time.Second
	s.Consumer.Return.Errors = true

	if c.TLS {
		s.Net.TLS.Enable = true
		s.Net.TLS.Config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("the certificates for Kafka: %w", err)
		}
		pool := x509.NewCertPool()
		if !c.TLS || !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the certificates for Kafka: %s holds none, or TLS is off", c.CA)
		}
		s.Net.TLS.Config.RootCAs = pool
	}
	if c.User != "" {
		s.Net.SASL.Enable = true
		s.Net.SASL.Mechanism = sarama.SASLTypePlaintext
		s.Net.SASL.User, s.Net.SASL.Password = c.User, c.Password
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("the settings for Kafka: %w", err)
	}
	return s, nil
}

// Broker is a message.Publisher, a message.Subscriber and a message.SubscribeInitializer. All its methods are safe for
// concurrent use.
type Broker struct {
	cfg        Config
	client     *sarama.Config // of those who publish and consume
	asking     *sarama.Config // of those who look for a topic
	subscriber *watermillkafka.Subscriber
	follower   *follower // of the subscriber

	closing context.Context // ends with Close
	close   context.CancelFunc
	cut     context.CancelFunc // ends what connections Close has left
	once    sync.Once
	grace   time.Duration // how long Close waits for answers
	failure error         // of Close

	turn chan struct{} // full while one call makes a topic or a publisher

	mu        sync.Mutex
	closed    bool
	running   sync.WaitGroup            // what calls have begun and may have left; added to with mu held while not closed
	publisher *watermillkafka.Publisher // nil before the first Publish, which connects
	topics    map[string]bool           // that are known to be there
}

// Open makes a broker, which connects when it is first used. It fails for settings that make no sense.
func Open(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	client, err := cfg.client()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, client: client, grace: 5 * time.Second, turn: make(chan struct{}, 1), topics: make(map[string]bool),
	}
	b.closing, b.close = context.WithCancel(context.Background())
	cutting, cut := context.WithCancel(context.Background())
	b.cut = cut
	asking := *client
	b.asking = &asking
	// Whoever asks for a topic asks again, so one question is enough, and its answer is nothing that takes long.
	b.asking.Net.ReadTimeout, b.asking.Net.WriteTimeout = 5*time.Second, 5*time.Second
	b.asking.Metadata.Retry.Max = 0
	until(b.asking, b.closing)
	until(b.client, cutting)
	b.follower = &follower{b: b, pause: time.Second}
	b.subscriber, err = watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: cfg.Brokers, Unmarshaler: marshaler{}, OverwriteSaramaConfig: client, ConsumerGroup: cfg.Group,
		Tracer: b.follower,
	}, logger(cfg))
	if err != nil {
		return nil, fmt.Errorf("connecting to Kafka: %w", err)
	}
	return b, nil
}

func logger(cfg Config) watermill.LoggerAdapter { return watermill.NewSlogLogger(cfg.Logger) }

// Publish sends one message after the other and returns when all in-sync replicas have them. It fails with ErrClosed,
// with outbox.ErrTooLarge, with the error of the first message's context, or when the brokers did not acknowledge after some
// attempts; then, and when the context ended, a message may be stored.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	for _, msg := range messages {
		if size := len(msg.Payload); size > b.cfg.MaxMessageBytes*9/10 { // the rest is for what goes with it
			return fmt.Errorf("publish to %s: message %s of %d bytes: %w", topic, msg.UUID, size, outbox.ErrTooLarge)
		}
	}
	ctx := messages[0].Context()
	messages = slices.Clone(messages)
	for i, msg := range messages {
		messages[i] = msg.Copy() // the caller may be gone before it is sent
	}
	_, err := await(ctx, b, func() (struct{}, error) { return struct{}{}, b.send(ctx, topic, messages) })
	if errors.Is(err, sarama.ErrMessageSizeTooLarge) {
		err = fmt.Errorf("%w: %w", outbox.ErrTooLarge, err)
	}
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

func (b *Broker) send(ctx context.Context, topic string, messages []*message.Message) error {
	publisher, err := b.connect(ctx, topic)
	if err != nil {
		return err
	}
	for _, msg := range messages {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := publisher.Publish(topic, msg); err != nil {
			if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
				b.forget(topic) // somebody deleted it
			}
			return err
		}
	}
	return nil
}

// Subscribe starts a subscription that ends with ctx or with Close; then its channel is closed. It fails when the brokers
// do not answer, and when ctx ends before they do.
func (b *Broker) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	messages, err := await(ctx, b, func() (<-chan *message.Message, error) {
		if err := b.ensure(ctx, topic); err != nil {
			return nil, err
		}
		b.follower.begins()
		return b.subscriber.Subscribe(ctx, topic)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	return messages, nil
}

// SubscribeInitialize is Provide without a context.
func (b *Broker) SubscribeInitialize(topic string) error {
	return b.Provide(context.Background(), topic)
}

// Provide makes the topic if it is not there. One that is there is left as it is. It fails when the brokers do not answer, and
// when ctx ends before they do.
func (b *Broker) Provide(ctx context.Context, topic string) error {
	_, err := await(ctx, b, func() (struct{}, error) { return struct{}{}, b.ensure(ctx, topic) })
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	return nil
}

// Close ends all subscriptions and the publisher. It waits 5 s for brokers that do not answer, cuts them off, and fails. It may
// be called again.
func (b *Broker) Close() error {
	b.once.Do(func() {
		b.mu.Lock()
		b.closed = true
		b.mu.Unlock()
		b.close()
		ended := make(chan error, 1)
		go func() { ended <- b.end() }()
		patience := time.NewTimer(b.grace)
		defer patience.Stop()
		select {
		case b.failure = <-ended:
		case <-patience.C:
			b.failure = errors.New("closing the connection to Kafka: the brokers did not answer")
		}
		b.cut()
	})
	return b.failure
}

// end waits for what runs, which must be done before the publisher is closed.
func (b *Broker) end() error {
	b.running.Wait()
	err := b.subscriber.Close()
	if b.publisher != nil {
		err = errors.Join(err, b.publisher.Close())
	}
	return err
}
