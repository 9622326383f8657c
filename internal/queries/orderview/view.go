package orderview

import (
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// View declares the view of orders.
func View() queries.View[Order] {
	return queries.View[Order]{
		Name:    Name,
		Version: 1,
		Types: queries.Types(order.Placed{}, order.Paid{}, order.Shipped{}, order.Delivered{}, order.Cancelled{},
			order.Refunded{}),
		Evolve:    Evolve,
		OnFailure: queries.Park,
	}
}

// Evolve returns the order after an event.
func Evolve(o Order, e eventstore.Event, p eventstore.Payload) Order {
	o.Version, o.Position, o.UpdatedAt = e.Version, e.Position, e.RecordedAt
	switch p := p.(type) {
	case order.Placed:
		o.ID, o.CartID, o.OwnerID, o.Status, o.PlacedAt = e.Stream, p.CartID, p.OwnerID, Placed, e.RecordedAt
		o.Currency, o.TotalAmount = p.Total.Currency, p.Total.Amount
		o.Items = make([]Item, len(p.Items))
		for i, item := range p.Items {
			o.Items[i] = Item(item)
		}
	case order.Paid:
		o.Status, o.PaymentReference = Paid, &p.Reference
	case order.Shipped:
		o.Status = Shipped
		if p.TrackingCode != "" {
			o.TrackingCode = &p.TrackingCode
		}
	case order.Delivered:
		o.Status = Delivered
	case order.Cancelled:
		o.Status, o.Reason = Cancelled, &p.Reason
	case order.Refunded:
		o.Status, o.Reason = Refunded, &p.Reason
	}
	return o
}
