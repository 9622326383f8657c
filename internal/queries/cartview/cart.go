// Package cartview answers what carts look like: one row per cart, folded from the cart's events.
//
// It promises that a row equals the fold of its stream up to the view's checkpoint, however the events were batched.
// It does not promise to be current: wait for a token with queries.Progress first where that matters. It decides
// nothing; the rules of carts are in the write model.
package cartview

import (
	"time"

	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/queries"
)

// Name is the view's stable name: of the SQL view, and of the projection to wait for.
const Name = "cart"

// Status is where a cart is in its life.
type Status string

const (
	Open       Status = "OPEN"        // items may change
	CheckedOut Status = "CHECKED_OUT" // ended with an order
	Abandoned  Status = "ABANDONED"   // ended without one
)

// Cart is a cart as readers see it. Its slices are shared between copies and must not be changed.
type Cart struct {
	ID          string    `db:"id,key"` // the stream's name
	OwnerID     string    `db:"owner_id"`
	Status      Status    `db:"status"`
	Currency    string    `db:"currency"`      // ISO 4217
	Items       []Item    `db:"items"`         // in the order in which they were first added
	TotalAmount int64     `db:"total"`         // minor units of Currency
	OrderID     *string   `db:"order_id"`      // the order that the cart became; nil unless checked out
	Version     int64     `db:"version"`       // of the stream
	Position    int64     `db:"position,seen"` // in the log, of the last event seen
	OpenedAt    time.Time `db:"opened_at"`
	UpdatedAt   time.Time `db:"updated_at"`

	queries.Degradable // says when an event of it could not be handled
}

// Total is the sum of the lines.
func (c Cart) Total() money.Money { return money.Money{Amount: c.TotalAmount, Currency: c.Currency} }

// Item is one line of a cart.
type Item struct {
	SKU       string      `json:"sku"`
	Name      string      `json:"name"`
	Quantity  int         `json:"quantity"`
	UnitPrice money.Money `json:"unitPrice"`
}

// LineTotal is the unit price times the quantity. The write model bounds both, so that it cannot overflow.
func (i Item) LineTotal() money.Money {
	return money.Money{Amount: i.UnitPrice.Amount * int64(i.Quantity), Currency: i.UnitPrice.Currency}
}
