package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/kafkatest"
	"github.com/headrace/headrace/internal/outbox/kafka"
	"github.com/headrace/headrace/internal/pgtest"
)

// An order from the cart to the van, with Kafka between two processes and the outside: the log, the messages, the public events
// and the inbox go through it.
func TestTwoProcessesShareKafka(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	broker := kafkatest.Start(t)
	outside, err := kafka.Open(kafka.Config{Brokers: []string{broker.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	environment := []string{
		"BROKER=kafka", "KAFKA_BROKERS=" + broker.Addr, "LEASE_TTL=2s", "PUBLIC_TOPIC=shop.public", "PUBLIC_SOURCE=urn:shop",
		"INBOX_TOPICS=" + fulfilment.TopicPaymentCaptured + "," + fulfilment.TopicShipmentDispatched,
	}
	one := store{&server{url: startProgram(t, database, environment...).url}, pool}
	two := store{&server{url: startProgram(t, database, environment...).url}, pool}
	says := func(topic, id string, answer fulfilment.Answer) {
		t.Helper()
		content, err := json.Marshal(map[string]any{"specversion": "1.0", "id": id, "source": "/outside", "type": topic, "data": answer})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the outside to publish", func() bool { return outside.Publish(topic, message.NewMessage(uuid.NewString(), content)) == nil })
	}
	orders := []string{one.place(t), two.place(t)} // by a policy, and views
	for i, id := range orders {
		says(fulfilment.TopicPaymentCaptured, fmt.Sprint("paid-", i), payment(id, fmt.Sprint("p-", i)))
		one.comesTo(t, id, "PAID", "AWAITING_SHIPMENT")
		says(fulfilment.TopicShipmentDispatched, fmt.Sprint("sent-", i), fulfilment.Answer{OrderID: id})
		says(fulfilment.TopicShipmentDispatched, fmt.Sprint("sent-", i), fulfilment.Answer{OrderID: id}) // again
		one.comesTo(t, id, "SHIPPED", "COMPLETED")
	}
	until(t, "the log and the messages to be published, but for deadlines", func() bool { // what is on its way is not due, and is there yet
		return one.count(t, `select count(*) from checkpoints where name = 'relay_kafka' and position = (select max(position) from events)`) == 1 &&
			one.count(t, `select count(*) from outbox where topic <> $1`, fulfilment.TopicDeadline) == 0
	})
	for _, topic := range []string{"headrace.log", fulfilment.TopicPaymentRequested, fulfilment.TopicShipmentRequested} {
		stored := int64(0)
		for _, p := range broker.PartitionInfos(topic) {
			stored += p.HighWatermark
		}
		if stored < int64(len(orders)) {
			t.Errorf("%s has %d messages", topic, stored)
		}
	}
	toldInOrder(t, outside, orders...)
}

// toldInOrder reads the public events of orders: each in its own order, as often as it may be.
func toldInOrder(t *testing.T, outside *kafka.Broker, orders ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	from, err := outside.Subscribe(ctx, "shop.public")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"shop.order.placed.v1", "shop.order.paid.v1"}
	told, done := make(map[string][]string), 0
	for done < len(orders) {
		select {
		case msg, open := <-from:
			if !open {
				t.Fatalf("the subscription ended, and of the orders there was published %v", told)
			}
			var e struct{ ID, Subject, Type string }
			if err := json.Unmarshal(msg.Payload, &e); err != nil {
				t.Fatal(err)
			}
			msg.Ack()
			if slices.Contains(orders, e.Subject) && !slices.Contains(told[e.Subject], e.Type) {
				told[e.Subject] = append(told[e.Subject], e.Type)
				if e.Type == want[len(want)-1] {
					done++
				}
			}
		case <-ctx.Done():
			t.Fatalf("of the orders there was published %v", told)
		}
	}
	for _, order := range orders {
		if !slices.Equal(told[order], want) {
			t.Errorf("of %s there was published %v", order, told[order])
		}
	}
}
