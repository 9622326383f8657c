package graph

import (
	"context"

	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// resume is after which position of the log a subscription goes on: the latest of what its arguments say and the id of the
// last event that the client of an event stream has seen. Nil: none says anything. A token or an id of another history is a
// *eventstore.DivergedError, a position beyond the head a *eventstore.BeyondHeadError, and an id that is not a position a
// *queries.ArgumentError.
func (r *root) resume(ctx context.Context, after *int64, token *eventstore.Token) (*int64, error) {
	seen, err := lastSeen(ctx)
	if err != nil {
		return nil, err
	}
	if token != nil {
		if err := r.Store.CheckToken(ctx, *token); err != nil {
			return nil, err
		}
		after = later(after, &token.Position)
	}
	if seen != nil {
		if err := r.Store.CheckMark(ctx, *seen); err != nil {
			return nil, err
		}
		after = later(after, &seen.Position)
	}
	if after == nil {
		return nil, nil
	}
	return after, r.Tail.Check(ctx, *after)
}

// lastSeen is where in the log the client of an event stream has seen the last event; nil when it says nothing.
func lastSeen(ctx context.Context) (*eventstore.Mark, error) {
	id := transport.LastEventID(ctx)
	if id == "" {
		return nil, nil
	}
	seen, err := eventstore.ParseMark(id)
	if err != nil {
		return nil, &queries.ArgumentError{Argument: "Last-Event-ID", Reason: "is not a position of the log"}
	}
	return &seen, nil
}

func later(a, b *int64) *int64 {
	if a == nil || (b != nil && *b > *a) {
		return b
	}
	return a
}

// viewPosition is what a view includes of the log: what is read from the view afterwards includes at least this.
func (r *root) viewPosition(ctx context.Context, view string) (at eventstore.Token, err error) {
	err = r.sharing.Do(ctx, func(ctx context.Context) error {
		views, err := r.Progress.Freshness(ctx, view)
		if err == nil {
			at = views[0].At
		}
		return err
	})
	return at, err
}
