package cartview_test

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

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// history makes a log of events, in the order given.
type history struct {
	registry *eventstore.Registry
	events   []eventstore.Event
	versions map[string]int64
}

func newHistory(t testing.TB) *history {
	registry, err := eventstore.NewRegistry(cart.Events()...)
	require.NoError(t, err)
	return &history{registry: registry, versions: map[string]int64{}}
}

func (h *history) add(stream string, payloads ...eventstore.Payload) {
	for _, p := range payloads {
		typ, version, data, err := h.registry.Encode(p)
		if err != nil {
			panic(err)
		}
		h.versions[stream]++
		position := int64(len(h.events) + 1)
		h.events = append(h.events, eventstore.Event{
			Position: position, Version: h.versions[stream], Stream: stream, Type: typ, SchemaVersion: version, Data: data,
			ID: uuid.New(), RecordedAt: time.UnixMicro(1_700_000_000_000_000 + position/3).UTC(), Metadata: json.RawMessage(`{}`),
		})
	}
}

// project applies the history in batches of a size.
func (h *history) project(rt require.TestingT, t *testing.T, pool *pgxpool.Pool, p queries.Projection, size int) {
	for rest := h.events; len(rest) > 0; rest = rest[min(size, len(rest)):] {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return p.Apply(t.Context(), tx, rest[:min(size, len(rest))])
		})
		require.NoError(rt, err)
	}
}

func eur(amount int64) money.Money { return money.Money{Amount: amount, Currency: "EUR"} }

func ptr[T any](v T) *T { return &v }

func draw(t *rapid.T) eventstore.Payload {
	sku := rapid.SampledFrom([]string{"tea", "cup", "pot"}).Draw(t, "sku")
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return cart.ItemRemoved{SKU: sku}
	case 1, 2:
		return cart.QuantityChanged{SKU: sku, Quantity: rapid.IntRange(1, 9).Draw(t, "quantity")}
	case 3:
		return cart.Abandoned{}
	case 4:
		return cart.CheckedOut{OrderID: "order-1", OwnerID: "o", Currency: "EUR", Total: eur(1)}
	default:
		return cart.ItemAdded{SKU: sku, Name: "A " + sku, Quantity: rapid.IntRange(1, 9).Draw(t, "quantity"), UnitPrice: eur(7)}
	}
}

// The table equals the fold of each stream, whatever the batches; folding changes nothing that it was given; and the
// total is always that of the lines.
func TestViewEqualsReplay(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	reader := cartview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(t.Context(), "truncate cart_v1")
		require.NoError(rt, err)
		h := newHistory(t)
		for i := range 3 {
			h.add(fmt.Sprint("cart-", i), cart.Opened{OwnerID: "ada", Currency: "EUR"})
		}
		for range rapid.IntRange(0, 25).Draw(rt, "events") {
			h.add(fmt.Sprint("cart-", rapid.IntRange(0, 2).Draw(rt, "cart")), draw(rt))
		}
		view := cartview.View()
		p, err := view.Projection(h.registry)
		require.NoError(rt, err)
		h.project(rt, t, pool, p, rapid.IntRange(1, 30).Draw(rt, "batch"))
		for stream := range h.versions {
			var row cartview.Cart
			exists := false
			for _, e := range h.events {
				if e.Stream != stream {
					continue
				}
				before := text(row)
				once, _, err := view.Fold(h.registry, row, exists, e)
				require.NoError(rt, err)
				twice, _, err := view.Fold(h.registry, row, exists, e)
				require.NoError(rt, err)
				require.Equal(rt, text(once), text(twice))
				require.Equal(rt, before, text(row), "the fold changed what it was given")
				row, exists = once, true
			}
			got, err := reader.Get(t.Context(), stream)
			require.NoError(rt, err)
			require.Equal(rt, text(row), text(*got))
			var sum int64
			for _, item := range got.Items {
				sum += item.LineTotal().Amount
			}
			require.Equal(rt, eur(sum), got.Total())
		}
	})
}

// text is a cart in a form that compares times by the moment and lists by what is in them.
func text(c cartview.Cart) string {
	c.OpenedAt, c.UpdatedAt = c.OpenedAt.UTC(), c.UpdatedAt.UTC()
	if len(c.Items) == 0 {
		c.Items = []cartview.Item{}
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestCartThroughItsLife(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h := newHistory(t)
	h.add("cart-1", cart.Opened{OwnerID: "ada", Currency: "EUR"},
		cart.ItemAdded{SKU: "tea", Name: "Tea", Quantity: 2, UnitPrice: eur(350)},
		cart.ItemAdded{SKU: "cup", Name: "Cup", Quantity: 1, UnitPrice: eur(900)},
		cart.ItemAdded{SKU: "tea", Name: "Other tea", Quantity: 3, UnitPrice: eur(1)},
		cart.QuantityChanged{SKU: "cup", Quantity: 4}, cart.ItemRemoved{SKU: "tea"},
		cart.CheckedOut{OrderID: "order-1", OwnerID: "ada", Currency: "EUR", Total: eur(3600)})
	h.add("cart-2", cart.Opened{OwnerID: "bob", Currency: "CHF"}, cart.Abandoned{})
	p, err := cartview.View().Projection(h.registry)
	require.NoError(t, err)
	h.project(t, t, pool, p, 4)
	reader := cartview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	got, err := reader.GetMany(t.Context(), []string{"cart-2", "cart-none", "cart-1"})
	require.NoError(t, err)
	require.Nil(t, got[1])
	require.Equal(t, cartview.Abandoned, got[0].Status)
	require.Empty(t, got[0].Items)
	require.Equal(t, money.Money{Currency: "CHF"}, got[0].Total())
	one := got[2]
	require.Equal(t, cartview.CheckedOut, one.Status)
	require.Equal(t, []cartview.Item{{SKU: "cup", Name: "Cup", Quantity: 4, UnitPrice: eur(900)}}, one.Items)
	require.Equal(t, eur(3600), one.Total())
	require.Equal(t, ptr("order-1"), one.OrderID)
	require.EqualValues(t, 7, one.Version)
	require.EqualValues(t, 7, one.Position)
	none, err := reader.Get(t.Context(), "cart-none")
	require.NoError(t, err)
	require.Nil(t, none)
}

// Every filter with every order, in both directions, gives what a sort in memory gives, page by page.
func TestListFiltersAndOrders(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h := newHistory(t)
	for i := range 24 {
		h.add(fmt.Sprintf("cart-%02d", i), cart.Opened{OwnerID: fmt.Sprint("owner-", i%3), Currency: "EUR"})
		if i%2 == 0 {
			h.add(fmt.Sprintf("cart-%02d", i), cart.Abandoned{})
		}
	}
	p, err := cartview.View().Projection(h.registry)
	require.NoError(t, err)
	h.project(t, t, pool, p, 10)
	reader := cartview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	for _, f := range []struct {
		filter cartview.Filter
		want   int
	}{
		{cartview.Filter{}, 24},
		{cartview.Filter{OwnerID: ptr("owner-1")}, 8},
		{cartview.Filter{Status: []cartview.Status{cartview.Open}}, 12},
		{cartview.Filter{Status: []cartview.Status{cartview.Open, cartview.Abandoned}}, 24},
		{cartview.Filter{OwnerID: ptr("owner-2"), Status: []cartview.Status{cartview.Abandoned}}, 4},
		{cartview.Filter{OwnerID: ptr("\x00")}, 0},
		{cartview.Filter{VisibleTo: ptr("owner-1")}, 8},
		{cartview.Filter{VisibleTo: ptr("owner-1"), OwnerID: ptr("owner-2")}, 0},
		{cartview.Filter{VisibleTo: ptr("")}, 0},
	} {
		n, err := reader.Count(t.Context(), f.filter)
		require.NoError(t, err)
		require.EqualValues(t, f.want, n)
		ascending, descending := walk(t, reader, f.filter, cartview.OpenedAtAsc), walk(t, reader, f.filter, cartview.OpenedAtDesc)
		require.Len(t, ascending, f.want)
		require.IsIncreasing(t, append([]string{""}, ascending...))
		for i := range descending {
			require.Equal(t, ascending[len(ascending)-1-i], descending[i])
		}
		require.Equal(t, descending, parts(t, reader, f.filter, f.filter))
		require.Equal(t, descending, parts(t, reader, cartview.Filter{}, f.filter), "what passes in memory")
	}
	var argument *queries.ArgumentError
	_, err = reader.List(t.Context(), cartview.Filter{}, "BY_LUCK", queries.PageArgs{})
	require.ErrorAs(t, err, &argument)
}

func walk(t *testing.T, reader *cartview.Reader, f cartview.Filter, by cartview.OrderBy) (ids []string) {
	args := queries.PageArgs{First: ptr(5)}
	for {
		page, err := reader.List(t.Context(), f, by, args)
		require.NoError(t, err)
		for _, c := range page.Rows {
			ids = append(ids, c.ID)
		}
		if !page.HasNext {
			return ids
		}
		args.After = &page.Cursors[len(page.Cursors)-1]
	}
}

// parts are those of the parts of a list which pass a filter in memory.
func parts(t *testing.T, reader *cartview.Reader, f, passing cartview.Filter) (ids []string) {
	var after *string
	for {
		part, err := reader.Part(t.Context(), f, 5, after)
		require.NoError(t, err)
		for _, c := range part.Rows {
			if passing.Passes(c) {
				ids = append(ids, c.ID)
			}
		}
		if !part.HasNext {
			return ids
		}
		after = &part.Cursors[len(part.Cursors)-1]
	}
}
