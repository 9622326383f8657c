package fulfilment

import (
	"encoding/json"
	"time"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// Topics on which the process asks the world outside for something. What it sends is a Request.
const (
	TopicPaymentRequested  = "payments.requested"
	TopicRefundRequested   = "refunds.requested"
	TopicShipmentRequested = "shipments.requested"
)

// Topics on which the world outside answers, with an Answer.
const (
	TopicPaymentCaptured    = "payments.captured"
	TopicPaymentRefused     = "payments.refused"
	TopicPaymentRefunded    = "payments.refunded"
	TopicShipmentDispatched = "shipments.dispatched"
	TopicShipmentFailed     = "shipments.failed"
)

// TopicDeadline is that of the process's deadlines, each a commands.Deadline.
const TopicDeadline = "fulfilment.deadline"

// Topics are all on which the world outside answers.
func Topics() []string {
	return []string{
		TopicPaymentCaptured, TopicPaymentRefused, TopicPaymentRefunded, TopicShipmentDispatched, TopicShipmentFailed,
	}
}

// Request is what the process sends to the outside.
type Request struct {
	OrderID   string       `json:"orderId"`
	Amount    *money.Money `json:"amount,omitempty"`    // of a payment or a refund
	Reference string       `json:"reference,omitempty"` // of the payment that is to go back
}

// Answer is what comes from the outside. Each topic has those fields that its command has.
type Answer struct {
	OrderID      string      `json:"orderId"`
	Reference    string      `json:"reference"`
	Amount       money.Money `json:"amount"`
	Reason       string      `json:"reason"`
	TrackingCode string      `json:"trackingCode"`
}

// Command is what an answer on a topic tells the process; nil for a topic that is none.
func (a Answer) Command(topic string) Command {
	switch topic {
	case TopicPaymentCaptured:
		return CapturePayment{Reference: a.Reference, Amount: a.Amount}
	case TopicPaymentRefused:
		return RefusePayment{Reason: a.Reason}
	case TopicPaymentRefunded:
		return ConfirmRefund{Reference: a.Reference}
	case TopicShipmentDispatched:
		return Dispatch{TrackingCode: a.TrackingCode}
	case TopicShipmentFailed:
		return FailShipment{Reason: a.Reason}
	}
	return nil
}

// may lets each topic say what it is there for, and the program itself all.
func may(_ State, command Command, who identity.Identity) error {
	from := ""
	switch command.(type) {
	case CapturePayment:
		from = TopicPaymentCaptured
	case RefusePayment:
		from = TopicPaymentRefused
	case ConfirmRefund:
		from = TopicPaymentRefunded
	case Dispatch:
		from = TopicShipmentDispatched
	case FailShipment:
		from = TopicShipmentFailed
	case Start, NotePaid, NoteShipped, NoteCancelled, Expire: // nobody outside says these
	}
	if who.Unrestricted() || (from != "" && who.Is(identity.Inbox(from).Subject)) {
		return nil
	}
	return commands.Forbidden("only the shop itself does this with a fulfilment")
}

// Types are the events that React answers.
func Types() []string {
	var types []string
	for _, p := range []eventstore.Payload{
		order.Placed{},
		order.Paid{},
		order.Cancelled{},
		order.Shipped{},
		PaymentCaptured{},
		PaymentRefused{},
		PaymentTimedOut{},
		Shipped{},
		ShipmentFailed{},
		Cancelled{},
	} {
		types = append(types, p.EventType())
	}
	return types
}

// React is what an event leads to: the order's events to a command for its process, and the process's to one for its order.
// The other is nil, and both may be. A refusal is an answer, since something else came first, unless ForAPerson says more.
func React(p eventstore.Payload) (process Command, ofOrder order.Command) {
	switch p := p.(type) {
	case order.Placed:
		return Start{OwnerID: p.OwnerID, Total: p.Total}, nil
	case order.Paid:
		return NotePaid(p), nil
	case order.Cancelled:
		return NoteCancelled(p), nil
	case order.Shipped:
		return NoteShipped(p), nil
	case PaymentCaptured:
		return nil, order.Pay(p)
	case PaymentRefused:
		return nil, order.CancelUnpaid{Reason: "the payment was refused: " + p.Reason}
	case PaymentTimedOut:
		return nil, order.CancelUnpaid{}
	case Shipped:
		return nil, order.Ship(p)
	case ShipmentFailed:
		return nil, order.Cancel{Reason: "could not be shipped: " + p.Reason}
	case Cancelled:
		if p.Refunded {
			return nil, order.Refund{Reason: p.Reason}
		}
	}
	return nil, nil
}

// ForAPerson reports whether the refusal of what React returned, a command for the order unless that is nil, is no answer
// but for a person to look at: goods left, and the order is not to have them.
func ForAPerson(ofOrder order.Command, refused *commands.Rejection) bool {
	if _, ships := ofOrder.(order.Ship); ships {
		return refused.Code != order.CodeAlreadyShipped
	}
	return ofOrder == nil && refused.Code != CodeNotFound // that is of an order from before there were processes
}

// effects sends what the events ask of the outside, and the deadlines.
func effects(before State, events []Event) commands.Effects {
	orderID := OrderOf(before.ID)
	var out commands.Effects
	ask := func(topic string, r Request) {
		payload, err := json.Marshal(r)
		if err != nil {
			panic(err) // strings and numbers always encode
		}
		out.Messages = append(out.Messages, eventstore.Message{Topic: topic, Key: orderID, Payload: payload})
	}
	by := func(name string, milliseconds int64) {
		within := time.Duration(milliseconds) * time.Millisecond
		out.Messages = append(out.Messages, commands.Deadline{Stream: before.ID, Name: name}.Message(TopicDeadline, within))
	}
	for _, event := range events {
		switch e := event.(type) {
		case PaymentRequested:
			ask(TopicPaymentRequested, Request{OrderID: orderID, Amount: &e.Total})
			by(DeadlinePayment, e.Milliseconds)
		case ShipmentRequested:
			ask(TopicShipmentRequested, Request{OrderID: orderID})
			by(DeadlineShipment, e.Milliseconds)
		case RefundRequested:
			ask(TopicRefundRequested, Request{OrderID: orderID, Amount: &e.Amount, Reference: e.Reference})
		case Started, PaymentCaptured, PaymentRefused, PaymentTimedOut, Shipped, ShipmentFailed, Refunded, Completed, Cancelled:
			// nobody outside has anything to do
		}
	}
	return out
}
