package kafka

import (
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// follower stands where Watermill's adapter lets tracers stand, and mends what the adapter leaves to Sarama's defaults. It is
// asked whenever a subscription connects, the first time and again.
type follower struct {
	b     *Broker
	pause time.Duration // before a subscription connects again

	mu    sync.Mutex
	fresh int // subscriptions that are about to connect the first time
}

// begins has a subscription not wait that connects the first time.
func (f *follower) begins() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fresh++
}

// wait keeps a subscription that is refused, as one of a group that it may not join, from asking without a pause.
func (f *follower) wait() {
	f.mu.Lock()
	first := f.fresh > 0
	if first {
		f.fresh--
	}
	f.mu.Unlock()
	if first {
		return
	}
	pause := time.NewTimer(f.pause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-f.b.closing.Done():
	}
}

// WrapConsumerGroupHandler is called when a member of a group connects.
func (f *follower) WrapConsumerGroupHandler(h sarama.ConsumerGroupHandler) sarama.ConsumerGroupHandler {
	f.wait()
	return h
}

// WrapConsumer is called when a subscription without a group connects.
func (f *follower) WrapConsumer(c sarama.Consumer) sarama.Consumer {
	f.wait()
	return &consumer{Consumer: c, f: f}
}

// WrapPartitionConsumer is called for each partition.
func (f *follower) WrapPartitionConsumer(c sarama.PartitionConsumer) sarama.PartitionConsumer {
	return c
}

// WrapSyncProducer is called for a publisher.
func (f *follower) WrapSyncProducer(_ *sarama.Config, p sarama.SyncProducer) sarama.SyncProducer {
	return p
}

// consumer reads the partitions of one topic.
type consumer struct {
	sarama.Consumer
	f *follower

	mu    sync.Mutex
	parts []sarama.PartitionConsumer
	over  bool
}

// ConsumePartition begins to read a partition.
func (c *consumer) ConsumePartition(topic string, partition int32, offset int64) (sarama.PartitionConsumer, error) {
	part, err := c.Consumer.ConsumePartition(topic, partition, offset)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.parts = append(c.parts, part)
	over := c.over
	c.mu.Unlock()
	if over {
		part.AsyncClose()
	}
	go c.watch(part)
	return part, nil
}

// watch takes the errors of a partition, which nobody else does: Sarama stops reading when 256 of them wait, and has one every
// two seconds while the brokers are away. A partition ends by itself when what is to be read next is not there any more, since
// it was kept too long or the topic was deleted; then all end, and the adapter begins anew with them.
func (c *consumer) watch(part sarama.PartitionConsumer) {
	for err := range part.Errors() {
		c.f.b.cfg.Logger.Warn("reading from Kafka failed", "topic", err.Topic, "partition", err.Partition, "error", err.Err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, each := range c.parts {
		each.AsyncClose()
	}
}
