package graph

import (
	"context"

	"github.com/headrace/headrace/graph/model"
)

func (r queryRoot) Deliveries(ctx context.Context) ([]model.Delivery, error) {
	lags, err := r.Progress.Lags(ctx)
	if err != nil {
		return nil, err
	}
	deliveries := make([]model.Delivery, len(lags))
	for i, lag := range lags {
		deliveries[i].Lag = lag
	}
	return deliveries, nil
}
