package activityview_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
)

func ptr[T any](v T) *T { return &v }

// step is an event of the history and the line it is to become.
type step struct {
	stream  string
	payload eventstore.Payload
	user    string
	summary string
}

func steps() []step {
	tea := cart.Item{SKU: "tea", Name: "Tea", Quantity: 2}
	return []step{
		{"user-1", user.Registered{Email: "a@b.org", Name: "Ada"}, "user-1", "registered as Ada"},
		{"cart-1", cart.Opened{OwnerID: "user-1", Currency: "EUR"}, "user-1", "opened a cart in EUR"},
		{"cart-2", cart.Opened{OwnerID: "bob", Currency: "CHF"}, "bob", "opened a cart in CHF"},
		{"cart-1", cart.ItemAdded(tea), "user-1", "put 2 × Tea in the cart"},
		{"cart-2", cart.ItemAdded(tea), "bob", "put 2 × Tea in the cart"},
		{"cart-1", cart.QuantityChanged{SKU: "tea", Quantity: 5}, "user-1", "changed the quantity of tea to 5"},
		{"cart-2", cart.ItemRemoved{SKU: "tea"}, "bob", "took tea out of the cart"},
		{"cart-2", cart.Abandoned{}, "bob", "abandoned the cart"},
		{"cart-1", cart.CheckedOut{OwnerID: "user-1", Items: []cart.Item{tea}}, "user-1", "checked out the cart with 1 line"},
		{"order-1", order.Placed{OwnerID: "user-1", Items: make([]order.Item, 2)}, "user-1", "placed an order of 2 lines"},
		{"user-1", user.Renamed{Name: "Ada L."}, "user-1", "is now called Ada L."},
		{"order-1", order.Paid{Reference: "P1"}, "user-1", "paid the order, reference P1"},
		{"order-1", order.Shipped{}, "user-1", "the order was shipped"},
		{"order-1", order.Delivered{}, "user-1", "the order was delivered"},
		{"order-1", order.Refunded{Reason: "broken"}, "user-1", "the order was refunded: broken"},
		{"user-1", user.EmailChanged{Email: "c@d.org"}, "user-1", "changed the e-mail address"},
		{"user-1", user.Deactivated{Reason: "left"}, "user-1", "was deactivated: left"},
	}
}

func history(t *testing.T) (*eventstore.Registry, []eventstore.Event) {
	r, err := eventstore.NewRegistry(slices.Concat(cart.Events(), order.Events(), user.Events())...)
	require.NoError(t, err)
	var events []eventstore.Event
	for i, s := range steps() {
		typ, schema, data, err := r.Encode(s.payload)
		require.NoError(t, err)
		events = append(events, eventstore.Event{
			Position: int64(i + 1), Version: 1, Stream: s.stream, Type: typ, SchemaVersion: schema, Data: data, ID: uuid.New(),
			RecordedAt: time.UnixMicro(1_700_000_000_000_000).UTC(), Metadata: json.RawMessage(`{"actor": "clerk", "roles": ["staff", "desk"], "correlationId": "r-1"}`),
		})
	}
	return r, events
}

func apply(t *testing.T, rt require.TestingT, pool *pgxpool.Pool, p queries.Projection, events []eventstore.Event) {
	require.NoError(rt, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return p.Apply(t.Context(), tx, events) }))
}

// Each event is a line with its owner, whether the event that names the owner is in the same batch or an earlier one.
func TestLinesUnderAnyBatching(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	r, events := history(t)
	p, err := activityview.Projection(r)
	require.NoError(t, err)
	require.Len(t, p.Types, len(cart.Events())+len(order.Events())+len(user.Events()), "every event has a line")
	reader := activityview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(t.Context(), "truncate activity_v1")
		require.NoError(rt, err)
		for rest := events; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			apply(t, rt, pool, p, rest[:n])
			rest = rest[n:]
		}
		lines, err := reader.Since(t.Context(), activityview.Filter{}, 0, 0)
		require.NoError(rt, err)
		require.Len(rt, lines, len(events))
		for i, s := range steps() {
			lines[i].RecordedAt = lines[i].RecordedAt.UTC()
			require.Equal(rt, activityview.Activity{
				Position: int64(i + 1), UserID: s.user, Stream: s.stream, Type: s.payload.EventType(), Summary: s.summary,
				Actor: "clerk", Roles: []string{"staff", "desk"}, RequestID: "r-1", RecordedAt: events[i].RecordedAt,
			}, lines[i])
		}
	})
}

func TestReader(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	r, events := history(t)
	p, err := activityview.Projection(r)
	require.NoError(t, err)
	apply(t, t, pool, p, events)
	reader := activityview.NewReader(queries.NewReads(pool), queries.PageConfig{})

	one, err := reader.Get(t.Context(), "activity-3")
	require.NoError(t, err)
	require.Equal(t, "activity-3", one.ID())
	require.Equal(t, "bob", one.UserID)
	for _, id := range []string{"activity-99", "activity-03", "activity--3", "activity-", "cart-3", "activity-99999999999999999999"} {
		none, err := reader.Get(t.Context(), id)
		require.NoError(t, err)
		require.Nil(t, none, id)
	}
	many, err := reader.GetMany(t.Context(), []string{"nonsense", "activity-2", "activity-1"})
	require.NoError(t, err)
	require.Nil(t, many[0])
	require.EqualValues(t, 2, many[1].Position)
	require.EqualValues(t, 1, many[2].Position)

	bob := activityview.Filter{UserID: ptr("bob")}
	n, err := reader.Count(t.Context(), bob)
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
	n, err = reader.Count(t.Context(), activityview.Filter{Stream: ptr("cart-1"), Types: []string{"cart.opened", "cart.checked_out"}})
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	newest, err := reader.List(t.Context(), bob, "", queries.PageArgs{First: ptr(3)})
	require.NoError(t, err)
	require.Equal(t, []int64{8, 7, 5}, positions(newest.Rows))
	rest, err := reader.List(t.Context(), bob, "", queries.PageArgs{After: &newest.Cursors[2]})
	require.NoError(t, err)
	require.Equal(t, []int64{3}, positions(rest.Rows))
	oldest, err := reader.List(t.Context(), bob, activityview.PositionAsc, queries.PageArgs{First: ptr(2)})
	require.NoError(t, err)
	require.Equal(t, []int64{3, 5}, positions(oldest.Rows))
	since, err := reader.Since(t.Context(), bob, 5, 1)
	require.NoError(t, err)
	require.Equal(t, []int64{7}, positions(since))

	all, err := reader.Since(t.Context(), activityview.Filter{}, 0, 0)
	require.NoError(t, err)
	for _, f := range []activityview.Filter{
		bob,
		{Stream: ptr("cart-1")},
		{Types: []string{"cart.opened", "cart.checked_out"}},
		{VisibleTo: ptr("bob")},
		{VisibleTo: ptr("")},
		{VisibleTo: ptr("user-1"), Types: []string{"cart.opened"}},
	} {
		want, err := reader.Since(t.Context(), f, 0, 0)
		require.NoError(t, err)
		var got []activityview.Activity
		for _, a := range all {
			if f.Passes(a) {
				got = append(got, a)
			}
		}
		require.Equal(t, positions(want), positions(got), "what passes in memory")
	}
}

func positions(rows []activityview.Activity) []int64 {
	out := make([]int64, len(rows))
	for i, row := range rows {
		out[i] = row.Position
	}
	return out
}
