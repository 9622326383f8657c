package orderview_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/orderview"
)

func ptr[T any](v T) *T { return &v }

func event(t require.TestingT, registry *eventstore.Registry, position, version int64, stream string, p eventstore.Payload) eventstore.Event {
	typ, schema, data, err := registry.Encode(p)
	require.NoError(t, err)
	return eventstore.Event{
		Position: position, Version: version, Stream: stream, Type: typ, SchemaVersion: schema, Data: data, ID: uuid.New(),
		RecordedAt: time.UnixMicro(1_700_000_000_000_000 + position/4).UTC(), Metadata: json.RawMessage(`{}`),
	}
}

func placed(owner string, amount int64) order.Placed {
	return order.Placed{
		CartID: "cart-1", OwnerID: owner, Total: money.Money{Amount: amount, Currency: "EUR"},
		Items: []order.Item{{SKU: "tea", Name: "Tea", Quantity: 2, UnitPrice: money.Money{Amount: amount / 2, Currency: "EUR"}}},
	}
}

func apply(t *testing.T, rt require.TestingT, pool *pgxpool.Pool, p queries.Projection, events []eventstore.Event, size int) {
	for rest := events; len(rest) > 0; rest = rest[min(size, len(rest)):] {
		require.NoError(rt, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return p.Apply(t.Context(), tx, rest[:min(size, len(rest))])
		}))
	}
}

func registry(t *testing.T) *eventstore.Registry {
	r, err := eventstore.NewRegistry(order.Events()...)
	require.NoError(t, err)
	return r
}

// The table equals the fold of each stream, whatever the batches.
func TestViewEqualsReplay(t *testing.T) {
	t.Parallel()
	pool, r, view := pgtest.Pool(t), registry(t), orderview.View()
	p, err := view.Projection(r)
	require.NoError(t, err)
	reader := orderview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(t.Context(), "truncate order_v1")
		require.NoError(rt, err)
		var events []eventstore.Event
		byStream := map[string][]eventstore.Event{}
		for i := range rapid.IntRange(2, 25).Draw(rt, "events") {
			stream := fmt.Sprint("order-", i%2)
			var payload eventstore.Payload = placed("ada", 100)
			if i > 1 {
				stream = fmt.Sprint("order-", rapid.IntRange(0, 1).Draw(rt, "order"))
				payload = rapid.SampledFrom([]eventstore.Payload{
					order.Paid{Reference: "p"},
					order.Shipped{},
					order.Shipped{TrackingCode: "t"},
					order.Delivered{},
					order.Cancelled{Reason: "c"},
					order.Refunded{Reason: "r"},
				}).Draw(rt, "event")
			}
			events = append(events, event(rt, r, int64(i+1), int64(len(byStream[stream])+1), stream, payload))
			byStream[stream] = append(byStream[stream], events[i])
		}
		apply(t, rt, pool, p, events, rapid.IntRange(1, 25).Draw(rt, "batch"))
		for stream, own := range byStream {
			want, exists, err := view.Fold(r, orderview.Order{}, false, own...)
			require.NoError(rt, err)
			require.True(rt, exists)
			got, err := reader.Get(t.Context(), stream)
			require.NoError(rt, err)
			got.PlacedAt, got.UpdatedAt = got.PlacedAt.UTC(), got.UpdatedAt.UTC()
			require.Equal(rt, want, *got)
		}
	})
}

func TestOrderThroughItsLife(t *testing.T) {
	t.Parallel()
	r := registry(t)
	row, exists := orderview.Order{}, false
	for i, c := range []struct {
		payload eventstore.Payload
		status  orderview.Status
	}{
		{placed("ada", 700), orderview.Placed},
		{order.Paid{Reference: "pay-1"}, orderview.Paid},
		{order.Shipped{TrackingCode: "T1"}, orderview.Shipped},
		{order.Delivered{}, orderview.Delivered},
		{order.Refunded{Reason: "broken"}, orderview.Refunded},
	} {
		var err error
		row, exists, err = orderview.View().Fold(r, row, exists, event(t, r, int64(i+10), int64(i+1), "order-1", c.payload))
		require.NoError(t, err)
		require.Equal(t, c.status, row.Status)
	}
	require.Equal(t, "order-1", row.ID)
	require.Equal(t, "ada", row.OwnerID)
	require.Equal(t, "cart-1", row.CartID)
	require.Equal(t, money.Money{Amount: 700, Currency: "EUR"}, row.Total())
	require.Equal(t, row.Total(), row.Items[0].LineTotal())
	require.Equal(t, ptr("pay-1"), row.PaymentReference)
	require.Equal(t, ptr("T1"), row.TrackingCode)
	require.Equal(t, ptr("broken"), row.Reason)
	require.EqualValues(t, 14, row.Position)
}

// Each order sorts by what it says, and each filter lets through what it says.
func TestListFiltersAndOrders(t *testing.T) {
	t.Parallel()
	pool, r := pgtest.Pool(t), registry(t)
	p, err := orderview.View().Projection(r)
	require.NoError(t, err)
	var events []eventstore.Event
	for i := range int64(12) {
		payload := placed(fmt.Sprint("owner-", i%2), 100*(i%3))
		payload.CartID = fmt.Sprint("cart-", i)
		events = append(events, event(t, r, i+1, 1, fmt.Sprintf("order-%02d", i), payload))
	}
	for i := range int64(4) {
		events = append(events, event(t, r, 13+i, 2, fmt.Sprintf("order-%02d", 11-i), order.Paid{Reference: "x"}))
	}
	apply(t, t, pool, p, events, 5)
	reader := orderview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	for _, c := range []struct {
		by  orderview.OrderBy
		key func(orderview.Order) string
	}{
		{orderview.PlacedAtAsc, func(o orderview.Order) string { return o.PlacedAt.UTC().Format("05.000000") + o.ID }},
		{orderview.UpdatedAtAsc, func(o orderview.Order) string { return o.UpdatedAt.UTC().Format("05.000000") + o.ID }},
		{orderview.TotalAsc, func(o orderview.Order) string { return fmt.Sprintf("%09d", o.TotalAmount) + o.ID }},
	} {
		ascending := list(t, reader, orderview.Filter{}, c.by)
		keys := make([]string, len(ascending))
		for i, o := range ascending {
			keys[i] = c.key(o)
		}
		require.Len(t, keys, 12)
		require.IsIncreasing(t, keys)
		opposite := map[orderview.OrderBy]orderview.OrderBy{
			orderview.PlacedAtAsc: orderview.PlacedAtDesc, orderview.UpdatedAtAsc: orderview.UpdatedAtDesc, orderview.TotalAsc: orderview.TotalDesc,
		}[c.by]
		for i, o := range list(t, reader, orderview.Filter{}, opposite) {
			require.Equal(t, ascending[11-i].ID, o.ID)
		}
	}
	for want, f := range map[int]orderview.Filter{
		6: {OwnerID: ptr("owner-1")}, 1: {CartID: ptr("cart-7")},
		4: {Status: []orderview.Status{orderview.Paid}}, 12: {Status: []orderview.Status{orderview.Paid, orderview.Placed}},
		2: {OwnerID: ptr("owner-1"), Status: []orderview.Status{orderview.Paid}},
		0: {VisibleTo: ptr("owner-1"), OwnerID: ptr("owner-0")},
	} {
		require.Len(t, parts(t, reader, f, f), want)
		require.Equal(t, parts(t, reader, f, f), parts(t, reader, orderview.Filter{}, f), "what passes in memory")
		require.Len(t, list(t, reader, f, ""), want)
		n, err := reader.Count(t.Context(), f)
		require.NoError(t, err)
		require.EqualValues(t, want, n)
	}
	many, err := reader.GetMany(t.Context(), []string{"order-03", "x"})
	require.NoError(t, err)
	require.Equal(t, "order-03", many[0].ID)
	require.Nil(t, many[1])
}

func list(t *testing.T, reader *orderview.Reader, f orderview.Filter, by orderview.OrderBy) (all []orderview.Order) {
	args := queries.PageArgs{First: ptr(5)}
	for {
		page, err := reader.List(t.Context(), f, by, args)
		require.NoError(t, err)
		all = append(all, page.Rows...)
		if !page.HasNext {
			return all
		}
		args.After = &page.Cursors[len(page.Cursors)-1]
	}
}

// parts are those of the parts of a list which pass a filter in memory.
func parts(t *testing.T, reader *orderview.Reader, f, passing orderview.Filter) (ids []string) {
	var after *string
	for {
		part, err := reader.Part(t.Context(), f, 5, after)
		require.NoError(t, err)
		for _, o := range part.Rows {
			if passing.Passes(o) {
				ids = append(ids, o.ID)
			}
		}
		if !part.HasNext {
			return ids
		}
		after = &part.Cursors[len(part.Cursors)-1]
	}
}
