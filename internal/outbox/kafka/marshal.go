package kafka

import (
	"fmt"

	"github.com/IBM/sarama"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// marshaler is Watermill's, with a key for every message and an id for every message that comes.
type marshaler struct {
	watermillkafka.DefaultMarshaler
}

// Marshal gives the message the key by which it stays in order with others.
func (m marshaler) Marshal(topic string, msg *message.Message) (*sarama.ProducerMessage, error) {
	out, err := m.DefaultMarshaler.Marshal(topic, msg)
	if err != nil {
		return nil, err
	}
	out.Key = sarama.StringEncoder(key(msg))
	return out, nil
}

// key is the message's own, such as a stream's name. Runs of a log have one key among them: the order is that of the
// whole log, and so all of them go to one partition. A message without any is in order with none.
func key(msg *message.Message) string {
	if own := msg.Metadata.Get(outbox.MetaKey); own != "" {
		return own
	}
	if log := msg.Metadata.Get(outbox.MetaLogID); log != "" {
		return log
	}
	return msg.UUID
}

// Unmarshal takes whatever there is: an error would have the adapter read the same message for ever. A message of another
// program is named by its place.
func (m marshaler) Unmarshal(in *sarama.ConsumerMessage) (*message.Message, error) {
	msg, err := m.DefaultMarshaler.Unmarshal(in)
	if err != nil {
		msg = message.NewMessage("", in.Value)
	}
	if msg.UUID == "" {
		msg.UUID = fmt.Sprintf("%s:%d:%d", in.Topic, in.Partition, in.Offset)
		msg.Metadata.Set(outbox.MetaPlace, msg.UUID)
	}
	return msg, nil
}
