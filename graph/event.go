package graph

import (
	"context"
	"fmt"
	"slices"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

func (r queryRoot) Event(ctx context.Context, position int64) (*model.Event, error) {
	e, found, err := r.Store.EventAt(ctx, position)
	if err != nil || !found {
		return nil, err
	}
	return visible(ctx, r.root, eventKind, &model.Event{Event: e}, nil)
}

func (r queryRoot) Events(
	ctx context.Context, after *int64, stream *string, types []string, first *int,
) (*model.EventConnection, error) {
	q := eventstore.LogQuery{Stream: text(stream), Types: types, Limit: min(pageDefault, r.maxPage)}
	if after != nil {
		q.After = *after
	}
	if first != nil {
		if *first < 1 || *first > r.maxPage {
			return nil, &queries.ArgumentError{Argument: "first", Reason: fmt.Sprintf("must be between 1 and %d", r.maxPage)}
		}
		q.Limit = *first
	}
	page, err := r.Store.ReadLog(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.After > page.Head {
		return nil, &eventstore.BeyondHeadError{Position: q.After, Head: page.Head}
	}
	page.Events = slices.DeleteFunc(page.Events, func(e eventstore.Event) bool {
		return !r.sees(ctx, eventKind, &model.Event{Event: e})
	})
	return &model.EventConnection{Page: page, After: q.After}, nil
}

func (r subscriptionRoot) Events(
	ctx context.Context, after *int64, afterToken *eventstore.Token, streamID *string, types []string,
) (<-chan *model.Event, error) {
	after, err := r.resume(ctx, after, afterToken)
	if err != nil {
		return nil, err
	}
	events, err := r.Tail.Events(ctx, after, queries.EventFilter{Stream: text(streamID), Types: types})
	if err != nil {
		return nil, err
	}
	return stream(ctx, r.root, eventKind, func(yield func(*model.Event, eventstore.Mark) bool) error {
		for e, err := range events {
			if err != nil {
				return err
			}
			if !yield(&model.Event{Event: e.Event}, e.Mark) {
				return nil
			}
		}
		return nil
	}), nil
}
