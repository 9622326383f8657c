package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// seedLength is how many events each cart of the replay has.
const seedLength = 10

func (b *bench) replaySection(ctx context.Context) error {
	var relayed, projected []sample
	for round := range b.config.Runs {
		fmt.Fprintf(os.Stderr, "round %d of %d: replay of %d events\n", round+1, b.config.Runs, b.config.Events)
		relay, projection, err := b.replay(ctx)
		if err != nil {
			return err
		}
		relayed, projected = append(relayed, relay), append(projected, projection)
	}
	printTable(os.Stdout, fmt.Sprintf("Replay of %s events", count(float64(b.config.Events))), "events/s", []row{
		{name: "relay to the in-process broker, acknowledged", result: median(relayed)},
		{name: "projection into the cart view", result: median(projected), target: "60,000/s"},
	})
	return nil
}

// replay seeds a log once and reads it twice: by a relay, and by the cart view's consumer.
func (b *bench) replay(ctx context.Context) (relay, projection sample, err error) {
	db, err := b.database(ctx)
	if err != nil {
		return relay, projection, err
	}
	defer db.drop()
	store, err := b.open(ctx, db)
	if err != nil {
		return relay, projection, err
	}
	defer store.Close(ctx)
	if err := seed(ctx, store, b.config.Events); err != nil {
		return relay, projection, fmt.Errorf("seeding the log: %w", err)
	}
	if relay, err = timeRelay(ctx, db, store); err != nil {
		return relay, projection, fmt.Errorf("relay: %w", err)
	}
	if projection, err = timeProjection(ctx, db, store); err != nil {
		return relay, projection, fmt.Errorf("projection: %w", err)
	}
	return relay, projection, nil
}

// cartPayloads are the events of one cart.
func cartPayloads() []eventstore.Payload {
	payloads := []eventstore.Payload{cart.Opened{OwnerID: "bench", Currency: "EUR"}}
	for n := range seedLength - 1 {
		payloads = append(payloads, cart.ItemAdded(addItem(n)))
	}
	return payloads
}

func seed(ctx context.Context, store *eventstore.Store, events int) error {
	payloads := cartPayloads()
	const workers = 32
	var wg sync.WaitGroup
	failures := make(chan error, workers)
	for w := range workers {
		wg.Go(func() {
			for n := w; n < events/seedLength; n += workers {
				_, err := store.Append(ctx, eventstore.Request{Stream: cart.NewID(), Events: payloads, Metadata: benchMeta})
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// timeRelay measures a relay from the beginning of the log to a subscriber that acknowledges at once.
func timeRelay(ctx context.Context, db *database, store *eventstore.Store) (sample, error) {
	head, err := store.Head(ctx)
	if err != nil {
		return sample{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	local := outbox.NewLocal(outbox.LocalConfig{})
	defer local.Close()
	messages, err := local.Subscribe(ctx, outbox.LogTopic)
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- outbox.NewRelay(store, local, outbox.RelayConfig{Pool: db.pool}).Run(ctx) }()
	for {
		select {
		case err := <-ended:
			return sample{}, fmt.Errorf("the relay ended early: %w", err)
		case m := <-messages:
			run, err := outbox.DecodeRun(m.Payload)
			if err != nil {
				return sample{}, err
			}
			m.Ack()
			if run.Last() < head.Position {
				continue
			}
		}
		rate := float64(head.Position) / time.Since(start).Seconds()
		cancel()
		return sample{rate: rate}, <-ended
	}
}

// timeProjection measures the cart view's consumer from the beginning of the log.
func timeProjection(ctx context.Context, db *database, store *eventstore.Store) (sample, error) {
	head, err := store.Head(ctx)
	if err != nil {
		return sample{}, err
	}
	projection, err := cartview.View().Projection(store.Registry())
	if err != nil {
		return sample{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{}, 1)
	consumer := outbox.NewConsumer(db.pool, store, nil, outbox.Subscription{
		Name: projection.Checkpoint(), Types: projection.Types, Apply: projection.Apply,
		Committed: func(at eventstore.Token) {
			if at.Position == head.Position {
				done <- struct{}{}
			}
		},
	}, outbox.ConsumerConfig{})
	start := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	select {
	case err := <-ended:
		return sample{}, fmt.Errorf("the consumer ended early: %w", err)
	case <-done:
	}
	rate := float64(head.Position) / time.Since(start).Seconds()
	cancel()
	return sample{rate: rate}, <-ended
}
