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
	l := activityLog{standing: r.stands()}
	from, err := r.resume(ctx, after, afterToken)
	if err != nil {
		return nil, err
	}
	if l.filter, err = narrowed(ctx, r.root, activityView, activityview.Filter{UserID: userID}); err != nil {
		return nil, err
	}
	l.after = eventstore.Token{Position: given(from), Epoch: l.has.Epoch}
	if from == nil {
		l.after, err = r.Store.Head(ctx)
	}
	if err == nil {
		err = l.take(ctx, l.after.Epoch, l.after.Position)
	}
	if err != nil {
		return nil, err
	}
	return stream(ctx, r.root, activityView, func(yield func(*activityview.Activity, eventstore.Mark) bool) error {
		l.yield = func(a *activityview.Activity) bool { return yield(a, l.mark(a.Position)) }
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
	standing
	filter activityview.Filter
	after  eventstore.Token // everything up to here was told; of a bare position, the event is not known
	yield  func(*activityview.Activity) bool
}

// history tells what the view has by now. More is false when the client has gone.
func (l *activityLog) history(ctx context.Context) (more bool, err error) {
	until, err := l.root.viewPosition(ctx, activityView)
	if err == nil {
		err = l.take(ctx, until.Epoch, until.Position)
	}
	if err != nil || until.Position <= l.after.Position {
		return err == nil, err
	}
	for position := l.after.Position; ; {
		var rows []activityview.Activity
		under, err := l.root.inOneEpoch(func() error {
			return l.root.sharing.Do(ctx, func(ctx context.Context) (err error) {
				rows, err = l.root.Activities.Since(ctx, l.filter, position, activityPage)
				return err
			})
		})
		if err == nil {
			err = l.take(ctx, under, 0)
		}
		if err != nil {
			return false, err
		}
		for i := range rows {
			if position = rows[i].Position; position > until.Position {
				break
			}
			if !l.yield(&rows[i]) {
				return false, nil
			}
		}
		if len(rows) < activityPage || position > until.Position {
			l.after = until // what the view has beyond comes live
			return true, nil
		}
	}
}

// live tells what the view adds.
func (l *activityLog) live(ctx context.Context) error {
	changes, err := l.root.Feed.Changes(ctx, activityView, l.after)
	if err != nil {
		return err
	}
	for c, err := range changes {
		if err != nil {
			return err
		}
		if more, err := l.change(ctx, c); err != nil || !more {
			return err
		}
	}
	return nil
}

func (l *activityLog) change(ctx context.Context, c queries.Changes) (more bool, err error) {
	ids := make([]string, len(c.Events))
	for i, position := range c.Events {
		ids[i] = activityview.Activity{Position: position}.ID()
	}
	var rows []*activityview.Activity
	under, err := l.root.inOneEpoch(func() (err error) {
		rows, err = queries.Shared(ctx, l.root.sharing, activityView, ids, c.Position, c.Epoch, l.root.Activities.GetMany)
		return err
	})
	if err == nil {
		err = l.take(ctx, c.Epoch, c.Position)
	}
	if err == nil {
		err = l.take(ctx, under, 0)
	}
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if row != nil && l.filter.Passes(*row) && !l.yield(row) {
			return false, nil
		}
	}
	return true, nil
}
