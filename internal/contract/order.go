package contract

import (
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/outbox"
)

// OrderPlaced begins an order. Its subject is the order.
type OrderPlaced struct {
	CartID string `json:"cartId" jsonschema:"example=cart-0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12"` // The cart that became the order.
	Items  []Item `json:"items"`                                                                 // At least one.
	Total  Money  `json:"total"`                                                                 // What is to be paid.
}

// OrderPaid says that the whole total of an order was received. Its subject is the order.
type OrderPaid struct{}

// OrderCancelled ends an order before it was shipped. Its subject is the order.
type OrderCancelled struct {
	Cause Cause `json:"cause" jsonschema:"enum=REQUESTED,enum=UNPAID"` // Whether somebody asked for it, or nobody paid in time.
}

// Cause says why an order was cancelled.
type Cause string

// The causes. What people write as a reason stays private.
const (
	Requested Cause = "REQUESTED" // by the customer, or for them
	Unpaid    Cause = "UNPAID"
)

// orders publishes neither who ordered nor what was written or referred to on the way.
func orders() []outbox.Mapping {
	return []outbox.Mapping{
		outbox.Public("shop.order.placed.v1", func(_ outbox.Fact, p order.Placed) (OrderPlaced, bool) {
			items := make([]Item, len(p.Items))
			for i, item := range p.Items {
				items[i] = Item{SKU: item.SKU, Name: item.Name, Quantity: item.Quantity, UnitPrice: Money(item.UnitPrice)}
			}
			return OrderPlaced{CartID: p.CartID, Items: items, Total: Money(p.Total)}, true
		}),
		outbox.Public("shop.order.paid.v1", func(outbox.Fact, order.Paid) (OrderPaid, bool) {
			return OrderPaid{}, true
		}),
		outbox.Public("shop.order.cancelled.v1", func(_ outbox.Fact, p order.Cancelled) (OrderCancelled, bool) {
			if p.Reason == order.ReasonUnpaid {
				return OrderCancelled{Cause: Unpaid}, true
			}
			return OrderCancelled{Cause: Requested}, true
		}),
	}
}
