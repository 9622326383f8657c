package order

import "github.com/headrace/headrace/internal/commands/money"

// Command is what can be asked of an order.
//
//sumtype:decl
type Command interface {
	CommandType() string
	isOrderCommand()
}

// Place begins an order from what a cart held at check-out.
type Place struct {
	CartID  string      `json:"cartId"`
	OwnerID string      `json:"ownerId"`
	Items   []Item      `json:"items"`
	Total   money.Money `json:"total"`
}

// Pay records a payment of the whole total. The same reference again has no effect; another one is refused.
type Pay struct {
	Reference string `json:"reference"`
}

// Ship records that the goods left.
type Ship struct {
	TrackingCode string `json:"trackingCode,omitempty"`
}

// Deliver records that the goods arrived.
type Deliver struct{}

// Cancel ends an order that was not shipped.
type Cancel struct {
	Reason string `json:"reason"`
}

// CancelUnpaid ends an order that was not paid; it is refused once the order is paid.
type CancelUnpaid struct {
	Reason string `json:"reason,omitempty"` // ReasonUnpaid unless given
}

// Refund gives the payment of a cancelled, shipped or delivered order back.
type Refund struct {
	Reason string `json:"reason"`
}

func (Place) CommandType() string        { return "order.place" }
func (Pay) CommandType() string          { return "order.pay" }
func (Ship) CommandType() string         { return "order.ship" }
func (Deliver) CommandType() string      { return "order.deliver" }
func (Cancel) CommandType() string       { return "order.cancel" }
func (CancelUnpaid) CommandType() string { return "order.cancel_unpaid" }
func (Refund) CommandType() string       { return "order.refund" }

func (Place) isOrderCommand()        {}
func (Pay) isOrderCommand()          {}
func (Ship) isOrderCommand()         {}
func (Deliver) isOrderCommand()      {}
func (Cancel) isOrderCommand()       {}
func (CancelUnpaid) isOrderCommand() {}
func (Refund) isOrderCommand()       {}
