package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	natsclient "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox/natsjs"
	"github.com/headrace/headrace/internal/pgtest"
)

// Two processes with NATS between them: from a cart to a paid order through both, while NATS restarts, loses all that it
// holds, and the process dies that publishes the log.
func TestTwoProcessesShareNATS(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	nats := natstest.Start(t)
	environment := []string{"BROKER=nats", "NATS_URL=" + nats.URL, "LEASE_TTL=2s"}
	relay := func() (position, head int64, owner string) {
		err := pool.QueryRow(t.Context(), `select position, (select max(position) from events), coalesce(lease_owner, '')
			from checkpoints where name = 'relay_nats'`).Scan(&position, &head, &owner)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		return position, head, owner
	}
	published := func() {
		t.Helper()
		until(t, "the log to be published", func() bool { position, head, _ := relay(); return head > 0 && position == head })
	}
	first := startProgram(t, database, environment...)
	one := &server{url: first.url}
	cart := one.open(t)
	published()
	_, _, owner := relay()
	two := store{&server{url: startProgram(t, database, environment...).url}, pool}

	two.add(t, cart, 1)
	published()
	nats.Stop()
	one.add(t, cart, 1) // the view shows it without a broker
	nats.Start()
	two.add(t, cart, 1)
	published()
	nats.Wipe()
	nats.Start()
	if added := one.add(t, cart, 1); added.Cart == nil || added.Cart.Items[0].Quantity != 4 {
		t.Fatalf("got %+v", added)
	}
	published()

	out := two.checkOut(t, cart)
	if out.OrderID == "" || out.Order == nil || out.Order.Status != "PLACED" {
		t.Fatalf("the policy placed no order: %+v", out)
	}
	var paid struct{ PayOrder payload }
	one.ask(t, `mutation($id: ID!) { payOrder(input: {orderId: $id, reference: "r-1"}) { order { status } userErrors { code } } }`,
		map[string]any{"id": out.OrderID}, &paid)
	if paid.PayOrder.Order == nil || paid.PayOrder.Order.Status != "PAID" {
		t.Fatalf("got %+v", paid)
	}

	// An order that is left unpaid is cancelled by a message that comes through NATS, though the relay's process dies.
	unpaidCart := one.open(t)
	one.add(t, unpaidCart, 1)
	unpaid := one.checkOut(t, unpaidCart).OrderID
	if err := first.end(syscall.SIGKILL); err == nil {
		t.Fatal("it ended by itself")
	}
	two.timeToPayPasses(t, unpaid)
	until(t, "the unpaid order to be cancelled", func() bool {
		var got struct{ Order *struct{ Status string } }
		problem := post(t.Context(), two.url, `query($id: ID!) { order(id: $id) { status } }`, map[string]any{"id": unpaid}, &got)
		return problem == "" && got.Order != nil && got.Order.Status == "CANCELLED"
	})
	published()
	if _, _, heir := relay(); heir == owner {
		t.Fatal("the relay was not taken over")
	}
}

// A broker that is away holds nothing up: the server starts, answers from its views, and finds the broker when it comes.
func TestAServerStartsWithoutItsBroker(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t)
	nats.Stop()
	s := startServer(t, Config{Brokers: Brokers{Broker: brokerNATS, NATSURL: nats.URL, PublicTopic: "shop.public", PublicSource: "https://shop.example.org"}})
	cart := s.open(t)
	if added := s.add(t, cart, 2); added.Cart == nil || added.Cart.Items[0].Quantity != 2 {
		t.Fatalf("got %+v", added)
	}
	nats.Start()
	for _, topic := range []string{"shop.public", fulfilment.TopicPaymentRequested, fulfilment.TopicShipmentRequested} {
		carried(t, nats.URL, topic) // before there is anything on it
	}
	until(t, "the relay to publish", func() bool {
		var position int64
		err := s.app.pool.QueryRow(t.Context(), "select position from checkpoints where name = 'relay_nats'").Scan(&position)
		return err == nil && position >= 2
	})
	other, err := natsjs.Open(natsjs.Config{URL: nats.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	from, err := other.Subscribe(ctx, "shop.public")
	if err != nil {
		t.Fatal(err)
	}
	// The cart was opened and filled, which is nobody else's business; that it ended with an order is.
	s.checkOut(t, cart)
	for _, want := range []string{"shop.cart.checked_out.v1", "shop.order.placed.v1"} {
		select {
		case msg, open := <-from:
			if !open {
				t.Fatal("the subscription ended")
			}
			var told event.Event
			if err := json.Unmarshal(msg.Payload, &told); err != nil || told.Type() != want || told.Source() != "https://shop.example.org" {
				t.Fatalf("want %s, got %s, %v", want, msg.Payload, err)
			}
			msg.Ack()
		case <-ctx.Done():
			t.Fatal("nothing was published")
		}
	}
}

// carried waits until a stream carries the topic.
func carried(t *testing.T, url, topic string) {
	t.Helper()
	conn, err := natsclient.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a stream of "+topic, func() bool {
		_, err := js.StreamNameBySubject(t.Context(), topic)
		return err == nil
	})
}

// A broker that takes connections and says nothing holds up neither the start nor the end.
func TestAServerStartsAndEndsWhileKafkaSaysNothing(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	asked := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if first {
				close(asked)
			}
		}
	}()
	s := startServer(t, Config{Brokers: Brokers{Broker: brokerKafka, KafkaBrokers: []string{silent.Addr().String()}}})
	cart := s.open(t)
	if added := s.add(t, cart, 2); added.Cart == nil || added.Cart.Items[0].Quantity != 2 {
		t.Fatalf("got %+v", added)
	}
	<-asked
	s.stop()
	select {
	case <-s.done:
		if s.err != nil {
			t.Errorf("it ended with %v", s.err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
}

// What a receiver cannot work on is not the broker's to repeat: it comes again from the outbox, with its count of attempts.
func TestAFailingReceiverGivesItsMessageBackToTheOutbox(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t)
	s := startServer(t, Config{Brokers: Brokers{Broker: brokerNATS, NATSURL: nats.URL}})
	// A letter whose payload is none: the receiver cannot read it, however often it comes.
	if _, err := s.app.pool.Exec(t.Context(), `insert into outbox (id, available_at, created_at, topic, payload)
		values (gen_random_uuid(), now(), now(), 'user.welcome', '"no letter"')`); err != nil {
		t.Fatal(err)
	}
	until(t, "the second attempt to have failed", func() bool {
		var attempts int
		var reason *string
		err := s.app.pool.QueryRow(t.Context(), `select attempts, last_error from outbox
			where topic = 'user.welcome' and (headers->>'returned')::int >= 2`).Scan(&attempts, &reason)
		return err == nil && attempts >= 2 && reason != nil && strings.Contains(*reason, "payload")
	})
}

// Beside processes of a newer release, which have receivers that this one has not.
func TestMessagesOfAnotherReleaseAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	count := func(sql string) (n int) {
		t.Helper()
		if err := s.app.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := s.app.pool.Exec(t.Context(), `insert into outbox (id, available_at, created_at, topic, payload)
		values (gen_random_uuid(), now(), now(), 'newer.release', '{}'), (gen_random_uuid(), now(), now(), 'user.welcome', '{}')`); err != nil {
		t.Fatal(err)
	}
	until(t, "the other message to be delivered", func() bool { return count(`select count(*) from outbox`) == 1 })
	if count(`select count(*) from outbox where topic = 'newer.release' and attempts = 0`) != 1 {
		t.Fatal("a message was tried that only newer processes know")
	}
}

func TestBrokersAreValidated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		brokers Brokers
		want    string // in the error; empty: none
	}{
		{Brokers{}, ""},
		{Brokers{Broker: "local", NATSURL: "not looked at"}, ""},
		{Brokers{Broker: "nats"}, ""},
		{Brokers{Broker: "nats", NATSURL: "nats://a:4222, tls://b:4222", NATSReplicas: 3}, ""},
		{Brokers{Broker: "kafka", KafkaBrokers: []string{"a:9092"}, KafkaTLS: true, KafkaUser: "u", KafkaPassword: "p"}, ""},
		{Brokers{Broker: "nats", PublicTopic: "shop.public", PublicSource: "urn:shop"}, ""},
		{Brokers{Broker: "rabbit"}, "BROKER"},
		{Brokers{PublicTopic: "shop.public", PublicSource: "urn:shop"}, "PUBLIC_TOPIC"},
		{Brokers{Broker: "nats", PublicTopic: "shop.>", PublicSource: "urn:shop"}, "PUBLIC_TOPIC"},
		{Brokers{Broker: "nats", PublicTopic: "headrace.log", PublicSource: "urn:shop"}, "PUBLIC_TOPIC"},
		{Brokers{Broker: "nats", PublicTopic: "shop.public"}, "PUBLIC_SOURCE"},
		{Brokers{Broker: "kafka", KafkaBrokers: []string{"a:9092"}, PublicTopic: "shop.public", PublicSource: "shop"}, "PUBLIC_SOURCE"},
		{Brokers{Broker: "nats", NATSURL: "http://a"}, "NATS_URL"},
		{Brokers{Broker: "nats", NATSCredentials: "/does/not/exist"}, "NATS_CREDENTIALS"},
		{Brokers{Broker: "nats", NATSReplicas: 6}, "NATS_REPLICAS"},
		{Brokers{Broker: "kafka"}, "KAFKA_BROKERS"},
		{Brokers{Broker: "kafka", KafkaBrokers: []string{"a"}}, "KAFKA_BROKERS"},
		{Brokers{Broker: "kafka", KafkaBrokers: []string{"a:1"}, KafkaCA: "broker.go"}, "KAFKA_TLS"},
		{Brokers{Broker: "kafka", KafkaBrokers: []string{"a:1"}, KafkaUser: "u"}, "KAFKA_PASSWORD"},
	} {
		err := c.brokers.Validate()
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "give")) {
			t.Errorf("%+v: got %v", c.brokers, err)
		}
	}
}
