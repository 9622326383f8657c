package cartview

import (
	"slices"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// View declares the view of carts.
func View() queries.View[Cart] {
	return queries.View[Cart]{
		Name:    Name,
		Version: 1,
		Types: queries.Types(cart.Opened{}, cart.ItemAdded{}, cart.QuantityChanged{}, cart.ItemRemoved{},
			cart.CheckedOut{}, cart.Abandoned{}),
		Evolve:    Evolve,
		OnFailure: queries.Park,
	}
}

// Evolve returns the cart after an event. It changes nothing that c shares with others.
func Evolve(c Cart, e eventstore.Event, p eventstore.Payload) Cart {
	c.Version, c.Position, c.UpdatedAt = e.Version, e.Position, e.RecordedAt
	switch p := p.(type) {
	case cart.Opened:
		c.ID, c.OwnerID, c.Currency = e.Stream, p.OwnerID, p.Currency
		c.Status, c.Items, c.OpenedAt = Open, []Item{}, e.RecordedAt
	case cart.ItemAdded:
		if i := c.line(p.SKU); i >= 0 {
			return c.withQuantity(i, c.Items[i].Quantity+p.Quantity)
		}
		added := Item{SKU: p.SKU, Name: p.Name, Quantity: p.Quantity, UnitPrice: p.UnitPrice}
		// Clipped, so that append copies: another fold of the same row must not find its element overwritten.
		c.Items = append(slices.Clip(c.Items), added)
		c.TotalAmount += added.LineTotal().Amount
	case cart.QuantityChanged:
		if i := c.line(p.SKU); i >= 0 {
			return c.withQuantity(i, p.Quantity)
		}
	case cart.ItemRemoved:
		if i := c.line(p.SKU); i >= 0 {
			c.TotalAmount -= c.Items[i].LineTotal().Amount
			c.Items = slices.Concat(c.Items[:i], c.Items[i+1:])
		}
	case cart.CheckedOut:
		c.Status, c.OrderID = CheckedOut, &p.OrderID
	case cart.Abandoned:
		c.Status = Abandoned
	}
	return c
}

func (c Cart) line(sku string) int {
	for i := range c.Items {
		if c.Items[i].SKU == sku {
			return i
		}
	}
	return -1
}

func (c Cart) withQuantity(i, quantity int) Cart {
	c.TotalAmount -= c.Items[i].LineTotal().Amount
	c.Items = slices.Clone(c.Items)
	c.Items[i].Quantity = quantity
	c.TotalAmount += c.Items[i].LineTotal().Amount
	return c
}
