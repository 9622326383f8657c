package graph

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

func (r queryRoot) Node(
	ctx context.Context, id string, atLeast *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (model.Node, error) {
	nodes, err := r.Nodes(ctx, []string{id}, atLeast, within, onTimeout)
	if err != nil {
		return nil, err
	}
	return nodes[0], nil
}

// Nodes reads each type that the ids name with one statement.
func (r queryRoot) Nodes(
	ctx context.Context, ids []string, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) ([]model.Node, error) {
	if len(ids) > r.maxPage {
		return nil, &queries.ArgumentError{Argument: "ids", Reason: fmt.Sprintf("must be at most %d", r.maxPage)}
	}
	places := map[string][]int{}
	for i, id := range ids {
		kind, _, _ := strings.Cut(id, "-")
		places[kind] = append(places[kind], i)
	}
	out := make([]model.Node, len(ids))
	for kind, at := range places {
		some := make([]string, len(at))
		for i, place := range at {
			some[i] = ids[place]
		}
		nodes, err := r.nodesOf(ctx, kind, some, within, onTimeout)
		if err != nil {
			return nil, err
		}
		for i, node := range nodes {
			out[at[i]] = node
		}
	}
	return out, nil
}

// nodesOf reads objects of one kind in the order of their ids. Of a kind that is none there are no objects.
func (r queryRoot) nodesOf(
	ctx context.Context, kind string, ids []string, within *time.Duration, onTimeout *model.OnTimeout,
) ([]model.Node, error) {
	switch kind {
	case cartView:
		return nodes(ctx, r.root, kind, r.Resolver.Carts.GetMany, ids, within, onTimeout)
	case orderView:
		return nodes(ctx, r.root, kind, r.Resolver.Orders.GetMany, ids, within, onTimeout)
	case fulfilmentView:
		return nodes(ctx, r.root, kind, r.Fulfilments.GetMany, ids, within, onTimeout)
	case userView:
		return nodes(ctx, r.root, kind, r.Resolver.Users.GetMany, ids, within, onTimeout)
	case activityView:
		return nodes(ctx, r.root, kind, r.Activities.GetMany, ids, within, onTimeout)
	case eventKind:
		return r.eventNodes(ctx, ids)
	}
	return nil, nil
}

func (r queryRoot) eventNodes(ctx context.Context, ids []string) ([]model.Node, error) {
	positions := make([]int64, 0, len(ids))
	places := map[int64][]int{}
	for i, id := range ids {
		position, err := strconv.ParseInt(strings.TrimPrefix(id, model.EventIDPrefix), 10, 64)
		if err != nil || position < 1 {
			continue
		}
		if places[position] == nil {
			positions = append(positions, position)
		}
		places[position] = append(places[position], i)
	}
	out := make([]model.Node, len(ids))
	if len(positions) == 0 {
		return out, nil
	}
	events, err := r.Store.EventsAt(ctx, positions)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		event := &model.Event{Event: e}
		if !r.sees(ctx, eventKind, event) {
			continue
		}
		for _, i := range places[e.Position] {
			out[i] = event
		}
	}
	return out, nil
}

func nodes[R any](
	ctx context.Context, r *root, view string, get func(context.Context, []string) ([]*R, error),
	ids []string, within *time.Duration, onTimeout *model.OnTimeout,
) ([]model.Node, error) {
	ctx, err := r.ready(ctx, view, within, onTimeout, eventstore.Token{})
	if err != nil {
		return nil, err
	}
	rows, err := get(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]model.Node, len(rows))
	for i, row := range rows {
		if row != nil && r.sees(ctx, view, row) {
			out[i] = marked(r, view, row)
		}
	}
	return out, nil
}
