package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// rebuildSection fills the cart view's next table from a log of a million events, with one worker and with two.
func (b *bench) rebuildSection(ctx context.Context) error {
	db, err := b.database(ctx)
	if err != nil {
		return err
	}
	defer db.drop()
	store, err := b.open(ctx, db)
	if err != nil {
		return err
	}
	defer store.Close(ctx)
	events := 5 * b.config.Events
	fmt.Fprintf(os.Stderr, "a log of %s events\n", count(float64(events)))
	if err := generateCarts(ctx, db, events); err != nil {
		return err
	}
	const one = "one worker"
	return b.report(ctx, fmt.Sprintf("Rebuild of the cart view from %s events", count(float64(events))), "events/s", []benchCase{
		{name: one, run: rebuild(db, store, 1), base: one, note: "60,000/s"},
		{name: "two workers, each with a share of the streams", run: rebuild(db, store, 2), base: one},
	})
}

// rebuild measures Rebuild from the first event to the switch.
func rebuild(db *database, store *eventstore.Store, workers int) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		projection, err := cartview.View().Projection(store.Registry())
		if err != nil {
			return sample{}, err
		}
		start := time.Now()
		filled, err := queries.Rebuild(ctx, db.pool, store, projection, queries.RebuildConfig{Workers: workers, Switch: true, MaxWALRate: -1})
		if err != nil {
			return sample{}, err
		}
		rate := float64(filled.Position) / time.Since(start).Seconds()
		if filled.Replaced != "" {
			_, err = queries.Drop(ctx, db.pool, filled.Replaced)
		}
		return sample{rate: rate}, err
	}
}

// generateCarts writes what seed appends straight into the log.
func generateCarts(ctx context.Context, db *database, events int) error {
	var types []string
	var data [][]byte
	for _, payload := range cartPayloads() {
		types, data = append(types, payload.EventType()), append(data, mustJSON(payload))
	}
	_, err := db.pool.Exec(ctx, `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select n, v, now(), gen_random_uuid(), 'cart-' || lpad(((n - 1) / $2)::text, 36, '0'), ($3::text[])[v], 1, ($4::jsonb[])[v], $5
from (select n, (n - 1) % $2 + 1 as v from generate_series(1, $1::bigint) n) numbered`, events, len(types), types, data, benchMetadata)
	if err != nil {
		return fmt.Errorf("writing the log: %w", err)
	}
	return settle(ctx, db)
}
