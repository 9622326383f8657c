package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
	"github.com/headrace/headrace/internal/pgtest"
)

// store is a server and what its tests of orders ask for.
type store struct {
	*server
	pool *pgxpool.Pool
}

func openStore(t *testing.T, config Config) store {
	t.Helper()
	s := startServer(t, config)
	return store{s, s.app.pool}
}

// place returns the id of an order of 250 EUR.
func (s store) place(t *testing.T) string {
	t.Helper()
	cart := s.open(t)
	s.add(t, cart, 1)
	order := s.checkOut(t, cart).OrderID
	s.comesTo(t, order, "PLACED", "AWAITING_PAYMENT")
	return order
}

// comesTo waits for the states of an order and of its process.
func (s store) comesTo(t *testing.T, order, status, process string) {
	t.Helper()
	var got [2]string
	until(t, fmt.Sprintf("%s to be %s and %s", order, status, process), func() bool {
		err := s.pool.QueryRow(t.Context(), `select o.status, coalesce(f.status, '') from "order" o left join fulfilment f on f.id = $2 where o.id = $1`,
			order, fulfilment.ForOrder(order)).Scan(&got[0], &got[1])
		return err == nil && got == [2]string{status, process}
	})
}

// says puts an answer of the outside into the inbox.
func (s store) says(t *testing.T, topic, id string, answer fulfilment.Answer) {
	t.Helper()
	content, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := outbox.SendReceived(t.Context(), s.pool, topic, id, content, 0); err != nil {
		t.Fatal(err)
	}
}

// becomes waits for the state of a message in the inbox.
func (s store) becomes(t *testing.T, topic, id, state string) (r outbox.Received) {
	t.Helper()
	until(t, id+" to be "+state, func() bool {
		var err error
		r, err = outbox.ShowReceived(t.Context(), s.pool, topic, id)
		return err == nil && r.State == state
	})
	return r
}

// happened are the types of the events of a process.
func (s store) happened(t *testing.T, order string) []string {
	t.Helper()
	rows, err := s.pool.Query(t.Context(), `select split_part(type, '.', 2) from events where stream = $1 order by version`, fulfilment.ForOrder(order))
	if err != nil {
		t.Fatal(err)
	}
	types, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func (s store) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// timeToPayPasses has the deadline of an order's payment be over.
func (s store) timeToPayPasses(t *testing.T, order string) {
	t.Helper()
	until(t, "the deadline of the payment", func() bool {
		tag, err := s.pool.Exec(t.Context(), `update outbox set available_at = now() where topic = $1 and key = $2 and payload->>'name' = 'payment'`,
			fulfilment.TopicDeadline, fulfilment.ForOrder(order))
		return err == nil && tag.RowsAffected() > 0
	})
	s.open(t) // after a commit of its own a process looks what is due
}

func payment(order, reference string) fulfilment.Answer {
	return fulfilment.Answer{OrderID: order, Reference: reference, Amount: money.Money{Amount: 250, Currency: "EUR"}}
}

// Duplicates and late words included.
func TestAnOrderIsPaidAndShipped(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	order := s.place(t)
	s.says(t, fulfilment.TopicPaymentCaptured, "m-1", payment(order, "p-1"))
	s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	s.says(t, fulfilment.TopicPaymentCaptured, "m-1", payment(order, "p-1")) // the same message
	s.says(t, fulfilment.TopicPaymentCaptured, "m-2", payment(order, "p-1")) // another of the same payment
	s.says(t, fulfilment.TopicPaymentRefused, "m-3", fulfilment.Answer{OrderID: order, Reason: "late"})
	s.says(t, fulfilment.TopicShipmentDispatched, "m-4", fulfilment.Answer{OrderID: order, TrackingCode: "T-1"})
	s.comesTo(t, order, "SHIPPED", "COMPLETED")
	s.says(t, fulfilment.TopicShipmentDispatched, "m-5", fulfilment.Answer{OrderID: order, TrackingCode: "T-2"})
	for topic, ids := range map[string][]string{
		fulfilment.TopicPaymentCaptured: {"m-1", "m-2"}, fulfilment.TopicPaymentRefused: {"m-3"}, fulfilment.TopicShipmentDispatched: {"m-4", "m-5"},
	} {
		for _, id := range ids {
			s.becomes(t, topic, id, outbox.ReceivedHandled)
		}
	}
	want := []string{"started", "payment_requested", "payment_captured", "shipment_requested", "shipped", "completed"}
	if got := s.happened(t, order); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	if n := s.count(t, `select count(*) from events where type = 'order.paid'`); n != 1 {
		t.Fatalf("paid %d times", n)
	}
	var asked struct {
		Order *struct {
			Fulfilment *struct {
				ID, OrderID, Status, PaymentReference, TrackingCode string
				PayBy, ShipBy                                       *string
				Steps                                               []struct{ Name, Note string }
			}
		}
		Fulfilment *struct{ Status string }
		Node       *struct{ Version int }
		Then       *struct{ Status, PayBy string }
	}
	s.ask(t, `query($order: ID!, $id: ID!) {
		order(id: $order) { fulfilment { id orderId status paymentReference trackingCode payBy shipBy steps { name note } } }
		fulfilment(id: $id) { status }
		node(id: $id) { ... on Fulfilment { version } }
		then: fulfilment(id: $id, asOf: {version: 2}) { status payBy }
	}`, map[string]any{"order": order, "id": fulfilment.ForOrder(order)}, &asked)
	f := asked.Order.Fulfilment
	if f == nil || f.ID != fulfilment.ForOrder(order) || f.OrderID != order || f.Status != "COMPLETED" || f.PaymentReference != "p-1" ||
		f.TrackingCode != "T-1" || f.PayBy != nil || f.ShipBy != nil || len(f.Steps) != 6 || f.Steps[2].Name != "payment_captured" || f.Steps[2].Note != "p-1" {
		t.Fatalf("got %+v", f)
	}
	if asked.Fulfilment == nil || asked.Fulfilment.Status != f.Status || asked.Node == nil || asked.Node.Version != 6 ||
		asked.Then == nil || asked.Then.Status != "AWAITING_PAYMENT" || asked.Then.PayBy == "" {
		t.Fatalf("got %+v, %+v, %+v", asked.Fulfilment, asked.Node, asked.Then)
	}
	// The events say who it was.
	if n := s.count(t, `select count(*) from events where type = 'fulfilment.payment_captured'
		and metadata->>'actor' = 'inbox:payments.captured' and metadata->>'commandId' = 'm-1' and metadata->'roles' is null`); n != 1 {
		t.Fatal("the event does not name the topic")
	}
}

func TestThePayOrderMutationMovesTheProcess(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	order := s.place(t)
	var paid struct{ PayOrder payload }
	s.ask(t, `mutation($id: ID!) { payOrder(input: {orderId: $id, reference: "r-1"}) { order { status } userErrors { code } } }`,
		map[string]any{"id": order}, &paid)
	s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	// What the provider has captured as well goes back, and the order is shipped all the same.
	s.says(t, fulfilment.TopicPaymentCaptured, "m-1", payment(order, "p-1"))
	s.becomes(t, fulfilment.TopicPaymentCaptured, "m-1", outbox.ReceivedHandled)
	s.says(t, fulfilment.TopicPaymentRefunded, "m-2", fulfilment.Answer{OrderID: order, Reference: "p-1"})
	s.says(t, fulfilment.TopicShipmentDispatched, "m-3", fulfilment.Answer{OrderID: order})
	s.becomes(t, fulfilment.TopicPaymentRefunded, "m-2", outbox.ReceivedHandled)
	s.comesTo(t, order, "SHIPPED", "COMPLETED")
}

func TestAPaymentThatTimesOutOrIsRefusedCancelsTheOrder(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	refused := s.place(t)
	s.says(t, fulfilment.TopicPaymentRefused, "m-1", fulfilment.Answer{OrderID: refused, Reason: "no funds"})
	s.comesTo(t, refused, "CANCELLED", "CANCELLED")
	if got := s.count(t, `select count(*) from "order" where reason = 'the payment was refused: no funds'`); got != 1 {
		t.Fatal("the order does not say why")
	}
	unpaid := s.place(t)
	// The time passes: the deadline's message is due now, and comes twice.
	s.exec(t, `insert into outbox (id, available_at, created_at, topic, key, payload)
		select gen_random_uuid(), now(), now(), topic, key, payload from outbox where key = $1 and topic = 'fulfilment.deadline'`, fulfilment.ForOrder(unpaid))
	s.timeToPayPasses(t, unpaid)
	s.comesTo(t, unpaid, "CANCELLED", "CANCELLED")
	// A payment that comes now goes back.
	s.says(t, fulfilment.TopicPaymentCaptured, "m-2", payment(unpaid, "p-2"))
	s.becomes(t, fulfilment.TopicPaymentCaptured, "m-2", outbox.ReceivedHandled)
	want := []string{"started", "payment_requested", "payment_timed_out", "cancelled", "refund_requested"}
	if got := s.happened(t, unpaid); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	s.comesTo(t, unpaid, "CANCELLED", "CANCELLED")
}

func (s store) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func TestAShipmentThatFailsIsCompensated(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	failed, late := s.place(t), s.place(t)
	for i, order := range []string{failed, late} {
		s.says(t, fulfilment.TopicPaymentCaptured, fmt.Sprint("paid-", i), payment(order, fmt.Sprint("p-", i)))
		s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	}
	s.says(t, fulfilment.TopicShipmentFailed, "m-1", fulfilment.Answer{OrderID: failed, Reason: "the van burnt down"})
	s.comesTo(t, failed, "CANCELLED", "REFUNDING")
	s.exec(t, `update outbox set available_at = now() where key = $1 and payload->>'name' = 'shipment'`, fulfilment.ForOrder(late))
	s.open(t) // after a commit of its own a process looks what is due
	s.comesTo(t, late, "CANCELLED", "REFUNDING")
	for i, order := range []string{failed, late} {
		s.says(t, fulfilment.TopicPaymentRefunded, fmt.Sprint("back-", i), fulfilment.Answer{OrderID: order, Reference: fmt.Sprint("p-", i)})
		s.comesTo(t, order, "REFUNDED", "CANCELLED")
	}
	want := []string{
		"started", "payment_requested", "payment_captured", "shipment_requested", "shipment_failed", "refund_requested", "refunded", "cancelled",
	}
	if got := s.happened(t, failed); !slices.Equal(got, want) {
		t.Fatalf("got %v", got)
	}
	// Goods that leave now are for a person to look after.
	s.says(t, fulfilment.TopicShipmentDispatched, "m-2", fulfilment.Answer{OrderID: late})
	if r := s.becomes(t, fulfilment.TopicShipmentDispatched, "m-2", outbox.ReceivedDead); !strings.Contains(r.LastError, fulfilment.CodeTooLate) {
		t.Fatalf("got %+v", r)
	}
}

func TestWhatThePaymentProviderGetsWrongIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	order := s.place(t)
	wrong := payment(order, "p-1")
	wrong.Amount.Amount = 249
	s.says(t, fulfilment.TopicPaymentCaptured, "less", wrong)
	s.says(t, fulfilment.TopicPaymentCaptured, "whose", payment("cart-1", "p-1"))
	if _, err := outbox.SendReceived(t.Context(), s.pool, fulfilment.TopicPaymentCaptured, "broken", []byte(`{"orderId": `), 0); err != nil {
		t.Fatal(err)
	}
	for id, reason := range map[string]string{
		"less": "refused with PAYMENT_MISMATCH: payment \"p-1\" is of 249 EUR, and the order comes to 250 EUR", "whose": `"cart-1" is no order's id`,
		"broken": "reading the content",
	} {
		if r := s.becomes(t, fulfilment.TopicPaymentCaptured, id, outbox.ReceivedDead); !strings.Contains(r.LastError, reason) || r.Attempts != 1 {
			t.Errorf("%s: got %+v", id, r)
		}
	}
	// One that is before its time is tried again.
	early := "order-" + uuid.NewString()
	s.says(t, fulfilment.TopicPaymentCaptured, "early", payment(early, "p-2"))
	until(t, "the first attempt", func() bool {
		r, err := outbox.ShowReceived(t.Context(), s.pool, fulfilment.TopicPaymentCaptured, "early")
		return err == nil && r.State == outbox.ReceivedWaiting && r.LastError != ""
	})
	s.comesTo(t, order, "PLACED", "AWAITING_PAYMENT")
}

// Two processes and a broker between them and the provider; one is killed in the middle.
func TestTheProcessSurvivesKills(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	nats := natstest.Start(t)
	environment := []string{
		"BROKER=nats", "NATS_URL=" + nats.URL, "LEASE_TTL=2s", "INBOX_TOPICS=payments.captured,shipments.dispatched",
	}
	provider, err := natsjs.Open(natsjs.Config{URL: nats.URL, Foreign: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() })
	publish := func(topic, id string, answer fulfilment.Answer) {
		t.Helper()
		content, err := json.Marshal(map[string]any{"specversion": "1.0", "id": id, "source": "/outside", "type": topic, "data": answer})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the outside to publish", func() bool { return provider.Publish(topic, message.NewMessage(uuid.NewString(), content)) == nil })
	}
	first := startProgram(t, database, environment...)
	s := store{&server{url: first.url}, pool}
	var orders []string
	for i := range 5 {
		orders = append(orders, s.place(t))
		publish(fulfilment.TopicPaymentCaptured, fmt.Sprint("m-", i), payment(orders[i], fmt.Sprint("p-", i)))
	}
	if err := first.end(syscall.SIGKILL); err == nil {
		t.Fatal("it ended by itself")
	}
	for i, order := range orders {
		publish(fulfilment.TopicPaymentCaptured, fmt.Sprint("m-", i), payment(order, fmt.Sprint("p-", i))) // again
	}
	s.server = &server{url: startProgram(t, database, environment...).url}
	for i, order := range orders {
		s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
		publish(fulfilment.TopicShipmentDispatched, fmt.Sprint("m-", i), fulfilment.Answer{OrderID: order})
	}
	for _, order := range orders {
		s.comesTo(t, order, "SHIPPED", "COMPLETED")
	}
	if n := s.count(t, `select count(*) from events where type in ('order.paid', 'order.shipped', 'fulfilment.payment_captured')`); n != 15 {
		t.Fatalf("%d events, want 15", n)
	}
	until(t, "ten messages to be handled", func() bool { // which is noted after their effect
		return s.count(t, `select count(*) from inbox where handled_at is not null and id like '/outside#%'`) == 10
	})
}

// A rebuild replays the log into tables, and no policy runs again: with no receipts any more, a command that was given again
// would have its effect again, or leave its mark.
func TestARebuildOfEveryViewIssuesNoCommand(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{LeaseTTL: time.Minute}) // a lease that is lost and taken again would be seen below
	order := s.place(t)
	s.says(t, fulfilment.TopicPaymentCaptured, "m-1", payment(order, "p-1"))
	s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	until(t, "the policies to be at the head", func() bool {
		return s.count(t, `select count(*) from checkpoints where position < (select max(position) from events)`) == 0
	})
	s.exec(t, `delete from receipts`)
	state := func() (all string) {
		t.Helper()
		err := s.pool.QueryRow(t.Context(), `select format('events %s, receipts %s, messages %s, parked %s, policies %s',
			(select count(*) from events), (select count(*) from receipts), (select count(*) from outbox), (select count(*) from parked_streams),
			(select string_agg(concat_ws(' ', name, position, lease_epoch, updated_at), ', ' order by name) from checkpoints
			 where name in ('checkout', 'fulfilment')))`).Scan(&all)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := state()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	projections, err := newProjections(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range projections {
		var out strings.Builder
		if code := run(t.Context(), []string{"projections", "rebuild", p.Name, "--database-url", pgtest.URL(t)}, &out, &out); code != exitDone {
			t.Fatalf("rebuilding %s: %s", p.Name, &out)
		}
	}
	s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	if after := state(); after != before {
		t.Fatalf("there were %s\nand are %s", before, after)
	}
}

func TestTheOutsideIsSimulatedInDevelopment(t *testing.T) {
	t.Parallel()
	at := 10 * time.Millisecond
	c := Config{Fulfilment: Fulfilment{Simulate: &at}}
	if c.simulate() != 0 {
		t.Error("it is simulated in production")
	}
	c.Environment = development
	if c.simulate() != at {
		t.Error("it is not simulated")
	}
	one := openStore(t, c)
	cart := one.open(t)
	one.add(t, cart, 1)
	one.comesTo(t, one.checkOut(t, cart).OrderID, "SHIPPED", "COMPLETED")
}

func TestTheInboxFromTheCommandLine(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	order := s.place(t)
	url := pgtest.URL(t)
	api := func(want int, args ...string) string {
		t.Helper()
		var out, problems strings.Builder
		if code := run(context.WithoutCancel(t.Context()), append(args, "--database-url", url), &out, &problems); code != want {
			t.Fatalf("%v: exit code %d: %s%s", args, code, &out, &problems)
		}
		return out.String() + problems.String()
	}
	content := func(amount int) string {
		return fmt.Sprintf(`{"orderId": %q, "reference": "p-1", "amount": {"amount": %d, "currency": "EUR"}}`, order, amount)
	}
	topic := fulfilment.TopicPaymentCaptured
	api(exitDone, "inbox", "send", topic, "less", content(249))
	s.becomes(t, topic, "less", outbox.ReceivedDead)
	if out := api(exitDone, "inbox", "list"); !strings.Contains(out, "less") || !strings.Contains(out, "PAYMENT_MISMATCH") {
		t.Errorf("got %s", out)
	}
	if out := api(exitDone, "inbox", "show", topic, "less"); !strings.Contains(out, content(249)) || !strings.Contains(out, "dead") {
		t.Errorf("got %s", out)
	}
	var shown outbox.Received
	if err := json.Unmarshal([]byte(api(exitDone, "inbox", "show", topic, "less", "--json")), &shown); err != nil || string(shown.Payload) != content(249) {
		t.Errorf("got %+v, %v", shown, err)
	}
	api(exitDone, "inbox", "retry", topic, "less")
	until(t, "it to fail again", func() bool {
		r, err := outbox.ShowReceived(t.Context(), s.pool, topic, "less")
		return err == nil && r.State == outbox.ReceivedDead && r.Attempts == 1
	})
	api(exitFailed, "inbox", "discard", topic, "less", "unknown")
	if out := api(exitDone, "inbox", "send", topic, "less", content(249)); !strings.Contains(out, "known") {
		t.Errorf("got %s", out)
	}
	api(exitDone, "inbox", "send", topic, "all", content(250))
	s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	s.becomes(t, topic, "all", outbox.ReceivedHandled)
	var all []outbox.Received
	if err := json.Unmarshal([]byte(api(exitDone, "inbox", "list", "--json", "--state", "handled", "--topic", topic)), &all); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	api(exitFailed, "inbox", "show", topic, "unknown")
	api(exitUsage, "inbox", "send", "weather.reports", "1", "{}")
	api(exitUsage, "inbox", "send", topic, "1", "{")
}

func TestTheInboxIsValidated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		inbox  Inbox
		shared bool
		want   string // in the error; empty: none
	}{
		{Inbox{}, false, ""},
		{Inbox{Topics: fulfilment.Topics(), Keep: 24 * time.Hour}, true, ""},
		{Inbox{Topics: []string{"weather.reports"}}, true, "INBOX_TOPICS"},
		{Inbox{Topics: fulfilment.Topics()}, false, "INBOX_TOPICS"},
		{Inbox{Keep: time.Hour}, true, "INBOX_KEEP"},
		{Inbox{Keep: -1}, true, "INBOX_KEEP"},
	} {
		err := c.inbox.validate(c.shared)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "give")) {
			t.Errorf("%+v: got %v", c.inbox, err)
		}
	}
	second := time.Second
	for _, c := range []struct {
		f           Fulfilment
		environment string
		shared      bool
		want        string
	}{
		{Fulfilment{ShipWithin: 1}, production, true, ""},
		{Fulfilment{ShipWithin: 1, Simulate: new(time.Duration)}, production, true, ""},
		{Fulfilment{ShipWithin: 1, Simulate: &second}, development, false, ""},
		{Fulfilment{ShipWithin: 1, Simulate: &second}, development, true, "SIMULATE_OUTSIDE"},
		{Fulfilment{ShipWithin: 1, Simulate: &second}, production, false, "SIMULATE_OUTSIDE"},
		{Fulfilment{}, production, false, "SHIP_WITHIN"},
	} {
		err := c.f.validate(c.environment, c.shared)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "give")) {
			t.Errorf("%+v: got %v", c.f, err)
		}
	}
}
