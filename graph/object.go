package graph

import (
	"context"
	"math"
	"time"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// object is one type of objects: as its read model has it, and as the view's fold of the log makes it out of an object's
// events, in the past and on dry runs.
type object[R any] struct {
	*root
	view string
	key  func(*R) string // nil: a row is not one stream's
	get  func(ctx context.Context, id string) (*R, error)
	past *queries.Past[R]
}

// newObject also lets history find the type by its name, which begins its ids.
func newObject[R any](r *root, view queries.View[R], get func(context.Context, string) (*R, error)) object[R] {
	o := object[R]{root: r, view: view.Name, key: view.KeyOf(), get: get}
	if o.key != nil {
		r.streams[view.Name] = func(row any) string { return o.key(row.(*R)) }
	}
	o.past = queries.NewPast(r.Store, view, queries.PastConfig{MaxEvents: r.maxFold})
	r.histories[view.Name] = history{open: o.open, states: o.states}
	return o
}

// at makes the function that payloads read an object with, once its view includes the receipt's command.
func (o object[R]) at(receipt eventstore.Receipt) model.Read[R] {
	return func(ctx context.Context, within *time.Duration, onTimeout *model.OnTimeout) (*R, error) {
		ctx, err := o.ready(ctx, o.view, within, onTimeout, receipt.Token)
		if err != nil {
			return nil, err
		}
		return o.read(ctx, receipt.Stream, true)
	}
}

// would makes the function that payloads read an object with that was not changed.
func (o object[R]) would(d commands.DryRun) model.Read[R] {
	return func(ctx context.Context, _ *time.Duration, _ *model.OnTimeout) (*R, error) {
		row, err := o.past.With(ctx, d.Stream, d.Judged, d.Events)
		return visible(ctx, o.root, o.view, row, err)
	}
}

// states are the objects after each of some events.
func (o object[R]) states(ctx context.Context, events []eventstore.Event) ([]model.Node, error) {
	rows, err := o.past.After(ctx, events)
	if err != nil {
		return nil, err
	}
	out := make([]model.Node, len(rows))
	for i, row := range rows {
		if row != nil && o.sees(ctx, o.view, row) {
			out[i] = row
		}
	}
	return out, nil
}

// find answers a query for one object: as it is, or as it was.
func find[R any](
	ctx context.Context, o object[R], id string, asOf *queries.AsOf, within *time.Duration, onTimeout *model.OnTimeout,
) (*R, error) {
	if asOf != nil {
		if err := o.known(ctx); err != nil {
			return nil, err
		}
		if open, err := o.open(ctx, id); err != nil || !open {
			return nil, err
		}
		row, err := o.past.At(ctx, id, *asOf)
		return visible(ctx, o.root, o.view, row, err)
	}
	ctx, err := o.ready(ctx, o.view, within, onTimeout, eventstore.Token{})
	if err != nil {
		return nil, err
	}
	return o.read(ctx, id, len(readingOf(ctx).tokens) > 0)
}

// read reads an object that its view is known to be ready for. One that is not there because its first event waits is an
// error for who was told of it, and not there for others.
func (o object[R]) read(ctx context.Context, id string, told bool) (*R, error) {
	row, err := o.get(ctx, id)
	if err == nil && row == nil && told && o.key != nil {
		if why := o.Progress.Degraded(o.view, id); why != nil {
			return nil, &queries.ParkedError{Projection: o.view, Degradation: *why}
		}
	}
	return visible(ctx, o.root, o.view, marked(o.root, o.view, row), err)
}

// marked is a row of a view as it is to be shown: a copy that says why, if it is degraded. Every row of a view that goes out
// comes through here, after the view was waited for; states of the past do not.
func marked[R any](r *root, view string, row *R) *R {
	stream := r.streams[view]
	if row == nil || stream == nil || !r.Progress.AnyDegraded() {
		return row
	}
	return queries.Mark(r.Progress, view, stream(row), row)
}

// open reports whether the asker may see the object as it is. What it was is not for those who may not; of what it was he
// sees what its rule says of each state. An object that its view does not know yet is folded.
func (o object[R]) open(ctx context.Context, id string) (bool, error) {
	row, err := o.get(ctx, id)
	if err == nil && row == nil {
		row, err = o.past.With(ctx, id, math.MaxInt64, nil)
	}
	row, err = visible(ctx, o.root, o.view, row, err)
	return row != nil, err
}

// known returns when the log includes what the request asked for. It does at once, since tokens are issued for what is in
// it; but one may be of another history.
func (r *root) known(ctx context.Context) error {
	asked := readingOf(ctx)
	if err := asked.judge(ctx, r.Store); err != nil || len(asked.tokens) == 0 {
		return err
	}
	return r.Store.CheckToken(ctx, asked.tokens[len(asked.tokens)-1])
}

// history is the past of a type of objects, its type erased.
type history struct {
	open   func(ctx context.Context, id string) (bool, error)
	states model.States
}

// History answers a query for the events that made an object.
func (r queryRoot) History(
	ctx context.Context, id string, first *int, after *string, last *int, before *string,
) (*model.HistoryConnection, error) {
	of, known := r.histories[eventstore.Category(id)]
	if !known {
		return nil, nil
	}
	if err := r.known(ctx); err != nil {
		return nil, err
	}
	if open, err := of.open(ctx, id); err != nil || !open {
		return nil, err
	}
	args := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	page, version, err := queries.History(ctx, r.Store, id, queries.PageConfig{Max: r.maxPage}, args)
	if err != nil || version == 0 {
		return nil, err
	}
	return model.NewHistory(page, version, of.states), nil
}
