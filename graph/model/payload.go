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

// ReadAt reads the object of a stream from its read model, once that includes the token. It waits for within at most,
// nil for the default. The object is nil when the read model knows none.
type ReadAt[R any] func(ctx context.Context, stream string, token eventstore.Token, within *time.Duration) (*R, error)

// Payload answers a mutation: a receipt, or the errors for which it was refused.
type Payload[R any] struct {
	Receipt    *Receipt
	UserErrors []UserError
	read       ReadAt[R]
}

// NewPayload answers a mutation that was carried out. read is called only when the object is selected.
func NewPayload[R any](receipt eventstore.Receipt, read ReadAt[R]) *Payload[R] {
	return &Payload[R]{Receipt: NewReceipt(receipt), read: read}
}

// Refused answers a mutation that was refused.
func Refused[R any](err UserError) *Payload[R] {
	return &Payload[R]{UserErrors: []UserError{err}}
}

// Object is the object that the command changed, with its effect; nil when the command was refused.
func (p *Payload[R]) Object(ctx context.Context, within *time.Duration) (*R, error) {
	if p.Receipt == nil {
		return nil, nil
	}
	return p.read(ctx, p.Receipt.Stream, p.Receipt.Token, within)
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
	OrderID *string // nil when the command was refused
	// Await waits for the order and returns nil when it is not there in time.
	Await func(ctx context.Context, orderID string, within *time.Duration) (*orderview.Order, error)
}

// Order is the order that is placed for the cart; nil when the command was refused, or when that takes too long.
func (p *CheckOutPayload) Order(ctx context.Context, within *time.Duration) (*orderview.Order, error) {
	if p.OrderID == nil {
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
