package model

import (
	"context"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// UserError is a refusal.
type UserError struct {
	Code    string
	Message string
	Field   *string // nil: none in particular
}

// Receipt is eventstore's receipt as clients see it.
type Receipt struct {
	CommandID *string // nil when the command had none
	Stream    string
	Version   int64
	Position  int64
	Token     eventstore.Token
	Duplicate bool
}

// NewReceipt shows a receipt to clients.
func NewReceipt(r eventstore.Receipt) *Receipt {
	return &Receipt{
		CommandID: optional(r.CommandID),
		Stream:    r.Stream,
		Version:   r.Version,
		Position:  r.Position(),
		Token:     r.Token,
		Duplicate: r.Duplicate,
	}
}

// Read reads the object of a payload. It waits for its read model for within at most, nil for the default, and does what
// onTimeout says then, nil for the request's. The object is nil when there is none.
type Read[R any] func(ctx context.Context, within *time.Duration, onTimeout *OnTimeout) (*R, error)

// Payload answers a mutation: a receipt, or the errors for which it was refused; on a dry run, what would be.
type Payload[R any] struct {
	Receipt    *Receipt
	UserErrors []UserError
	DryRun     *DryRun
	read       Read[R] // nil: there is no object
}

// NewPayload answers a mutation that was carried out. read is called only when the object is selected.
func NewPayload[R any](receipt eventstore.Receipt, read Read[R]) *Payload[R] {
	return &Payload[R]{Receipt: NewReceipt(receipt), read: read}
}

// Refused answers a mutation that was refused.
func Refused[R any](err UserError) *Payload[R] {
	return &Payload[R]{UserErrors: []UserError{err}}
}

// Would answers a mutation that was not to be carried out. read gives the object that it would leave.
func Would[R any](dry *DryRun, read Read[R]) *Payload[R] {
	return &Payload[R]{DryRun: dry, read: read}
}

// Object is the object that the command changed, with its effect; nil when the command was refused.
func (p *Payload[R]) Object(ctx context.Context, within *time.Duration, onTimeout *OnTimeout) (*R, error) {
	if p.read == nil {
		return nil, nil
	}
	return p.read(ctx, within, onTimeout)
}

// The payloads by the names of the schema.
type (
	CartPayload  = Payload[cartview.Cart]
	OrderPayload = Payload[orderview.Order]
	UserPayload  = Payload[userview.User]
)

// CheckOutPayload answers a check-out. The order is placed by a policy after the check-out is committed.
type CheckOutPayload struct {
	*CartPayload
	OrderID *string // of the order that is, or on a dry run would be, placed; nil when the command was refused
	// Await waits for the order and returns nil when it is not there in time.
	Await func(ctx context.Context, orderID string, within *time.Duration) (*orderview.Order, error)
}

// Order is the order that is placed for the cart; nil when the command was refused, on a dry run, and when that takes too
// long.
func (p *CheckOutPayload) Order(ctx context.Context, within *time.Duration) (*orderview.Order, error) {
	if p.OrderID == nil || p.DryRun != nil {
		return nil, nil
	}
	return p.Await(ctx, *p.OrderID, within)
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
