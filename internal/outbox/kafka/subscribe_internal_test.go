package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/headrace/headrace/internal/kafkatest"
	"github.com/headrace/headrace/internal/outbox"
)

// From a broker that speaks what Kafka 2.8 did, which is the oldest, and from one of today.
func TestAMessageArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	for name, versions := range map[string]*kversion.Versions{"2.8": kversion.V2_8_0(), "stable": kversion.Stable()} {
		for _, group := range []string{"", "g"} {
			t.Run(name+group, func(t *testing.T) {
				t.Parallel()
				ctx := deadline(t)
				b := of(t, kafkatest.Start(t, kfake.MaxVersions(versions)), Config{Group: group})
				sent := withMetadata("id", outbox.MetaKey, "cart-1", "name", "välue", "", "line\nbreak")
				sent.Payload = []byte("a\x00b")
				if err := b.Publish("letters", sent); err != nil {
					t.Fatal(err)
				}
				got := next(ctx, t, subscribe(ctx, t, b, "letters"))
				defer got.Ack()
				if !got.Equals(sent) {
					t.Errorf("got %+v, want %+v", got, sent)
				}
			})
		}
	}
}

func TestSubscribeStartsWithTheOldestAndRepeatsWhatIsRefused(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{})
	publish(t, b, "letters", "k", "1", "2")
	from, late := subscribe(ctx, t, b, "letters"), subscribe(ctx, t, of(t, s, Config{New: true}), "letters")
	publish(t, b, "letters", "k", "3")
	next(ctx, t, from).Nack()
	expect(ctx, t, from, "1", "2", "3")
	expect(ctx, t, late, "3")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for range from {
		t.Error("a message after Close")
	}
}

// A group that has no offset begins with the oldest message. What is refused comes again before what follows, and the group's
// offset is behind what was acknowledged, and never behind what was not. From there it goes on when it starts again.
func TestAGroupsOffsetFollowsWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	publish(t, of(t, s, Config{Partitions: 1}), "letters", "k", "one", "two", "three")
	b := of(t, s, Config{Group: "g"})
	from := subscribe(ctx, t, b, "letters")
	for i, step := range []struct {
		want string
		ack  bool
	}{{"one", false}, {"one", false}, {"one", true}, {"two", false}, {"two", true}, {"three", false}} {
		msg := next(ctx, t, from)
		if msg.UUID != step.want {
			t.Fatalf("delivery %d is %q, want %q", i, msg.UUID, step.want)
		}
		if step.ack {
			msg.Ack()
		} else {
			msg.Nack()
		}
	}
	if err := b.Close(); err != nil { // which commits what is left to commit
		t.Fatal(err)
	}
	if last := s.GroupInfo("g").Commits["letters"][0].Offset; last != 2 {
		t.Errorf("the last offset is %d, and two messages were acknowledged", last)
	}
	s.Close()
	s.Start()
	again := of(t, s, Config{Group: "g"})
	expect(ctx, t, subscribe(ctx, t, again, "letters"), "three")
}

// Streams that are published side by side have a partition each, and their order; also when some of it is refused.
func TestAStreamStaysInOneOrder(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{Group: "g"})
	const streams, each = 6, 30
	var all sync.WaitGroup
	for n := range streams {
		all.Go(func() {
			for i := range each {
				if err := b.Publish("letters", withMetadata(fmt.Sprint(i), outbox.MetaKey, fmt.Sprint("cart-", n))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	from := subscribe(ctx, t, b, "letters")
	seen, partitions := make(map[string]int), make(map[string]int32)
	refused := ""
	for total := 0; total < streams*each; {
		msg := next(ctx, t, from)
		stream := msg.Metadata.Get(outbox.MetaKey)
		partition, ok := watermillkafka.MessagePartitionFromCtx(msg.Context())
		if before, known := partitions[stream]; !ok || known && before != partition {
			t.Fatalf("%s is in partitions %d and %d", stream, before, partition)
		}
		partitions[stream] = partition
		if msg.UUID != fmt.Sprint(seen[stream]) {
			t.Fatalf("%s: got %s after %d messages", stream, msg.UUID, seen[stream])
		}
		if place := stream + msg.UUID; msg.UUID == "7" && refused < place {
			refused = place
			msg.Nack()
			continue
		}
		seen[stream]++
		total++
		msg.Ack()
	}
}

// The members of a group share the partitions, and who is left has all of them. Without a group all see all.
func TestMembersShareAndOthersSeeAll(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	first, second, alone := of(t, s, Config{Group: "g"}), of(t, s, Config{Group: "g"}), of(t, s, Config{})
	one, two, every := subscribe(ctx, t, first, "letters"), subscribe(ctx, t, second, "letters"), subscribe(ctx, t, alone, "letters")
	shared := func(g *kfake.GroupInfo) bool {
		return g != nil && g.State == "Stable" && len(g.Members) == 2 && g.NumAssigned() == 8 && g.Members[0].NumAssigned() == 4
	}
	if _, err := s.WaitGroupInfo(ctx, "g", shared); err != nil {
		t.Fatal(err)
	}
	const total = 40
	for i := range total {
		publish(t, alone, "letters", fmt.Sprint("cart-", i), fmt.Sprint(i))
	}
	seen, byOne, byTwo := make(map[string]bool), 0, 0
	for range total {
		select {
		case msg := <-one:
			byOne, seen[msg.UUID] = byOne+1, true
			msg.Ack()
		case msg := <-two:
			byTwo, seen[msg.UUID] = byTwo+1, true
			msg.Ack()
		case <-ctx.Done():
			t.Fatal("no message came")
		}
	}
	if len(seen) != total || byOne == 0 || byTwo == 0 {
		t.Errorf("%d messages of %d, %d here and %d there", len(seen), total, byOne, byTwo)
	}
	for range total {
		next(ctx, t, every).Ack()
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range total {
		publish(t, alone, "letters", fmt.Sprint("cart-", i), fmt.Sprint("more ", i))
	}
	for range total {
		next(ctx, t, two).Ack()
		next(ctx, t, every).Ack()
	}
}

// What is to be read next may be gone: the topic was deleted and made again, or nobody read for longer than messages are kept. A
// subscription begins again with the oldest, in each partition.
func TestASubscriptionOutlivesItsTopic(t *testing.T) {
	t.Parallel()
	for _, group := range []string{"", "g"} {
		t.Run("group "+group, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			s := kafkatest.Start(t)
			b := of(t, s, Config{Group: group, Partitions: 2})
			b.follower.pause = 10 * time.Millisecond
			publish(t, b, "letters", "k", "1", "2", "3")
			from := subscribe(ctx, t, b, "letters")
			expect(ctx, t, from, "1", "2", "3")
			if err := s.DeleteTopic("letters"); err != nil {
				t.Fatal(err)
			}
			if err := s.CreateTopic("letters", 2, nil); err != nil {
				t.Fatal(err)
			}
			publish(t, of(t, s, Config{}), "letters", "k", "4")
			for msg := next(ctx, t, from); msg.UUID != "4"; msg = next(ctx, t, from) {
				msg.Ack() // a group's last offset may have been forgotten with the topic
			}
		})
	}
}

// Sarama has an error whenever it asks in vain, and stops when nobody takes them.
func TestALongOutageDoesNotEndASubscription(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{Partitions: 1})
	b.client.Consumer.Retry.Backoff, b.client.Metadata.Retry.Max = time.Microsecond, 0
	from := subscribe(ctx, t, b, "letters")
	publish(t, b, "letters", "k", "1")
	expect(ctx, t, from, "1")
	s.Close()
	away, err := net.Listen("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { away.Close() })
	for range 600 { // more than it keeps, however many of them are of one attempt
		conn, err := away.Accept()
		if err != nil {
			t.Fatal("it does not ask any more")
		}
		conn.Close()
	}
	stop()
	away.Close()
	s.Start()
	publish(t, of(t, s, Config{}), "letters", "k", "2")
	expect(ctx, t, from, "2")
}

// A member that is refused asks again after a pause, and goes on when it is let in.
func TestARefusedMemberAsksAgainAfterAPause(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := kafkatest.Start(t)
	b := of(t, s, Config{Group: "g"})
	b.follower.pause = 100 * time.Millisecond
	publish(t, b, "letters", "k", "1")
	refused := s.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, TopLevel: true, Count: -1})
	began := time.Now()
	from := subscribe(ctx, t, b, "letters")
	if err := refused.Wait(ctx, 4); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 3*b.follower.pause {
		t.Errorf("it asked four times within %v", took)
	}
	refused.Remove()
	expect(ctx, t, from, "1")
}

// A broker that was closed has no further subscriptions.
func TestNoSubscriptionAfterClose(t *testing.T) {
	t.Parallel()
	b := of(t, kafkatest.Start(t), Config{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Subscribe(deadline(t), "letters"); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
