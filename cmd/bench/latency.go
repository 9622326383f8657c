package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// latencyRate is how many events a second are appended while latency is measured.
const latencyRate = 1000

func (b *bench) latencySection(ctx context.Context) error {
	var subscribed, projected []sample
	for round := range b.config.Runs {
		fmt.Fprintf(os.Stderr, "round %d of %d: latency\n", round+1, b.config.Runs)
		s, p, err := b.latency(ctx)
		if err != nil {
			return err
		}
		subscribed, projected = append(subscribed, s), append(projected, p)
	}
	printTable(os.Stdout, fmt.Sprintf("Latency at %s events/s, from the time the log recorded the event", count(latencyRate)),
		"events/s", []row{
			{name: "to a subscriber of the log", result: median(subscribed), target: "p50 < 2 ms, p99 < 8 ms"},
			{name: "to the cart view's commit, through relay and broker", result: median(projected)},
		})
	return nil
}

// stopwatch gathers how long ago events were recorded when they arrived.
type stopwatch struct {
	mu    sync.Mutex
	taken []time.Duration
}

func (s *stopwatch) see(recorded time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, time.Since(recorded))
}

// latency runs a store, the log's tail, a relay and the cart view's consumer, as a server does, and appends at a steady
// rate.
func (b *bench) latency(ctx context.Context) (subscribed, projected sample, err error) {
	db, err := b.database(ctx)
	if err != nil {
		return subscribed, projected, err
	}
	defer db.drop()
	store, err := b.open(ctx, db)
	if err != nil {
		return subscribed, projected, err
	}
	defer store.Close(ctx)
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()

	tail := queries.NewTail(store, queries.TailConfig{})
	wg.Go(func() { _ = tail.Run(running) })
	var seen, committed stopwatch
	events, err := tail.Events(running, nil, queries.EventFilter{})
	if err != nil {
		return subscribed, projected, err
	}
	wg.Go(func() {
		for e, err := range events {
			if err != nil {
				return
			}
			seen.see(e.RecordedAt)
		}
	})
	if err := b.project(running, &wg, db, store, &committed); err != nil {
		return subscribed, projected, err
	}
	start := time.Now()
	if err := pace(running, store, b.config.Duration); err != nil {
		return subscribed, projected, err
	}
	elapsed := time.Since(start)
	stop()
	wg.Wait()
	return summarise(seen.taken, 1, elapsed), summarise(committed.taken, 1, elapsed), nil
}

// project runs relay, broker and the cart view's consumer, and notes when events were committed to the view.
func (b *bench) project(ctx context.Context, wg *sync.WaitGroup, db *database, store *eventstore.Store, committed *stopwatch) error {
	projection, err := cartview.View().Projection(store.Registry())
	if err != nil {
		return err
	}
	local := outbox.NewLocal(outbox.LocalConfig{})
	var mu sync.Mutex
	var applied []eventstore.Event
	consumer := outbox.NewConsumer(db.pool, store, local, outbox.Subscription{
		Name: projection.Checkpoint(), Types: projection.Types,
		Apply: func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			mu.Lock()
			applied = append(applied[:0], events...)
			mu.Unlock()
			return projection.Apply(ctx, tx, events)
		},
		Committed: func(eventstore.Token) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range applied {
				committed.see(e.RecordedAt)
			}
			applied = applied[:0]
		},
	}, outbox.ConsumerConfig{})
	wg.Go(func() { _ = outbox.NewRelay(store, local, outbox.RelayConfig{}).Run(ctx) })
	wg.Go(func() { _ = consumer.Run(ctx) })
	return nil
}

// pace appends at latencyRate for d, each append in time whether or not the one before was answered.
func pace(ctx context.Context, store *eventstore.Store, d time.Duration) error {
	ticker := time.NewTicker(time.Second / latencyRate)
	defer ticker.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	failures := make(chan error, 1)
	deadline := time.Now().Add(d)
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failures:
			return err
		case <-ticker.C:
		}
		wg.Go(func() {
			_, err := store.Append(ctx, eventstore.Request{
				Stream: cart.NewID(), Events: []eventstore.Payload{cart.Opened{OwnerID: "bench", Currency: "EUR"}}, Metadata: benchMeta,
			})
			if err != nil {
				select {
				case failures <- err:
				default:
				}
			}
		})
	}
	return nil
}
