package kafka

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

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

// mock is a broker that answers by script: it knows what the client asks and keeps nothing.
func mock(t *testing.T, produced sarama.KError) *sarama.MockBroker {
	t.Helper()
	broker := sarama.NewMockBroker(t, 1)
	t.Cleanup(broker.Close)
	broker.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest":    sarama.NewMockApiVersionsResponse(t),
		"MetadataRequest":       sarama.NewMockMetadataResponse(t).SetController(1).SetBroker(broker.Addr(), 1).SetLeader("letters", 0, 1),
		"InitProducerIDRequest": sarama.NewMockInitProducerIDResponse(t),
		"ProduceRequest":        sarama.NewMockProduceResponse(t).SetVersion(7).SetError("letters", 0, produced),
		"OffsetRequest":         sarama.NewMockOffsetResponse(t).SetOffset("letters", 0, sarama.OffsetOldest, 0).SetOffset("letters", 0, sarama.OffsetNewest, 2),
		"FetchRequest": sarama.NewMockFetchResponse(t, 1).
			SetMessage("letters", 0, 0, sarama.StringEncoder("one")).SetMessage("letters", 0, 1, sarama.StringEncoder("two")),
	})
	return broker
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

func TestPublishAsksForTheAcknowledgementOfAll(t *testing.T) {
	t.Parallel()
	broker := mock(t, sarama.ErrNoError)
	b := open(t, Config{Brokers: []string{broker.Addr()}})
	if err := b.Publish("letters", withMetadata("1"), withMetadata("2")); err != nil {
		t.Fatal(err)
	}
	produced := 0
	for _, exchange := range broker.History() {
		if request, ok := exchange.Request.(*sarama.ProduceRequest); ok {
			produced++
			if request.RequiredAcks != sarama.WaitForAll {
				t.Errorf("it asks for %d acknowledgements", request.RequiredAcks)
			}
		}
	}
	if produced != 2 {
		t.Errorf("%d requests for two messages", produced)
	}
	if err := b.Publish("letters", message.NewMessage("3", make([]byte, 1<<20))); !errors.Is(err, outbox.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("letters", withMetadata("4")); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestPublishFailsWhenTheBrokersRefuse(t *testing.T) {
	t.Parallel()
	for refusal, want := range map[sarama.KError]error{
		sarama.ErrTopicAuthorizationFailed: sarama.ErrTopicAuthorizationFailed,
		sarama.ErrMessageSizeTooLarge:      outbox.ErrTooLarge,
	} {
		b := open(t, Config{Brokers: []string{mock(t, refusal).Addr()}})
		if err := b.Publish("letters", withMetadata("1")); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	b := open(t, Config{Brokers: []string{"127.0.0.1:1"}})
	if err := b.Publish("letters", withMetadata("1")); err == nil || !strings.Contains(err.Error(), "letters") {
		t.Errorf("published to nobody: %v", err)
	}
}

// A topic that was deleted is made anew with the next message.
func TestADeletedTopicIsMadeAgain(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	broker := mock(t, sarama.ErrUnknownTopicOrPartition)
	b := open(t, Config{Brokers: []string{broker.Addr()}})
	b.client.Producer.Retry.Max, b.client.Metadata.Retry.Max = 1, 0
	if err := b.Publish("letters", withMetadata("1")); !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		t.Fatalf("got %v", err)
	}
	broker.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest":  sarama.NewMockApiVersionsResponse(t),
		"MetadataRequest":     sarama.NewMockMetadataResponse(t).SetController(1).SetBroker(broker.Addr(), 1), // no topic
		"CreateTopicsRequest": sarama.NewMockCreateTopicsResponse(t),
	})
	again := withMetadata("1")
	again.SetContext(ctx)
	_ = b.Publish("letters", again) // which this broker still refuses
	made := 0
	for _, exchange := range broker.History() {
		if request, ok := exchange.Request.(*sarama.CreateTopicsRequest); ok && request.TopicDetails["letters"] != nil {
			made++
		}
	}
	if made != 1 {
		t.Errorf("the topic was made %d times", made)
	}
}

func TestSubscribeStartsWithTheOldestAndRepeatsWhatIsRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b := open(t, Config{Brokers: []string{mock(t, sarama.ErrNoError).Addr()}})
	from, err := b.Subscribe(ctx, "letters")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"one", "one", "two"} {
		select {
		case msg := <-from:
			if string(msg.Payload) != want {
				t.Fatalf("message %d is %q, want %q", i, msg.Payload, want)
			}
			if i == 0 {
				msg.Nack()
			} else {
				msg.Ack()
			}
		case <-ctx.Done():
			t.Fatal("no message came")
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range from {
		t.Error("a message after Close")
	}
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
