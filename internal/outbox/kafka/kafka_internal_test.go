package kafka

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

func TestTheSettingsLoseNothingAndKeepOrder(t *testing.T) {
	t.Parallel()
	s, err := Config{}.withDefaults().client()
	if err != nil {
		t.Fatal(err)
	}
	if s.Producer.RequiredAcks != sarama.WaitForAll || !s.Producer.Idempotent || s.Net.MaxOpenRequests != 1 ||
		s.Producer.Retry.Max < 1 || s.Producer.Retry.Max > 100 || !s.Producer.Return.Successes || !s.Producer.Return.Errors {
		t.Errorf("the producer may lose or reorder: %+v", s.Producer)
	}
	if s.Consumer.Offsets.Initial != sarama.OffsetOldest || !s.Consumer.Offsets.AutoCommit.Enable {
		t.Errorf("the consumer may skip: %+v", s.Consumer.Offsets)
	}
	if s.Metadata.AllowAutoTopicCreation || s.Net.TLS.Enable || s.Net.SASL.Enable {
		t.Error("something is on that nobody asked for")
	}
	for _, c := range []struct {
		cfg  Config
		want int64
	}{{Config{New: true}, sarama.OffsetNewest}, {Config{New: true, Group: "g"}, sarama.OffsetOldest}} {
		if s, err := c.cfg.withDefaults().client(); err != nil || s.Consumer.Offsets.Initial != c.want {
			t.Errorf("%+v begins at %d, %v", c.cfg, s.Consumer.Offsets.Initial, err)
		}
	}
}

func TestTLSAndLoginAreSet(t *testing.T) {
	t.Parallel()
	s, err := Config{TLS: true, User: "u", Password: "p"}.withDefaults().client()
	if err != nil || !s.Net.TLS.Enable || !s.Net.SASL.Enable || s.Net.SASL.Mechanism != sarama.SASLTypePlaintext ||
		s.Net.SASL.User != "u" || s.Net.SASL.Password != "p" {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, cfg := range []Config{{TLS: true, CA: "/does/not/exist"}, {TLS: true, CA: "kafka.go"}, {CA: "kafka.go"}, {User: "u"}} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func withMetadata(id string, pairs ...string) *message.Message {
	msg := message.NewMessage(id, []byte("x"))
	for i := 0; i < len(pairs); i += 2 {
		msg.Metadata.Set(pairs[i], pairs[i+1])
	}
	return msg
}

func TestMessagesOfOneKeyGoToOnePartition(t *testing.T) {
	t.Parallel()
	settings, err := Config{}.withDefaults().client()
	if err != nil {
		t.Fatal(err)
	}
	partitioner := settings.Producer.Partitioner("t")
	partition := func(msg *message.Message) int32 {
		out, err := marshaler{}.Marshal("t", msg)
		if err != nil {
			t.Fatal(err)
		}
		p, err := partitioner.Partition(out, 64)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	used := map[int32]bool{}
	for _, stream := range []string{"cart-1", "cart-2", "cart-3", "cart-4", "cart-5"} {
		first := partition(withMetadata("1", outbox.MetaKey, stream))
		used[first] = true
		if second := partition(withMetadata("2", outbox.MetaKey, stream)); second != first {
			t.Errorf("messages of %s go to %d and %d", stream, first, second)
		}
	}
	if len(used) < 2 {
		t.Error("all streams go to one partition")
	}
	log := partition(withMetadata("1", outbox.MetaLogID, "a log", outbox.MetaFirst, "1"))
	if partition(withMetadata("2", outbox.MetaLogID, "a log", outbox.MetaFirst, "2")) != log {
		t.Error("runs of one log go to two partitions")
	}
}

func TestMessagesKeepWhatTheyCarryAndForeignOnesGetAnID(t *testing.T) {
	t.Parallel()
	sent := withMetadata("id", "a", "b", "", "line\nbreak")
	out, err := marshaler{}.Marshal("t", sent)
	if err != nil {
		t.Fatal(err)
	}
	value, _ := out.Value.Encode()
	in := &sarama.ConsumerMessage{Topic: "t", Partition: 3, Offset: 7, Value: value}
	for _, h := range out.Headers {
		in.Headers = append(in.Headers, &h)
	}
	got, err := marshaler{}.Unmarshal(in)
	if err != nil || !got.Equals(sent) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got, err = (marshaler{}).Unmarshal(&sarama.ConsumerMessage{Topic: "t", Partition: 3, Offset: 7}); err != nil || got.UUID != "t:3:7" {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func open(t *testing.T, cfg Config) *Broker {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// A public event goes by its stream's key, and says in a header that its payload is a CloudEvent in JSON, as the binding of
// CloudEvents to Kafka wants it.
func TestAPublicEventIsStructuredAsTheBindingWantsIt(t *testing.T) {
	t.Parallel()
	registry, err := eventstore.NewRegistry(eventstore.Define[grew](1))
	if err != nil {
		t.Fatal(err)
	}
	contract, err := outbox.NewContract(registry, outbox.ContractConfig{Source: "urn:wood", Schemas: "urn:wood:"},
		outbox.Public("wood.tree.grown.v1", func(outbox.Fact, grew) (struct{}, bool) { return struct{}{}, true }))
	if err != nil {
		t.Fatal(err)
	}
	messages, err := contract.Messages(eventstore.Event{Position: 3, Version: 2, Stream: "tree-1", Type: "tree.grew", SchemaVersion: 1, Data: []byte(`{}`)})
	if err != nil || len(messages) != 1 {
		t.Fatalf("got %v, %v", messages, err)
	}
	out, err := marshaler{}.Marshal("t", messages[0])
	if err != nil {
		t.Fatal(err)
	}
	key, err1 := out.Key.Encode()
	value, err2 := out.Value.Encode()
	headers := make(map[string]string)
	for _, h := range out.Headers {
		headers[string(h.Key)] = string(h.Value)
	}
	if err1 != nil || err2 != nil || string(key) != "tree-1" || headers["content-type"] != "application/cloudevents+json" ||
		!strings.Contains(string(value), `"specversion":"1.0"`) {
		t.Fatalf("got key %q, headers %v, value %s", key, headers, value)
	}
}

type grew struct{}

func (grew) EventType() string { return "tree.grew" }
