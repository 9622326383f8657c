package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/orderview"
)

func (r mutationRoot) OpenCart(ctx context.Context, in generated.OpenCartInput) (*model.CartPayload, error) {
	cmd := cart.Open{OwnerID: in.OwnerID, Currency: in.Currency}
	return create(ctx, r.CartCommands, r.carts, cart.NewID(), cart.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) AddItem(ctx context.Context, in generated.AddItemInput) (*model.CartPayload, error) {
	cmd := cart.AddItem{SKU: in.Sku, Name: in.Name, Quantity: in.Quantity, UnitPrice: in.UnitPrice}
	return handle(ctx, r.CartCommands, r.carts, in.CartID, cart.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) ChangeQuantity(ctx context.Context, in generated.ChangeQuantityInput) (*model.CartPayload, error) {
	cmd := cart.ChangeQuantity{SKU: in.Sku, Quantity: in.Quantity}
	return handle(ctx, r.CartCommands, r.carts, in.CartID, cart.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) RemoveItem(ctx context.Context, in generated.RemoveItemInput) (*model.CartPayload, error) {
	return handle(ctx, r.CartCommands, r.carts, in.CartID, cart.Command(cart.RemoveItem{SKU: in.Sku}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) AbandonCart(ctx context.Context, in generated.AbandonCartInput) (*model.CartPayload, error) {
	return handle(ctx, r.CartCommands, r.carts, in.CartID, cart.Command(cart.Abandon{}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) CheckOutCart(ctx context.Context, in generated.CheckOutCartInput) (*model.CheckOutPayload, error) {
	payload, err := handle(ctx, r.CartCommands, r.carts, in.CartID, cart.Command(cart.CheckOut{}), in.CommandID, in.ExpectedVersion, in.DryRun)
	if err != nil {
		return nil, err
	}
	out := &model.CheckOutPayload{CartPayload: payload, Await: r.awaitOrder}
	if len(payload.UserErrors) == 0 {
		id := order.ForCart(in.CartID)
		out.OrderID = &id
	}
	return out, nil
}

// awaitOrder waits for an order that a policy is about to place. Nil says that it was not there in time.
func (r *root) awaitOrder(ctx context.Context, id string, within *time.Duration) (*orderview.Order, error) {
	waiting, cancel := r.deadline(ctx, readingOf(ctx), within)
	defer cancel()
	changes, err := r.Feed.Watch(waiting, orderView, id)
	if err != nil {
		return nil, err
	}
	for {
		found, err := r.Orders.Get(ctx, id)
		if err != nil || found != nil {
			return visible(ctx, r, orderView, marked(r, orderView, found), err)
		}
		if _, more := <-changes; !more {
			return nil, nil
		}
	}
}

func (r queryRoot) Cart(
	ctx context.Context, id string, asOf *queries.AsOf, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*cartview.Cart, error) {
	return find(ctx, r.carts, id, asOf, within, onTimeout)
}

func (r queryRoot) Carts(
	ctx context.Context, filter *cartview.Filter, orderBy cartview.OrderBy,
	first *int, after *string, last *int, before *string, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*model.CartConnection, error) {
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, cartView, r.Resolver.Carts, filter, orderBy, page, within, onTimeout)
}

func (r subscriptionRoot) CartChanged(ctx context.Context, id string) (<-chan *cartview.Cart, error) {
	return watch(ctx, r.root, cartView, r.Carts.Get, id, func(c *cartview.Cart) int64 { return c.Position })
}

func (r subscriptionRoot) CartsChanged(
	ctx context.Context, filter *cartview.Filter, first *int, after *int64,
) (<-chan *model.CartsChange, error) {
	list := &liveList[cartview.Cart, cartview.Filter]{
		root: r.root, view: cartView, from: r.Resolver.Carts, filter: given(filter),
		id: func(c *cartview.Cart) string { return c.ID },
		at: func(c *cartview.Cart) int64 { return c.Position },
	}
	return list.follow(ctx, first, after)
}
