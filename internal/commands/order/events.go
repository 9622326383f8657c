package order

import "github.com/headrace/headrace/internal/commands/money"

// Event is what can happen to an order.
//
//sumtype:decl
type Event interface {
	EventType() string
	isOrderEvent()
}

// Placed begins an order.
type Placed struct {
	CartID  string      `json:"cartId"`
	OwnerID string      `json:"ownerId"`
	Items   []Item      `json:"items"`
	Total   money.Money `json:"total"`
}

// Item is one line of an order.
type Item struct {
	SKU       string      `json:"sku"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	UnitPrice money.Money `json:"unitPrice"`
}

// Paid says that the whole total was received.
type Paid struct {
	Reference string `json:"reference"` // the payment provider's; the same one again changes nothing
}

// Shipped says that the goods left.
type Shipped struct {
	TrackingCode string `json:"trackingCode,omitempty"`
}

// Delivered says that the goods arrived.
type Delivered struct{}

// Cancelled ends an order before it was shipped.
type Cancelled struct {
	Reason string `json:"reason"`
}

// Refunded says that the payment went back.
type Refunded struct {
	Reason string `json:"reason"`
}

func (Placed) EventType() string    { return "order.placed" }
func (Paid) EventType() string      { return "order.paid" }
func (Shipped) EventType() string   { return "order.shipped" }
func (Delivered) EventType() string { return "order.delivered" }
func (Cancelled) EventType() string { return "order.cancelled" }
func (Refunded) EventType() string  { return "order.refunded" }

func (Placed) isOrderEvent()    {}
func (Paid) isOrderEvent()      {}
func (Shipped) isOrderEvent()   {}
func (Delivered) isOrderEvent() {}
func (Cancelled) isOrderEvent() {}
func (Refunded) isOrderEvent()  {}
