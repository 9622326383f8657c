package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
)

func (r queryRoot) Fulfilment(
	ctx context.Context, id string, asOf *queries.AsOf, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*fulfilmentview.Fulfilment, error) {
	return find(ctx, r.fulfilments, id, asOf, within, onTimeout)
}

type orderFields struct{ *root }

// Order answers gqlgen's executor.
func (r *root) Order() generated.OrderResolver { return orderFields{r} }

// Fulfilment reads the fulfilments of all orders that an answer holds with one statement.
func (r orderFields) Fulfilment(ctx context.Context, orders []*orderview.Order) ([]*fulfilmentview.Fulfilment, error) {
	ctx, err := r.ready(ctx, fulfilmentView, nil, nil, eventstore.Token{})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(orders))
	for i, o := range orders {
		ids[i] = fulfilment.ForOrder(o.ID)
	}
	rows, err := r.Fulfilments.GetMany(ctx, ids)
	for i, row := range rows {
		if rows[i] = marked(r.root, fulfilmentView, row); row != nil && !r.sees(ctx, fulfilmentView, row) {
			rows[i] = nil
		}
	}
	return rows, err
}
