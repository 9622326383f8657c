// Package fulfilment is a process manager: it leads an order from its placing through payment to shipping, with a time limit
// for each, and undoes what was done when it cannot go on. Each order's process is an event-sourced stream beside the
// order's own, so that what it waits for survives everything, and can be read.
//
// It is pure. It hears of the order through React, from the world outside through messages in the inbox, and of the clock
// through deadlines; it speaks through commands to the order, which React returns, and through messages to the outside,
// which its events send. All that it hears may come twice, late, or in another order than it happened, but that what an order
// says comes as it said it: what does not fit any more changes nothing, gives a payment back, or is refused for a person to
// look at.
//
// The order, and not the process, decides what comes first: being paid, shipped or cancelled. A process that gives up on a
// payment or on a shipment asks the order to cancel. It gives the payment back when the order says that it is cancelled, and
// goes on if the order says that it was paid, or shipped.
package fulfilment

import (
	"slices"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
)

// Category is that of the processes' streams, whose names are their ids.
const Category = "fulfilment"

// Name is the process manager's, under which it acts and keeps its place in the log.
const Name = "fulfilment"

// Status is what a process waits for, or how it ended.
type Status string

// The statuses. That of a process which was never started is empty.
const (
	AwaitingPayment  Status = "awaiting_payment"
	Cancelling       Status = "cancelling" // no payment or no shipment: waits for the order to say that it is cancelled
	AwaitingShipment Status = "awaiting_shipment"
	Refunding        Status = "refunding" // the order is cancelled: waits for the payment to go back
	Finished         Status = "completed"
	Ended            Status = "cancelled"
)

// Codes of refusals, beside those that package commands has for texts.
const (
	CodeNotFound        = "FULFILMENT_NOT_FOUND" // no process has this id, or not yet
	CodePaymentMismatch = "PAYMENT_MISMATCH"     // the amount is not the order's total
	CodeNotDue          = "SHIPMENT_NOT_DUE"     // the carrier was not asked yet
	CodeTooLate         = "SHIPMENT_TOO_LATE"    // the order was given up, or has left already
	CodeNoRefund        = "NO_SUCH_REFUND"       // this payment is not to go back
)

// Limits of texts.
const (
	MaxReferenceBytes = order.MaxReferenceBytes
	MaxReasonBytes    = 400 // leaves room in an order's for what stands before it
)

// The deadlines of a process.
const (
	DeadlinePayment  = "payment"
	DeadlineShipment = "shipment"
)

// Config sets what is decided by the shop and not by the model. The zero value is ready for use.
type Config struct {
	PayWithin  time.Duration // default 30 minutes
	ShipWithin time.Duration // default 7 days
}

// State is what deciding needs to know of a process.
type State struct {
	ID        string
	Total     money.Money
	Status    Status
	Reference string   // of the payment that is kept as long as the order is; empty as long as there is none
	Asked     bool     // whether the carrier was asked to fetch the goods
	Owed      []string // references of payments that are to go back
	Returned  []string // and of those that did
	Reason    string   // why nothing is shipped
}

// knows reports whether the payment was heard of before.
func (s State) knows(reference string) bool {
	return s.Reference == reference || slices.Contains(s.Owed, reference) || slices.Contains(s.Returned, reference)
}

// ForOrder is the id of an order's process: the same for ever, so that an order has at most one.
func ForOrder(orderID string) string {
	_, id, _ := strings.Cut(orderID, "-")
	return Category + "-" + id
}

// OrderOf is the order of a process.
func OrderOf(id string) string {
	_, id, _ = strings.Cut(id, "-")
	return order.Category + "-" + id
}

// Events are the definitions of all that processes record.
func Events() []eventstore.Definition {
	return []eventstore.Definition{
		eventstore.Define[Started](1),
		eventstore.Define[PaymentRequested](1),
		eventstore.Define[PaymentCaptured](1),
		eventstore.Define[PaymentRefused](1),
		eventstore.Define[PaymentTimedOut](1),
		eventstore.Define[ShipmentRequested](1),
		eventstore.Define[Shipped](1),
		eventstore.Define[ShipmentFailed](1),
		eventstore.Define[RefundRequested](1),
		eventstore.Define[Refunded](1),
		eventstore.Define[Completed](1),
		eventstore.Define[Cancelled](1),
	}
}

// Decider is the write model.
func Decider(cfg Config) commands.Decider[Command, Event, State] {
	if cfg.PayWithin == 0 {
		cfg.PayWithin = 30 * time.Minute
	}
	if cfg.ShipWithin == 0 {
		cfg.ShipWithin = 7 * 24 * time.Hour
	}
	return commands.Decider[Command, Event, State]{
		Category: Category,
		Initial:  func(stream string) State { return State{ID: stream} },
		May:      may,
		Decide:   func(s State, c Command) ([]Event, error) { return decide(cfg, s, c) },
		Evolve:   evolve,
		Effects:  effects,
	}
}

func evolve(s State, event Event) State {
	switch e := event.(type) {
	case Started:
		s.Total = e.Total
	case PaymentRequested:
		s.Status = AwaitingPayment
	case PaymentCaptured:
		s.Reference = e.Reference
	case PaymentRefused:
		s.Status, s.Reason = Cancelling, e.Reason
	case PaymentTimedOut:
		s.Status, s.Reason = Cancelling, order.ReasonUnpaid
	case ShipmentRequested:
		s.Status, s.Asked, s.Reason = AwaitingShipment, true, ""
	case ShipmentFailed:
		s.Status, s.Reason = Cancelling, e.Reason
	case RefundRequested:
		s.Owed = append(slices.Clone(s.Owed), e.Reference)
		if e.Reference == s.Reference {
			s.Status, s.Reason = Refunding, e.Reason
		}
	case Refunded:
		s.Owed = slices.DeleteFunc(slices.Clone(s.Owed), func(owed string) bool { return owed == e.Reference })
		s.Returned = append(slices.Clone(s.Returned), e.Reference)
	case Shipped: // Completed comes with it
	case Completed:
		s.Status = Finished
	case Cancelled:
		s.Status, s.Reason = Ended, e.Reason
	}
	return s
}
