// Package orderview answers what orders look like: one row per order, folded from the order's events.
//
// It promises that a row equals the fold of its stream up to the view's checkpoint, however the events were batched.
// It does not promise to be current: wait for a token with queries.Progress first where that matters.
package orderview

import (
	"time"

	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/queries"
)

// Name is the view's stable name: of the SQL view, and of the projection to wait for.
const Name = "order"

// Status is where an order is in its life.
type Status string

const (
	Placed    Status = "PLACED"
	Paid      Status = "PAID"
	Shipped   Status = "SHIPPED"
	Delivered Status = "DELIVERED"
	Cancelled Status = "CANCELLED"
	Refunded  Status = "REFUNDED"
)

// Order is an order as readers see it. Its slices are shared between copies and must not be changed.
type Order struct {
	ID               string    `db:"id,key"` // the stream's name
	CartID           string    `db:"cart_id"`
	OwnerID          string    `db:"owner_id"`
	Status           Status    `db:"status"`
	Currency         string    `db:"currency"` // ISO 4217
	Items            []Item    `db:"items"`
	TotalAmount      int64     `db:"total"`             // minor units of Currency
	PaymentReference *string   `db:"payment_reference"` // the payment provider's; nil until paid
	TrackingCode     *string   `db:"tracking_code"`     // nil until shipped, and when the carrier gave none
	Reason           *string   `db:"reason"`            // why it was cancelled or refunded
	Version          int64     `db:"version"`           // of the stream
	Position         int64     `db:"position,seen"`     // in the log, of the last event seen
	PlacedAt         time.Time `db:"placed_at"`
	UpdatedAt        time.Time `db:"updated_at"`

	queries.Degradable // says when an event of it could not be handled
}

// Total is what is to be paid.
func (o Order) Total() money.Money {
	return money.Money{Amount: o.TotalAmount, Currency: o.Currency}
}

// Item is one line of an order.
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
