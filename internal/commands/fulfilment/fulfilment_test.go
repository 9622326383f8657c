package fulfilment_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

type (
	scenario = decidertest.Scenario[fulfilment.Command, fulfilment.Event, fulfilment.State]
	events   = []fulfilment.Event
)

func given(events ...fulfilment.Event) scenario {
	return decidertest.Given(fulfilment.Decider(fulfilment.Config{}), events...)
}

func eur(amount int64) money.Money { return money.Money{Amount: amount, Currency: "EUR"} }

// The process as far as it came.
var (
	requested = events{
		fulfilment.Started{OwnerID: "ada", Total: eur(500)},
		fulfilment.PaymentRequested{Total: eur(500), Milliseconds: (30 * time.Minute).Milliseconds()},
	}
	captured = fulfilment.PaymentCaptured{Reference: "p-1"}
	toShip   = fulfilment.ShipmentRequested{Milliseconds: (7 * 24 * time.Hour).Milliseconds()}
	timedOut = with(requested, fulfilment.PaymentTimedOut{})
	paid     = with(requested, captured, toShip)
	failed   = with(paid, fulfilment.ShipmentFailed{Reason: "lost"})
	undone   = with(failed, refund("p-1", "lost"))
	shipped  = with(paid, fulfilment.Shipped{TrackingCode: "T"}, fulfilment.Completed{})
	ended    = with(timedOut, fulfilment.Cancelled{Reason: "not paid in time"})
	paidLate = with(timedOut, captured)
)

func with(all events, more ...fulfilment.Event) events {
	return append(append(events{}, all...), more...)
}

func refund(reference, reason string) fulfilment.RefundRequested {
	return fulfilment.RefundRequested{Reference: reference, Amount: eur(500), Reason: reason}
}

const late = "the order was paid or given up before"

func TestTheHappyPath(t *testing.T) {
	t.Parallel()
	start := fulfilment.Start{OwnerID: "ada", Total: eur(500)}
	given().When(start).Then(t, requested...)
	given(requested...).When(start).Then(t)
	given(requested...).When(fulfilment.CapturePayment{Reference: "p-1", Amount: eur(500)}).Then(t, captured, toShip)
	given(requested...).When(fulfilment.NotePaid{Reference: "p-1"}).Then(t, captured, toShip) // by the mutation
	given(paid...).When(fulfilment.Dispatch{TrackingCode: "T"}).Then(t, fulfilment.Shipped{TrackingCode: "T"}, fulfilment.Completed{})
}

func TestWhatTheOutsideAndTheClockSayTwiceOrLateIsHarmless(t *testing.T) {
	t.Parallel()
	capture := fulfilment.CapturePayment{Reference: "p-1", Amount: eur(500)}
	for _, after := range []events{paid, failed, undone, shipped} {
		given(after...).When(capture).Then(t)
		given(after...).When(fulfilment.NotePaid{Reference: "p-1"}).Then(t)
		given(after...).When(fulfilment.RefusePayment{Reason: "no"}).Then(t)
		given(after...).When(fulfilment.Expire{Deadline: fulfilment.DeadlinePayment}).Then(t)
	}
	for _, after := range []events{requested, timedOut, failed, undone, shipped, ended, paidLate} {
		given(after...).When(fulfilment.Expire{Deadline: fulfilment.DeadlineShipment}).Then(t)
	}
	given(paid...).When(fulfilment.Expire{Deadline: "of another version"}).Then(t)
	given(shipped...).When(fulfilment.Dispatch{TrackingCode: "T"}).Then(t)
	given(shipped...).When(fulfilment.NoteShipped{TrackingCode: "T"}).Then(t)
	given(failed...).When(fulfilment.FailShipment{Reason: "lost"}).Then(t)
	given(undone...).When(fulfilment.FailShipment{Reason: "lost"}).Then(t)
	given(undone...).When(fulfilment.NoteCancelled{Reason: "lost"}).Then(t)
	given(ended...).When(fulfilment.NoteCancelled{Reason: "lost"}).Then(t)
	given(with(undone, fulfilment.Refunded{Reference: "p-1"}, fulfilment.Cancelled{Reason: "lost", Refunded: true})...).
		When(fulfilment.ConfirmRefund{Reference: "p-1"}).Then(t)
}

func TestWithoutAPaymentTheOrderIsToBeCancelled(t *testing.T) {
	t.Parallel()
	given(requested...).When(fulfilment.Expire{Deadline: fulfilment.DeadlinePayment}).Then(t, fulfilment.PaymentTimedOut{})
	given(requested...).When(fulfilment.RefusePayment{Reason: "no funds"}).Then(t, fulfilment.PaymentRefused{Reason: "no funds"})
	given(timedOut...).When(fulfilment.NoteCancelled{Reason: "late"}).Then(t, fulfilment.Cancelled{Reason: "late"})
	// The order was paid at the last moment, and did not let itself be cancelled.
	given(timedOut...).When(fulfilment.NotePaid{Reference: "p-1"}).Then(t, captured, toShip)
	// The provider says so before the order does, whose word is waited for: nobody is asked to ship what may be cancelled.
	given(timedOut...).When(fulfilment.CapturePayment{Reference: "p-1", Amount: eur(500)}).Then(t, captured)
	given(paidLate...).When(fulfilment.NotePaid{Reference: "p-1"}).Then(t, toShip)
	given(paidLate...).When(fulfilment.NoteCancelled{Reason: "late"}).Then(t, refund("p-1", "late"))
	given(paidLate...).When(fulfilment.NotePaid{Reference: "p-2"}).
		Then(t, fulfilment.PaymentCaptured{Reference: "p-2"}, refund("p-1", "the order was paid before"), toShip)
}

func TestAPaymentThatIsNotTheOneGoesBack(t *testing.T) {
	t.Parallel()
	other := fulfilment.CapturePayment{Reference: "p-2", Amount: eur(500)}
	for _, after := range []events{paidLate, ended, paid, shipped, failed, undone} {
		given(after...).When(other).Then(t, refund("p-2", late))
	}
	confirmed := given(with(shipped, refund("p-2", late))...).When(fulfilment.ConfirmRefund{Reference: "p-2"})
	confirmed.Then(t, fulfilment.Refunded{Reference: "p-2"}) // and the order stays shipped
	for _, after := range []events{paid, failed, shipped} {
		given(after...).When(fulfilment.NotePaid{Reference: "p-2"}).
			Then(t, fulfilment.PaymentCaptured{Reference: "p-2"}, refund("p-1", "the order was paid before"))
	}
	for _, after := range []events{undone, ended} {
		given(after...).When(fulfilment.NotePaid{Reference: "p-2"}).Then(t, refund("p-2", "the order was given up before"))
	}
}

func TestNoShipmentIsCompensated(t *testing.T) {
	t.Parallel()
	given(paid...).When(fulfilment.FailShipment{Reason: "lost"}).Then(t, fulfilment.ShipmentFailed{Reason: "lost"})
	given(paid...).When(fulfilment.Expire{Deadline: fulfilment.DeadlineShipment}).Then(t, fulfilment.ShipmentFailed{Reason: "not shipped in time"})
	for _, after := range []events{paid, failed, shipped} {
		given(after...).When(fulfilment.NoteCancelled{Reason: "lost"}).Then(t, refund("p-1", "lost"))
	}
	given(undone...).When(fulfilment.ConfirmRefund{Reference: "p-1"}).
		Then(t, fulfilment.Refunded{Reference: "p-1"}, fulfilment.Cancelled{Reason: "lost", Refunded: true})
	// Staff shipped it meanwhile, and the order did not let itself be cancelled.
	given(failed...).When(fulfilment.NoteShipped{TrackingCode: "T"}).Then(t, fulfilment.Shipped{TrackingCode: "T"}, fulfilment.Completed{})
}

func TestWhatAPersonHasToLookAtIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given   events
		command fulfilment.Command
		code    string
	}{
		{nil, fulfilment.CapturePayment{Reference: "p-1", Amount: eur(500)}, fulfilment.CodeNotFound},
		{requested, fulfilment.CapturePayment{Reference: "p-1", Amount: eur(499)}, fulfilment.CodePaymentMismatch},
		{requested, fulfilment.CapturePayment{Reference: "p-1", Amount: money.Money{Amount: 500, Currency: "USD"}}, fulfilment.CodePaymentMismatch},
		{requested, fulfilment.Dispatch{}, fulfilment.CodeNotDue},
		{requested, fulfilment.FailShipment{}, fulfilment.CodeNotDue},
		{paidLate, fulfilment.Dispatch{}, fulfilment.CodeNotDue},
		{paidLate, fulfilment.NoteShipped{}, fulfilment.CodeNotDue},
		{failed, fulfilment.Dispatch{}, fulfilment.CodeTooLate},
		{undone, fulfilment.Dispatch{}, fulfilment.CodeTooLate},
		{undone, fulfilment.NoteShipped{}, fulfilment.CodeTooLate},
		{ended, fulfilment.NoteShipped{}, fulfilment.CodeTooLate},
		{shipped, fulfilment.FailShipment{}, fulfilment.CodeTooLate},
		{paid, fulfilment.ConfirmRefund{Reference: "p-1"}, fulfilment.CodeNoRefund},
		{requested, fulfilment.CapturePayment{Amount: eur(500)}, commands.CodeRequired},
		{requested, fulfilment.RefusePayment{Reason: strings.Repeat("x", 401)}, commands.CodeTooLong},
		{paid, fulfilment.Dispatch{TrackingCode: strings.Repeat("x", 101)}, commands.CodeTooLong},
	} {
		given(c.given...).When(c.command).ThenRejected(t, c.code)
	}
}

// Each topic may say what it is there for and nothing else; nobody else may say anything.
func TestATopicMaySayWhatItIsFor(t *testing.T) {
	t.Parallel()
	topics := map[string]fulfilment.Command{}
	for _, topic := range fulfilment.Topics() {
		topics[topic] = fulfilment.Answer{Reference: "p-1", Amount: eur(500)}.Command(topic)
	}
	own := []fulfilment.Command{
		fulfilment.Start{}, fulfilment.NotePaid{}, fulfilment.NoteShipped{}, fulfilment.NoteCancelled{}, fulfilment.Expire{},
	}
	decider := fulfilment.Decider(fulfilment.Config{})
	may := func(c fulfilment.Command, who identity.Identity) bool {
		return decider.May(fulfilment.State{}, c, who) == nil
	}
	staff := identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}
	program := identity.System("policy:fulfilment")
	for topic, command := range topics {
		for _, from := range fulfilment.Topics() {
			if may(command, identity.Inbox(from)) != (from == topic) {
				t.Errorf("%s says %s: %v", from, command.CommandType(), from != topic)
			}
		}
		for _, c := range own {
			if may(c, identity.Inbox(topic)) {
				t.Errorf("%s says %s", topic, c.CommandType())
			}
		}
		if may(command, staff) || may(command, identity.Identity{}) || !may(command, program) {
			t.Errorf("%s is not for the topic alone", command.CommandType())
		}
	}
	for _, c := range own {
		if may(c, staff) || !may(c, program) {
			t.Errorf("%s is not for the program alone", c.CommandType())
		}
	}
	if (fulfilment.Answer{}).Command("weather.reports") != nil {
		t.Error("a topic of something else leads to a command")
	}
}

func TestWhatIsSentOutside(t *testing.T) {
	t.Parallel()
	decider := fulfilment.Decider(fulfilment.Config{PayWithin: time.Hour, ShipWithin: 2 * time.Hour})
	stream := decidertest.Stream(fulfilment.Category)
	orderID := fulfilment.OrderOf(stream)
	if fulfilment.ForOrder(orderID) != stream {
		t.Fatalf("got %q and %q", orderID, fulfilment.ForOrder(orderID))
	}
	deadline := func(name string) string { return `{"stream":"` + stream + `","name":"` + name + `"}` }
	for _, c := range []struct {
		given   events
		command fulfilment.Command
		want    []eventstore.Message
	}{
		{nil, fulfilment.Start{Total: eur(500)}, []eventstore.Message{
			{Topic: "payments.requested", Key: orderID, Payload: []byte(`{"orderId":"` + orderID + `","amount":{"amount":500,"currency":"EUR"}}`)},
			{Topic: "fulfilment.deadline", Key: stream, Payload: []byte(deadline("payment")), Delay: time.Hour},
		}},
		{requested, fulfilment.NotePaid{Reference: "p-1"}, []eventstore.Message{
			{Topic: "shipments.requested", Key: orderID, Payload: []byte(`{"orderId":"` + orderID + `"}`)},
			{Topic: "fulfilment.deadline", Key: stream, Payload: []byte(deadline("shipment")), Delay: 2 * time.Hour},
		}},
		{paid, fulfilment.FailShipment{Reason: "lost"}, nil},
		{failed, fulfilment.NoteCancelled{Reason: "lost"}, []eventstore.Message{
			{Topic: "refunds.requested", Key: orderID, Payload: []byte(
				`{"orderId":"` + orderID + `","amount":{"amount":500,"currency":"EUR"},"reference":"p-1"}`)},
		}},
		{paid, fulfilment.Dispatch{}, nil},
	} {
		got := decidertest.Given(decider, c.given...).When(c.command).Effects(t).Messages
		if len(got) != len(c.want) {
			t.Fatalf("%s sends %+v", c.command.CommandType(), got)
		}
		for i, want := range c.want {
			if got[i].Topic != want.Topic || got[i].Key != want.Key || string(got[i].Payload) != string(want.Payload) || got[i].Delay != want.Delay {
				t.Errorf("%s sends %+v with %s, want %s", c.command.CommandType(), got[i], got[i].Payload, want.Payload)
			}
		}
	}
}

func TestReact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event   eventstore.Payload
		process fulfilment.Command
		ofOrder order.Command
	}{
		{order.Placed{OwnerID: "ada", Total: eur(5)}, fulfilment.Start{OwnerID: "ada", Total: eur(5)}, nil},
		{order.Paid{Reference: "p"}, fulfilment.NotePaid{Reference: "p"}, nil},
		{order.Cancelled{Reason: "r"}, fulfilment.NoteCancelled{Reason: "r"}, nil},
		{order.Shipped{TrackingCode: "T"}, fulfilment.NoteShipped{TrackingCode: "T"}, nil},
		{fulfilment.PaymentCaptured{Reference: "p"}, nil, order.Pay{Reference: "p"}},
		{fulfilment.PaymentRefused{Reason: "r"}, nil, order.CancelUnpaid{Reason: "the payment was refused: r"}},
		{fulfilment.PaymentTimedOut{}, nil, order.CancelUnpaid{}},
		{fulfilment.Shipped{TrackingCode: "T"}, nil, order.Ship{TrackingCode: "T"}},
		{fulfilment.ShipmentFailed{Reason: "r"}, nil, order.Cancel{Reason: "could not be shipped: r"}},
		{fulfilment.Cancelled{Reason: "r", Refunded: true}, nil, order.Refund{Reason: "r"}},
		{fulfilment.Cancelled{Reason: "r"}, nil, nil},
		{order.Delivered{}, nil, nil},
	} {
		if process, ofOrder := fulfilment.React(c.event); process != c.process || (ofOrder != c.ofOrder) {
			t.Errorf("%s: got %+v and %+v", c.event.EventType(), process, ofOrder)
		}
	}
}

func TestDeciderIsPure(t *testing.T) {
	t.Parallel()
	decidertest.CheckPure(t, fulfilment.Decider(fulfilment.Config{}), rapid.SampledFrom([]fulfilment.Command{
		fulfilment.Start{Total: eur(5)},
		fulfilment.CapturePayment{Reference: "p-1", Amount: eur(5)},
		fulfilment.CapturePayment{Reference: "p-2", Amount: eur(5)},
		fulfilment.NotePaid{Reference: "p-1"},
		fulfilment.NotePaid{Reference: "p-3"},
		fulfilment.RefusePayment{},
		fulfilment.Expire{Deadline: fulfilment.DeadlinePayment},
		fulfilment.Expire{Deadline: fulfilment.DeadlineShipment},
		fulfilment.Dispatch{},
		fulfilment.FailShipment{},
		fulfilment.NoteShipped{},
		fulfilment.NoteCancelled{},
		fulfilment.ConfirmRefund{Reference: "p-1"},
		fulfilment.ConfirmRefund{Reference: "p-2"},
	}), nil)
}

func TestRecordedJSON(t *testing.T) {
	t.Parallel()
	decidertest.CheckGolden(t, fulfilment.Events(),
		requested[0], requested[1], captured, fulfilment.PaymentRefused{Reason: "why"}, fulfilment.PaymentTimedOut{}, toShip,
		fulfilment.Shipped{TrackingCode: "T-1"}, fulfilment.ShipmentFailed{Reason: "why"}, refund("p-1", "why"),
		fulfilment.Refunded{Reference: "p-1"}, fulfilment.Completed{}, fulfilment.Cancelled{Reason: "why", Refunded: true})
}
