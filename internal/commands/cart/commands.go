package cart

import "github.com/headrace/headrace/internal/commands/money"

// Command is what can be asked of a cart.
//
//sumtype:decl
type Command interface {
	CommandType() string
	isCartCommand()
}

// Open begins a cart.
type Open struct {
	OwnerID  string `json:"ownerId"`
	Currency string `json:"currency"`
}

// AddItem puts Quantity more of an item into the cart.
type AddItem struct {
	SKU       string      `json:"sku"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	UnitPrice money.Money `json:"unitPrice"`
}

// ChangeQuantity sets how many of an item the cart holds.
type ChangeQuantity struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// RemoveItem takes an item out of the cart.
type RemoveItem struct {
	SKU string `json:"sku"`
}

// CheckOut ends the cart with an order.
type CheckOut struct{}

// Abandon ends the cart without an order.
type Abandon struct{}

func (Open) CommandType() string           { return "cart.open" }
func (AddItem) CommandType() string        { return "cart.add_item" }
func (ChangeQuantity) CommandType() string { return "cart.change_quantity" }
func (RemoveItem) CommandType() string     { return "cart.remove_item" }
func (CheckOut) CommandType() string       { return "cart.check_out" }
func (Abandon) CommandType() string        { return "cart.abandon" }

func (Open) isCartCommand()           {}
func (AddItem) isCartCommand()        {}
func (ChangeQuantity) isCartCommand() {}
func (RemoveItem) isCartCommand()     {}
func (CheckOut) isCartCommand()       {}
func (Abandon) isCartCommand()        {}
