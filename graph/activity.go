package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
)

// activityPage is how many activities of the past a subscriber reads at once.
const activityPage = 100

func (r queryRoot) Activity(
	ctx context.Context, userID, stream *string, types []string, orderBy activityview.OrderBy,
	first *int, after *string, last *int, before *string, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*model.ActivityConnection, error) {
	filter := &activityview.Filter{UserID: userID, Stream: stream, Types: types}
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, activityView, r.Activities, filter, orderBy, page, within, onTimeout)
}

// ActivityLogged begins at the head of the log as it is now, unless it goes on after a position. What the view has by then
// comes by pages that the database filters. What it adds later is told of by the feed, and read once for all who follow.
func (r subscriptionRoot) ActivityLogged(
	ctx context.Context, userID *string, after *int64, afterToken *eventstore.Token,
) (<-chan *activityview.Activity, error) {
	from, err := r.resume(ctx, after, afterToken)
	if err != nil {
		return nil, err
	}
	l := activityLog{root: r.root, position: given(from)}
	if l.filter, err = narrowed(ctx, r.root, activityView, activityview.Filter{UserID: userID}); err != nil {
		return nil, err
	}
	if from == nil {
		head, err := r.Store.Head(ctx)
		if err != nil {
			return nil, err
		}
		l.position = head.Position
	}
	at := func(a *activityview.Activity) int64 { return a.Position }
	return stream(ctx, r.root, activityView, at, func(yield func(*activityview.Activity) bool) error {
		l.yield = yield
		if from != nil {
			if more, err := l.history(ctx); err != nil || !more {
				return err
			}
		}
		return l.live(ctx)
	}), nil
}

// activityLog tells one subscriber of activities.
type activityLog struct {
	root     *root
	filter   activityview.Filter
	position int64 // everything up to here was told
	yield    func(*activityview.Activity) bool
}

// history tells what the view has. More is false when the client has gone.
func (l *activityLog) history(ctx context.Context) (more bool, err error) {
	at, err := l.root.viewPosition(ctx, activityView)
	if err != nil {
		return false, err
	}
	for {
		var rows []activityview.Activity
		err := l.root.sharing.Do(ctx, func(ctx context.Context) (err error) {
			rows, err = l.root.Activities.Since(ctx, l.filter, l.position, activityPage)
			return err
		})
		if err != nil {
			return false, err
		}
		for i := range rows {
			l.position = rows[i].Position
			if !l.yield(&rows[i]) {
				return false, nil
			}
		}
		if len(rows) < activityPage {
			l.position = max(l.position, at) // the view had nothing else up to there
			return true, nil
		}
	}
}

// live tells what the view adds.
func (l *activityLog) live(ctx context.Context) error {
	changes, err := l.root.Feed.Changes(ctx, activityView, l.position)
	if err != nil {
		return err
	}
	for c, err := range changes {
		if err != nil {
			return err
		}
		ids := make([]string, len(c.Events))
		for i, position := range c.Events {
			ids[i] = activityview.Activity{Position: position}.ID()
		}
		rows, err := queries.Shared(ctx, l.root.sharing, activityView, ids, c.Position, l.root.Activities.GetMany)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row != nil && l.filter.Passes(*row) && !l.yield(row) {
				return nil
			}
		}
	}
	return nil
}
