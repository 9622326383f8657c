package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/IBM/sarama"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
)

// await runs f, which no context can end, and waits for it as long as ctx and the broker live. When neither did, f comes to
// its end alone.
func await[T any](ctx context.Context, b *Broker, f func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if !b.enter() {
		return none, ErrClosed
	}
	done := make(chan outcome, 1)
	go func() {
		defer b.running.Done()
		value, err := f()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-b.closing.Done():
		return none, ErrClosed
	}
}

// enter counts what end waits for, unless it is too late.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.running.Add(1)
	return true
}

// ensure makes the topic if it is not there.
func (b *Broker) ensure(ctx context.Context, topic string) error {
	if _, known := b.state(topic); known {
		return nil
	}
	if err := b.takeTurn(ctx); err != nil {
		return err
	}
	defer b.endTurn()
	return b.look(topic)
}

// connect returns the publisher, and makes it and the topic the first time.
func (b *Broker) connect(ctx context.Context, topic string) (*watermillkafka.Publisher, error) {
	if publisher, known := b.state(topic); publisher != nil && known {
		return publisher, nil
	}
	if err := b.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer b.endTurn()
	if err := b.look(topic); err != nil {
		return nil, err
	}
	if publisher, _ := b.state(topic); publisher != nil {
		return publisher, nil
	}
	publisher, err := watermillkafka.NewPublisher(watermillkafka.PublisherConfig{
		Brokers: b.cfg.Brokers, Marshaler: marshaler{}, OverwriteSaramaConfig: b.client,
	}, logger(b.cfg))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publisher = publisher
	return publisher, nil
}

func (b *Broker) state(topic string) (publisher *watermillkafka.Publisher, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.publisher, b.topics[topic]
}

// forget has the topic looked for again, and made if it is gone.
func (b *Broker) forget(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.topics, topic)
}

// takeTurn waits until nobody else asks the brokers: there is no sense in many questions that are not answered.
func (b *Broker) takeTurn(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		if b.closing.Err() == nil && ctx.Err() == nil {
			return nil
		}
		b.endTurn() // the turn came with the end
	case <-ctx.Done():
	case <-b.closing.Done():
	}
	if b.closing.Err() != nil {
		return ErrClosed
	}
	return context.Cause(ctx)
}

func (b *Broker) endTurn() { <-b.turn }

// look asks for the topic and makes it if it is not there. It is called by whose turn it is.
func (b *Broker) look(topic string) (err error) {
	if _, known := b.state(topic); known {
		return nil
	}
	admin, err := sarama.NewClusterAdmin(b.cfg.Brokers, b.asking)
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
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[topic] = true
	return nil
}

// dialer makes connections that end with a context, at the latest.
type dialer struct {
	net.Dialer
	life context.Context
}

// until has connections of these settings end with life. Sarama waits for an answer whatever becomes of those who asked.
func until(s *sarama.Config, life context.Context) {
	s.Net.Proxy.Enable = true // what it calls a proxy is whatever makes connections
	s.Net.Proxy.Dialer = &dialer{Dialer: net.Dialer{Timeout: s.Net.DialTimeout, KeepAlive: s.Net.KeepAlive}, life: life}
}

// Dial is called by Sarama.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := d.DialContext(d.life, network, address)
	if err != nil {
		return nil, err
	}
	return &line{Conn: conn, forget: context.AfterFunc(d.life, func() { _ = conn.Close() })}, nil
}

// line is a connection that a dialer made.
type line struct {
	net.Conn
	forget func() bool
}

// Close closes the connection.
func (l *line) Close() error {
	l.forget()
	return l.Conn.Close()
}
