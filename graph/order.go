package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/orderview"
)

func (r mutationRoot) PayOrder(ctx context.Context, in generated.PayOrderInput) (*model.OrderPayload, error) {
	return handle(ctx, r.OrderCommands, r.orders, in.OrderID, order.Command(order.Pay{Reference: in.Reference}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) ShipOrder(ctx context.Context, in generated.ShipOrderInput) (*model.OrderPayload, error) {
	cmd := order.Ship{TrackingCode: text(in.TrackingCode)}
	return handle(ctx, r.OrderCommands, r.orders, in.OrderID, order.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) DeliverOrder(ctx context.Context, in generated.DeliverOrderInput) (*model.OrderPayload, error) {
	return handle(ctx, r.OrderCommands, r.orders, in.OrderID, order.Command(order.Deliver{}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) CancelOrder(ctx context.Context, in generated.CancelOrderInput) (*model.OrderPayload, error) {
	return handle(ctx, r.OrderCommands, r.orders, in.OrderID, order.Command(order.Cancel{Reason: in.Reason}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) RefundOrder(ctx context.Context, in generated.RefundOrderInput) (*model.OrderPayload, error) {
	return handle(ctx, r.OrderCommands, r.orders, in.OrderID, order.Command(order.Refund{Reason: in.Reason}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r queryRoot) Order(
	ctx context.Context, id string, asOf *queries.AsOf, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*orderview.Order, error) {
	return find(ctx, r.orders, id, asOf, within, onTimeout)
}

func (r queryRoot) Orders(
	ctx context.Context, filter *orderview.Filter, orderBy orderview.OrderBy,
	first *int, after *string, last *int, before *string, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*model.OrderConnection, error) {
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, orderView, r.Resolver.Orders, filter, orderBy, page, within, onTimeout)
}

func (r subscriptionRoot) OrderChanged(ctx context.Context, id string) (<-chan *orderview.Order, error) {
	return watch(ctx, r.root, orderView, r.Orders.Get, id, func(o *orderview.Order) int64 { return o.Position })
}

func (r subscriptionRoot) OrdersChanged(
	ctx context.Context, filter *orderview.Filter, first *int, after *int64,
) (<-chan *model.OrdersChange, error) {
	list := &liveList[orderview.Order, orderview.Filter]{
		root: r.root, view: orderView, from: r.Resolver.Orders, filter: given(filter),
		id: func(o *orderview.Order) string { return o.ID },
		at: func(o *orderview.Order) int64 { return o.Position },
	}
	return list.follow(ctx, first, after)
}

func text(optional *string) string {
	if optional == nil {
		return ""
	}
	return *optional
}
