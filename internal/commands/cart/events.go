package cart

import "github.com/headrace/headrace/internal/commands/money"

// Event is what can happen to a cart.
//
//sumtype:decl
type Event interface {
	EventType() string
	isCartEvent()
}

// Opened begins a cart. All its items are in Currency.
type Opened struct {
	OwnerID  string `json:"ownerId"`
	Currency string `json:"currency"`
}

// ItemAdded says that Quantity more of an item are in the cart. Adding an SKU that is there raises its quantity; name
// and unit price of the first time stay.
type ItemAdded struct {
	SKU       string      `json:"sku"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	UnitPrice money.Money `json:"unitPrice"`
}

// QuantityChanged says how many of an item the cart now holds.
type QuantityChanged struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// ItemRemoved says that an item is no longer in the cart.
type ItemRemoved struct {
	SKU string `json:"sku"`
}

// CheckedOut ends a cart with an order. It carries all that placing the order needs, so that who reacts to it reads
// nothing else.
type CheckedOut struct {
	OrderID  string      `json:"orderId"`
	OwnerID  string      `json:"ownerId"`
	Currency string      `json:"currency"`
	Items    []Item      `json:"items"`
	Total    money.Money `json:"total"`
}

// Abandoned ends a cart without an order.
type Abandoned struct{}

// Item is one line of a cart.
type Item struct {
	SKU       string      `json:"sku"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	UnitPrice money.Money `json:"unitPrice"`
}

func (Opened) EventType() string          { return "cart.opened" }
func (ItemAdded) EventType() string       { return "cart.item_added" }
func (QuantityChanged) EventType() string { return "cart.quantity_changed" }
func (ItemRemoved) EventType() string     { return "cart.item_removed" }
func (CheckedOut) EventType() string      { return "cart.checked_out" }
func (Abandoned) EventType() string       { return "cart.abandoned" }

func (Opened) isCartEvent()          {}
func (ItemAdded) isCartEvent()       {}
func (QuantityChanged) isCartEvent() {}
func (ItemRemoved) isCartEvent()     {}
func (CheckedOut) isCartEvent()      {}
func (Abandoned) isCartEvent()       {}
