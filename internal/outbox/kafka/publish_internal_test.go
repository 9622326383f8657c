package kafka

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headrace/headrace/internal/kafkatest"
	"github.com/headrace/headrace/internal/outbox"
)

// of is a broker for a server of the test's, with little patience.
func of(t *testing.T, s *kafkatest.Server, cfg Config) *Broker {
	t.Helper()
	cfg.Brokers = []string{s.Addr}
	b := open(t, cfg)
	b.client.Consumer.Group.Heartbeat.Interval = 50 * time.Millisecond // which tells a member that another came
	b.client.Consumer.Retry.Backoff = 50 * time.Millisecond
	b.client.Consumer.MaxWaitTime = 50 * time.Millisecond // for messages, which ends with it at the earliest
	b.client.Metadata.Retry.Backoff = 50 * time.Millisecond
	b.client.Producer.Retry.Backoff = 20 * time.Millisecond
	return b
}

func publish(t *testing.T, b *Broker, topic, key string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := b.Publish(topic, withMetadata(id, outbox.MetaKey, key)); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

func subscribe(ctx context.Context, t *testing.T, b *Broker, topic string) <-chan *message.Message {
	t.Helper()
	from, err := b.Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// next is the next message, which nobody has answered.
func next(ctx context.Context, t *testing.T, from <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-from:
		if ok {
			return msg
		}
		t.Fatal("the subscription ended")
	case <-ctx.Done():
		t.Fatal("no message came")
	}
	return nil
}

// expect acknowledges messages, which must be these in this order.
func expect(ctx context.Context, t *testing.T, from <-chan *message.Message, ids ...string) {
	t.Helper()
	for i, id := range ids {
		msg := next(ctx, t, from)
		if msg.UUID != id {
			t.Fatalf("message %d is %s, want %s", i, msg.UUID, id)
		}
		msg.Ack()
	}
}

// stored is the number of messages of a topic.
func stored(s *kafkatest.Server, topic string) (n int) {
	for _, p := range s.PartitionInfos(topic) {
		n += int(p.HighWatermark)
	}
	return n
}

func TestPublishAsksForTheAcknowledgementOfAll(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	requests := make(chan *kmsg.ProduceRequest, 10)
	s.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.KeepControl()
		requests <- r.(*kmsg.ProduceRequest)
		return nil, nil, false
	})
	if err := b.Publish("letters", withMetadata("1"), withMetadata("2")); err != nil {
		t.Fatal(err)
	}
	if len(requests) != 2 {
		t.Errorf("%d requests for two messages", len(requests))
	}
	for range len(requests) {
		r := <-requests
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(r.Topics[0].Partitions[0].Records); err != nil {
			t.Fatal(err)
		}
		if r.Acks != -1 || batch.ProducerID < 0 || batch.FirstSequence < 0 {
			t.Errorf("it asks for %d acknowledgements, as producer %d", r.Acks, batch.ProducerID)
		}
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
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	publish(t, b, "letters", "k", "1")
	for refusal, want := range map[*kerr.Error]error{
		kerr.TopicAuthorizationFailed: sarama.ErrTopicAuthorizationFailed,
		kerr.MessageTooLarge:          outbox.ErrTooLarge,
	} {
		s.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: refusal})
		if err := b.Publish("letters", withMetadata("2", outbox.MetaKey, "k")); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	publish(t, b, "letters", "k", "3", "4") // nothing is left of it
	expect(deadline(t), t, subscribe(t.Context(), t, b, "letters"), "1", "3", "4")

	nobody := open(t, Config{Brokers: []string{"127.0.0.1:1"}})
	if err := nobody.Publish("letters", withMetadata("1")); err == nil || !strings.Contains(err.Error(), "letters") {
		t.Errorf("published to nobody: %v", err)
	}
}

// Whatever becomes of a request or of its answer, the message is stored, once, and those after it behind it.
func TestAMessageIsStoredOnceWhenItIsSentAgain(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	fault := func(err *kerr.Error, count int) func() {
		return func() { s.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: count}) }
	}
	publish(t, b, "letters", "k", "first")
	ids := []string{"first"}
	for _, trouble := range []struct {
		name  string
		begin func()
	}{
		{"the connection ends before the request", func() {
			s.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, errors.New("cut"), true })
		}},
		{"the connection ends before the answer", func() { s.Lose(kmsg.Produce) }},
		{"the broker leads no more", fault(kerr.NotLeaderForPartition, 2)},
		{"too few replicas", fault(kerr.NotEnoughReplicas, 2)},
		{"stored, and the replicas did not answer", fault(kerr.RequestTimedOut, 2)},
		{"stored by too few replicas", fault(kerr.NotEnoughReplicasAfterAppend, 2)},
	} {
		trouble.begin()
		publish(t, b, "letters", "k", trouble.name, "after: "+trouble.name)
		ids = append(ids, trouble.name, "after: "+trouble.name)
	}
	if n := stored(s, "letters"); n != len(ids) {
		t.Errorf("%d messages are stored of %d", n, len(ids))
	}
	expect(deadline(t), t, subscribe(t.Context(), t, b, "letters"), ids...)
}

// Those who publish at the same time do not spoil it for each other when an answer is lost: what was said to be stored is, once.
func TestMessagesPublishedTogetherAreStoredOnceWhenAnAnswerIsLost(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	b := of(t, s, Config{Partitions: 2})
	publish(t, b, "letters", "k", "first")
	var all sync.WaitGroup
	total := 1
	for round := range 8 {
		s.Lose(kmsg.Produce)
		for i := range 20 {
			total++
			all.Go(func() {
				id := fmt.Sprintf("%d-%d", round, i)
				if err := b.Publish("letters", withMetadata(id, outbox.MetaKey, fmt.Sprint(i%3))); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
		all.Wait()
	}
	ctx := deadline(t)
	from, seen := subscribe(ctx, t, b, "letters"), make(map[string]bool)
	for range total {
		msg := next(ctx, t, from)
		if seen[msg.UUID] {
			t.Errorf("%s is stored twice", msg.UUID)
		}
		seen[msg.UUID] = true
		msg.Ack()
	}
	if n := stored(s, "letters"); n != total {
		t.Errorf("%d messages are stored of %d", n, total)
	}
}

// While the brokers are away publishing fails, and subscriptions wait; when they are back all goes on where it was.
func TestBrokersThatWereAway(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	b.client.Producer.Retry.Max = 2
	member := of(t, s, Config{Group: "g"})
	publish(t, b, "letters", "k", "1", "2")
	alone, shared := subscribe(ctx, t, b, "letters"), subscribe(ctx, t, member, "letters")
	expect(ctx, t, alone, "1", "2")
	expect(ctx, t, shared, "1", "2")
	for round := range 2 {
		s.Close()
		if err := b.Publish("letters", withMetadata("away", outbox.MetaKey, "k")); err == nil {
			t.Fatal("published to nobody")
		}
		s.Start()
		ids := []string{fmt.Sprint("back ", round), fmt.Sprint("after ", round)}
		publish(t, b, "letters", "k", ids...)
		expect(ctx, t, alone, ids...)
		for seen := 0; seen < len(ids); { // a group may be told again what it acknowledged last
			msg := next(ctx, t, shared)
			if msg.UUID == ids[seen] {
				seen++
			} else if strings.HasSuffix(msg.UUID, fmt.Sprint(" ", round)) && msg.UUID != ids[max(seen-1, 0)] {
				t.Fatalf("got %s before %s", msg.UUID, ids[seen])
			}
			msg.Ack()
		}
	}
}

func TestTopicsAreMadeAsTheyAreWanted(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t, kfake.Ports(0, 0, 0))
	for topic, cfg := range map[string]Config{"default": {}, "one": {Partitions: 1, Replication: 2}} {
		b := of(t, s, cfg)
		for range 2 {
			if err := b.Provide(ctx, topic); err != nil {
				t.Fatal(err)
			}
		}
		cfg = cfg.withDefaults()
		if got := len(s.PartitionInfos(topic)); got != int(cfg.Partitions) {
			t.Errorf("%s has %d partitions", topic, got)
		}
		if got := s.TopicInfo(topic).NumReplicas; cfg.Replication > 0 && got != int(cfg.Replication) {
			t.Errorf("%s has %d replicas", topic, got)
		}
	}
	if err := of(t, s, Config{Partitions: 5}).Provide(ctx, "one"); err != nil || len(s.PartitionInfos("one")) != 1 {
		t.Errorf("a topic that is there was changed, or %v", err)
	}
}

// Who may not make a topic is told so, and asks again the next time.
func TestATopicThatMayNotBeMade(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	refused := s.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	_, subscribing := b.Subscribe(ctx, "letters")
	for what, err := range map[string]error{
		"Publish": b.Publish("letters", withMetadata("1")), "Provide": b.Provide(ctx, "letters"), "Subscribe": subscribing,
	} {
		if !errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	refused.Remove()
	publish(t, b, "letters", "k", "1")
}

// A topic that was deleted is made anew, with the message after the one that finds out.
func TestADeletedTopicIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	b := of(t, s, Config{Partitions: 3})
	b.client.Producer.Retry.Max, b.client.Metadata.Retry.Max = 1, 0
	publish(t, b, "letters", "k", "1")
	if err := s.DeleteTopic("letters"); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish("letters", withMetadata("2", outbox.MetaKey, "k")); !errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		t.Fatalf("got %v", err)
	}
	publish(t, b, "letters", "k", "2", "3")
	if n := stored(s, "letters"); n != 2 || len(s.PartitionInfos("letters")) != 3 {
		t.Errorf("%d messages in %d partitions", n, len(s.PartitionInfos("letters")))
	}
}

// By TLS, with a login: who may write to a topic and read from it need not be allowed to make it.
func TestALoginWithTheLeastRights(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS() // for its certificate
	defer certified.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	var rights []kfake.ACL
	for _, operation := range []kmsg.ACLOperation{kmsg.ACLOperationDescribe, kmsg.ACLOperationRead, kmsg.ACLOperationWrite} {
		rights = append(rights, kfake.ACL{
			Resource: kmsg.ACLResourceTypeTopic, Name: "letters", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true,
		})
	}
	rights = append(rights, kfake.ACL{
		Resource: kmsg.ACLResourceTypeGroup, Name: "g", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true,
	})
	s := kafkatest.Start(t, kfake.TLS(&tls.Config{Certificates: certified.TLS.Certificates}), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "root", "secret"), kfake.User("PLAIN", "u", "p", rights...), kfake.SeedTopics(2, "letters"))
	b := of(t, s, Config{Group: "g", TLS: true, CA: ca, User: "u", Password: "p"})
	publish(t, b, "letters", "k", "1", "2")
	expect(ctx, t, subscribe(ctx, t, b, "letters"), "1", "2")
	if err := b.Provide(ctx, "others"); !errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
		t.Errorf("got %v", err)
	}
	for what, cfg := range map[string]Config{
		"wrong password": {TLS: true, CA: ca, User: "u", Password: "q"}, "no login": {TLS: true, CA: ca},
		"a certificate that is not trusted": {TLS: true, User: "u", Password: "p"}, "no TLS": {User: "u", Password: "p"},
	} {
		if err := of(t, s, cfg).Provide(ctx, "letters"); err == nil {
			t.Errorf("%s: it was let in", what)
		}
	}
}
