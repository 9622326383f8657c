package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
)

// activityPage is how many activities a live subscriber reads at once.
const activityPage = 100

func (r queryRoot) Activity(
	ctx context.Context, userID, stream *string, types []string, orderBy activityview.OrderBy,
	first *int, after *string, last *int, before *string, atLeast *eventstore.Token, within *time.Duration,
) (*model.ActivityConnection, error) {
	filter := &activityview.Filter{UserID: userID, Stream: stream, Types: types}
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, activityView, r.Activities, filter, orderBy, page, atLeast, within)
}

// ActivityLogged begins at the head of the log as it is now: what the view adds after that position is told, page by
// page, each time the feed says that it moved.
func (r subscriptionRoot) ActivityLogged(ctx context.Context, userID *string) (<-chan *activityview.Activity, error) {
	changes, err := r.Feed.Watch(ctx, activityView, "")
	if err != nil {
		return nil, err
	}
	head, err := r.Store.Head(ctx)
	if err != nil {
		return nil, err
	}
	filter, err := narrowed(ctx, r.root, activityView, activityview.Filter{UserID: userID})
	if err != nil {
		return nil, err
	}
	position := head.Position
	at := func(a *activityview.Activity) int64 { return a.Position }
	return stream(ctx, r.root, activityView, at, func(yield func(*activityview.Activity) bool) error {
		for range changes {
			for {
				rows, err := r.Activities.Since(ctx, filter, position, activityPage)
				if err != nil {
					return err
				}
				for i := range rows {
					if !yield(&rows[i]) {
						return nil
					}
					position = rows[i].Position
				}
				if len(rows) < activityPage {
					break
				}
			}
		}
		return nil
	}), nil
}
