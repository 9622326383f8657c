package contract

import (
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/outbox"
)

// CartCheckedOut says that a cart ended with an order. Its subject is the cart.
type CartCheckedOut struct {
	OrderID string `json:"orderId" jsonschema:"example=order-0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12"` // The subject of the order's own events.
	Items   []Item `json:"items"`                                                                   // At least one.
	Total   Money  `json:"total"`                                                                   // What is to be paid.
}

// Item is a line of a cart or an order.
type Item struct {
	SKU       string `json:"sku" jsonschema:"example=pen-blue"`
	Name      string `json:"name" jsonschema:"example=Pen"`
	Quantity  int    `json:"quantity" jsonschema:"minimum=1,example=2"`
	UnitPrice Money  `json:"unitPrice"`
}

// Money is an amount in minor units, such as cents, of a currency.
type Money struct {
	Amount   int64  `json:"amount" jsonschema:"minimum=0,maximum=9007199254740991,example=1250"`
	Currency string `json:"currency" jsonschema:"pattern=^[A-Z]{3}$,example=EUR"` // ISO 4217.
}

// carts publishes neither who owns a cart nor what is put into it.
func carts() []outbox.Mapping {
	return []outbox.Mapping{
		outbox.Public("shop.cart.checked_out.v1", func(_ outbox.Fact, p cart.CheckedOut) (CartCheckedOut, bool) {
			items := make([]Item, len(p.Items))
			for i, item := range p.Items {
				items[i] = Item{SKU: item.SKU, Name: item.Name, Quantity: item.Quantity, UnitPrice: Money(item.UnitPrice)}
			}
			return CartCheckedOut{OrderID: p.OrderID, Items: items, Total: Money(p.Total)}, true
		}),
	}
}
