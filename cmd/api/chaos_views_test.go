package main

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// checkViews compares each row of each view with what a replay of its stream gives, and wants a line of activity for each
// event that has one, once.
func (c *chaos) checkViews() {
	c.t.Helper()
	registry, err := newRegistry()
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := eventstore.Open(c.t.Context(), c.pool, registry, eventstore.Config{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer store.Close(context.WithoutCancel(c.t.Context()))
	reads, page := queries.NewReads(c.pool), queries.PageConfig{}
	checkRows(c, registry, store, cartview.View(), cartview.NewReader(reads, page).Get)
	checkRows(c, registry, store, orderview.View(), orderview.NewReader(reads, page).Get)
	checkRows(c, registry, store, userview.View(), userview.NewReader(reads, page).Get)
	checkRows(c, registry, store, fulfilmentview.View(), fulfilmentview.NewReader(reads).Get)

	var lines, positions, events, parked int
	err = c.pool.QueryRow(c.t.Context(), `select (select count(*) from activity), (select count(distinct position) from activity),
		(select count(*) from events where split_part(stream, '-', 1) in ('cart', 'order', 'user')), (select count(*) from parked_streams)`,
	).Scan(&lines, &positions, &events, &parked)
	if err != nil || lines != events || positions != events || parked != 0 {
		c.t.Errorf("%d lines of activity, of %d positions, for %d events; %d streams are parked, %v", lines, positions, events, parked, err)
	}
}

// checkRows compares the rows of a view, whose name is the category of its streams, with what these say.
func checkRows[R any](
	c *chaos, registry *eventstore.Registry, store *eventstore.Store, view queries.View[R], get func(context.Context, string) (*R, error),
) {
	c.t.Helper()
	rows, err := c.pool.Query(c.t.Context(), `select distinct stream from events where stream like $1 || '-%'`, view.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	var has int
	err = c.pool.QueryRow(c.t.Context(), `select count(*) from `+pgx.Identifier{view.Name}.Sanitize()).Scan(&has)
	if err != nil || has != len(streams) || has == 0 {
		c.t.Errorf("%d rows of view %s for %d streams, %v", has, view.Name, len(streams), err)
	}
	for _, stream := range streams {
		events, err := store.ReadStream(c.t.Context(), stream, eventstore.StreamQuery{Limit: 1000})
		if err != nil {
			c.t.Fatal(err)
		}
		var none R
		want, _, err := view.Fold(registry, none, false, events...)
		got, errGet := get(c.t.Context(), stream)
		if err != nil || errGet != nil || got == nil {
			c.t.Fatal(stream, got, err, errGet)
		}
		inUTC(reflect.ValueOf(&want))
		inUTC(reflect.ValueOf(got))
		if !reflect.DeepEqual(*got, want) {
			c.t.Errorf("%s\n got %+v\nwant %+v", stream, *got, want)
		}
	}
}

// inUTC has all times of a value in one zone: the same moment equals itself then.
func inUTC(v reflect.Value) {
	switch at, isTime := v.Interface().(time.Time); {
	case isTime:
		v.Set(reflect.ValueOf(at.UTC()))
	case v.Kind() == reflect.Pointer && !v.IsNil():
		inUTC(v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				inUTC(v.Field(i))
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			inUTC(v.Index(i))
		}
	}
}

func TestInUTC(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("elsewhere", 3600))
	value := struct {
		At   time.Time
		By   *time.Time
		Each []struct{ At time.Time }
	}{at, &at, []struct{ At time.Time }{{at}}}
	inUTC(reflect.ValueOf(&value))
	for _, got := range []time.Time{value.At, *value.By, value.Each[0].At} {
		if got != at.UTC() { // also the zone is to be the same
			t.Errorf("got %v", got)
		}
	}
}
