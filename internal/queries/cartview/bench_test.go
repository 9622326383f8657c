package cartview_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// life is what happens to a cart in the benchmark: ten events.
func life(n int) []eventstore.Payload {
	price := money.Money{Amount: 1999, Currency: "EUR"}
	var items []cart.Item
	events := []eventstore.Payload{cart.Opened{OwnerID: fmt.Sprintf("user-%d", n%5000), Currency: "EUR"}}
	for i := range 6 {
		item := cart.Item{SKU: fmt.Sprintf("sku-%d", i), Name: fmt.Sprintf("A thing of kind %d", i), Quantity: i + 1, UnitPrice: price}
		items = append(items, item)
		events = append(events, cart.ItemAdded(item))
	}
	return append(events, cart.QuantityChanged{SKU: "sku-1", Quantity: 9}, cart.ItemRemoved{SKU: "sku-0"},
		cart.CheckedOut{OrderID: "order-" + fmt.Sprint(n), OwnerID: "user", Currency: "EUR", Items: items[1:], Total: price})
}

// fillLog writes n events of n/10 carts, a thousand of them alive at a time, past the store: appending is not what is measured.
func fillLog(b *testing.B, db *pgx.Conn, registry *eventstore.Registry, n int) {
	const alive = 1000
	metadata := json.RawMessage(`{"actor": "bench", "commandId": "0193f3a0-0000-7000-8000-000000000000"}`)
	start := time.Now().Add(-time.Hour)
	rows := make([][]any, 0, n)
	for position := int64(1); position <= int64(n); position++ {
		i := int(position - 1)
		number, version := i/(10*alive)*alive+i%alive, i/alive%10
		typ, schema, data, err := registry.Encode(life(number)[version])
		require.NoError(b, err)
		rows = append(rows, []any{
			position, int64(version + 1), start.Add(time.Duration(i) * time.Microsecond), uuid.New(),
			fmt.Sprintf("cart-%036d", number), typ, int16(schema), data, metadata,
		})
	}
	_, err := db.CopyFrom(b.Context(), pgx.Identifier{"events"},
		[]string{"position", "version", "recorded_at", "id", "stream", "type", "schema_version", "data", "metadata"}, pgx.CopyFromRows(rows))
	require.NoError(b, err)
	_, err = db.Exec(b.Context(), "vacuum analyze events")
	require.NoError(b, err)
}

// BenchmarkReplay fills the view of carts from a log of 200,000 events, reading and decoding included, and switches to it.
func BenchmarkReplay(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) { benchmarkReplay(b, workers) })
	}
}

func benchmarkReplay(b *testing.B, workers int) {
	const events = 200_000
	pool := pgtest.Pool(b)
	registry, err := eventstore.NewRegistry(cart.Events()...)
	require.NoError(b, err)
	store, err := eventstore.Open(b.Context(), pool, registry, eventstore.Config{})
	require.NoError(b, err)
	defer func() { require.NoError(b, store.Close(context.WithoutCancel(b.Context()))) }()
	conn, err := pool.Acquire(b.Context())
	require.NoError(b, err)
	fillLog(b, conn.Conn(), registry, events)
	conn.Release()
	view, err := cartview.View().Projection(registry)
	require.NoError(b, err)
	for b.Loop() {
		_, err := queries.Rebuild(b.Context(), pool, store, view, queries.RebuildConfig{Workers: workers, Switch: true, MaxWALRate: -1})
		require.NoError(b, err)
	}
	b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkEvolve changes a cart of a hundred lines.
func BenchmarkEvolve(b *testing.B) {
	row := cartview.Evolve(cartview.Cart{}, eventstore.Event{Stream: "cart-1"}, cart.Opened{Currency: "EUR"})
	for i := range 100 {
		row = cartview.Evolve(row, eventstore.Event{}, cart.ItemAdded{SKU: fmt.Sprint("sku-", i), Quantity: 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		cartview.Evolve(row, eventstore.Event{}, cart.QuantityChanged{SKU: "sku-99", Quantity: 2})
	}
}
