// Package order is the write model of orders: placed once for each cart, paid, shipped, delivered; or cancelled before it
// is shipped; or refunded. It records what the payment provider and the carrier did and talks to neither.
package order

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
)

// Category is that of the orders' streams, whose names are the orders' ids.
const Category = "order"

// TopicCancelUnpaid is the topic of messages that ask to cancel an order if nobody paid it, whose payload is an
// UnpaidMessage. Orders sent them once, when no process manager looked after them; what is still on its way is heard.
const TopicCancelUnpaid = "order.cancel_unpaid"

// Limits of texts.
const (
	MaxReferenceBytes    = 100
	MaxTrackingCodeBytes = 100
	MaxReasonBytes       = 500
)

// Codes of refusals, beside those that package commands has for texts.
const (
	CodeNotFound         = "ORDER_NOT_FOUND"         // no order has this id
	CodeExists           = "ORDER_EXISTS"            // the order was placed before, from another cart
	CodeEmpty            = "EMPTY_ORDER"             // an order of nothing
	CodeTotalMismatch    = "TOTAL_MISMATCH"          // the total is not the sum of the items
	CodeNotPaid          = "ORDER_NOT_PAID"          // only a paid order can be shipped or refunded
	CodeAlreadyPaid      = "ORDER_ALREADY_PAID"      // by a payment of another reference, or too late to be cancelled as unpaid
	CodeNotShipped       = "ORDER_NOT_SHIPPED"       // only a shipped order can be delivered
	CodeAlreadyShipped   = "ORDER_ALREADY_SHIPPED"   // too late to ship again or to cancel
	CodeAlreadyDelivered = "ORDER_ALREADY_DELIVERED" // delivered before
	CodeCancelled        = "ORDER_CANCELLED"         // the order was cancelled
	CodeRefunded         = "ORDER_REFUNDED"          // the payment was given back
	CodeNotRefundable    = "ORDER_NOT_REFUNDABLE"    // paid but neither cancelled nor shipped: cancel it first
)

// ReasonUnpaid is the reason of an order that was cancelled because nobody paid in time.
const ReasonUnpaid = "not paid in time"

// UnpaidMessage is the payload of a message on TopicCancelUnpaid.
type UnpaidMessage struct {
	OrderID string `json:"orderId"`
}

// Status is the last thing that happened to an order.
type Status string

// The statuses. That of an order which was never placed is empty.
const (
	StatusPlaced    Status = "placed"
	StatusPaid      Status = "paid"
	StatusShipped   Status = "shipped"
	StatusDelivered Status = "delivered"
	StatusCancelled Status = "cancelled"
	StatusRefunded  Status = "refunded"
)

// State is what deciding needs to know of an order.
type State struct {
	ID        string
	CartID    string
	OwnerID   string
	Status    Status
	Reference string // of the payment; empty as long as there is none
}

// ForCart is the id of the order that comes from a cart: the same for ever, so that a cart becomes at most one order.
func ForCart(cartID string) string {
	_, id, _ := strings.Cut(cartID, "-")
	return Category + "-" + id
}

// Events are the definitions of all that orders record.
func Events() []eventstore.Definition {
	return []eventstore.Definition{
		eventstore.Define[Placed](1),
		eventstore.Define[Paid](1),
		eventstore.Define[Shipped](1),
		eventstore.Define[Delivered](1),
		eventstore.Define[Cancelled](1),
		eventstore.Define[Refunded](1),
	}
}

// Decider is the write model.
func Decider() commands.Decider[Command, Event, State] {
	return commands.Decider[Command, Event, State]{
		Category: Category,
		Initial:  func(stream string) State { return State{ID: stream} },
		May:      may,
		Decide:   decide,
		Evolve:   evolve,
	}
}

func evolve(s State, event Event) State {
	switch e := event.(type) {
	case Placed:
		s.Status, s.CartID, s.OwnerID = StatusPlaced, e.CartID, e.OwnerID
	case Paid:
		s.Status, s.Reference = StatusPaid, e.Reference
	case Shipped:
		s.Status = StatusShipped
	case Delivered:
		s.Status = StatusDelivered
	case Cancelled:
		s.Status = StatusCancelled
	case Refunded:
		s.Status = StatusRefunded
	}
	return s
}

func decide(s State, command Command) ([]Event, error) {
	if _, begins := command.(Place); !begins && s.Status == "" {
		return nil, &commands.Rejection{Code: CodeNotFound, Field: "orderId", Message: "there is no order with this id"}
	}
	switch c := command.(type) {
	case Place:
		return place(s, c)
	case Pay:
		return pay(s, c)
	case Ship:
		return ship(s, c)
	case Deliver:
		return deliver(s)
	case Cancel:
		return cancel(s, c)
	case CancelUnpaid:
		return cancelUnpaid(s, c)
	case Refund:
		return refund(s, c)
	}
	return nil, fmt.Errorf("command %T is none of an order's", command)
}

func place(s State, c Place) ([]Event, error) {
	if s.Status != "" && s.CartID == c.CartID {
		return nil, nil // by a policy that runs at least once
	}
	if s.Status != "" {
		return nil, refuse(CodeExists, "the order was placed before, from another cart")
	}
	if len(c.Items) == 0 {
		return nil, refuse(CodeEmpty, "there is nothing in the order")
	}
	total := money.Zero(c.Total.Currency)
	for _, item := range c.Items {
		line, err := item.UnitPrice.Times(item.Quantity)
		if err == nil {
			total, err = total.Plus(line)
		}
		if err != nil {
			return nil, refuse(CodeTotalMismatch, fmt.Sprintf("the items have no total: %v", err))
		}
	}
	if total != c.Total {
		return nil, refuse(CodeTotalMismatch, fmt.Sprintf("the items come to %s, and the total is %s", total, c.Total))
	}
	placed := Placed(c)
	placed.Items = slices.Clone(c.Items)
	return []Event{placed}, nil
}

func refuse(code, message string) error { return &commands.Rejection{Code: code, Message: message} }
