// Package kafka carries messages through Kafka: Watermill's adapter with the settings that a log needs, and no others.
//
// It has been tested against a scripted broker and never against a real one.
//
// What it promises, as far as Kafka keeps it: Publish returns nil when all in-sync replicas have a message; messages of
// one key stay in order; a new group starts with the oldest message; a message is handed out again until it is
// acknowledged, and holds up its partition meanwhile. Nothing that arrives makes it stop.
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

// Broker is a message.Publisher and a message.Subscriber. All its methods are safe for concurrent use.
type Broker struct {
	cfg        Config
	client     *sarama.Config
	subscriber *watermillkafka.Subscriber

	mu        sync.Mutex
	closed    bool
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
	subscriber, err := watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: cfg.Brokers, Unmarshaler: marshaler{}, OverwriteSaramaConfig: client, ConsumerGroup: cfg.Group,
	}, logger(cfg))
	if err != nil {
		return nil, fmt.Errorf("connecting to Kafka: %w", err)
	}
	return &Broker{subscriber: subscriber, cfg: cfg, client: client, topics: make(map[string]bool)}, nil
}

func logger(cfg Config) watermill.LoggerAdapter { return watermill.NewSlogLogger(cfg.Logger) }

// Publish sends one message after the other and returns when all in-sync replicas have them. It fails with ErrClosed,
// with outbox.ErrTooLarge, or when the brokers did not acknowledge after some attempts; then a message may be stored.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		if size := len(msg.Payload); size > b.cfg.MaxMessageBytes*9/10 { // the rest is for what goes with it
			return fmt.Errorf("publish to %s: message %s of %d bytes: %w", topic, msg.UUID, size, outbox.ErrTooLarge)
		}
	}
	publisher, err := b.connect(topic)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	err = publisher.Publish(topic, messages...)
	if errors.Is(err, sarama.ErrMessageSizeTooLarge) {
		err = fmt.Errorf("%w: %w", outbox.ErrTooLarge, err)
	}
	return err
}

// Subscribe starts a subscription that ends with ctx or with Close; then its channel is closed. It fails when the brokers
// do not answer.
func (b *Broker) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := b.SubscribeInitialize(topic); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	return b.subscriber.Subscribe(ctx, topic)
}

// SubscribeInitialize makes the topic if it is not there. One that is there is left as it is.
func (b *Broker) SubscribeInitialize(topic string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ensure(topic)
}

// ensure is called with the lock held.
func (b *Broker) ensure(topic string) (err error) {
	if b.closed {
		return ErrClosed
	}
	if b.topics[topic] {
		return nil
	}
	admin, err := sarama.NewClusterAdmin(b.cfg.Brokers, b.client)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	// Asked first, since a program that may write to a topic need not be allowed to make one.
	known, err := admin.DescribeTopics([]string{topic})
	if err != nil {
		return err
	}
	if len(known) != 1 || !errors.Is(known[0].Err, sarama.ErrNoError) {
		err = admin.CreateTopic(topic, &sarama.TopicDetail{
			NumPartitions: b.cfg.Partitions, ReplicationFactor: b.cfg.Replication,
		}, false)
		if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			return fmt.Errorf("making the topic: %w", err)
		}
	}
	b.topics[topic] = true
	return nil
}

// connect returns the publisher, and makes it and the topic the first time.
func (b *Broker) connect(topic string) (*watermillkafka.Publisher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ensure(topic); err != nil {
		return nil, err
	}
	if b.publisher == nil {
		publisher, err := watermillkafka.NewPublisher(watermillkafka.PublisherConfig{
			Brokers: b.cfg.Brokers, Marshaler: marshaler{}, OverwriteSaramaConfig: b.client,
		}, logger(b.cfg))
		if err != nil {
			return nil, err
		}
		b.publisher = publisher
	}
	return b.publisher, nil
}

// Close ends all subscriptions and the publisher. It may be called again.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	err := b.subscriber.Close()
	if b.publisher != nil {
		err = errors.Join(err, b.publisher.Close())
	}
	return err
}
