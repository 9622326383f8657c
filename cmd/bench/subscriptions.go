package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// subscribed is how many events each of so many subscribers gets in one run.
var subscribed = []struct{ subscribers, events int }{{1, 20_000}, {100, 5_000}, {1_000, 1_000}}

// crowd is how many idle subscribers memory is measured with.
const crowd = 10_000

func (b *bench) subscriptionsSection(ctx context.Context) error {
	api, err := b.buildAPI(ctx)
	if err != nil {
		return err
	}
	var cases []benchCase
	for _, n := range subscribed {
		cases = append(cases, benchCase{
			name: fmt.Sprintf("in one process, %s subscribers of %s events", count(float64(n.subscribers)), count(float64(n.events))),
			run:  b.deliver(n.subscribers, n.events, b.inProcess(0)),
		})
	}
	cases = append(cases, benchCase{
		name: fmt.Sprintf("in one process, 1 subscriber of 20,000 events, beside %s who wait for other streams", count(crowd)),
		run:  b.deliver(1, 20_000, b.inProcess(crowd)),
	})
	for _, n := range subscribed {
		cases = append(cases, benchCase{
			name: fmt.Sprintf("over WebSockets, %s subscribers of %s events", count(float64(n.subscribers)), count(float64(n.events))),
			run:  b.deliver(n.subscribers, n.events, b.overSockets(api)),
		})
	}
	medians, err := b.runCases(ctx, cases)
	if err != nil {
		return err
	}
	rows := make([]row, len(cases))
	for i, c := range cases {
		rows[i] = row{name: c.name, result: medians[c.name]}
	}
	printTable(os.Stdout, "Subscriptions to the log", "deliveries/s", rows)
	return b.memory(ctx, api)
}

// subscribers begin to follow a database's log from its start, and call told for each event that one of them gets.
type subscribers func(ctx context.Context, db *database, n int, told func()) (stop func(), err error)

// deliver measures the time from the first append until the last of n subscribers has all events.
func (b *bench) deliver(n, events int, begin subscribers) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		store, err := b.open(ctx, db)
		if err != nil {
			return sample{}, err
		}
		defer store.Close(ctx)
		var delivered atomic.Int64
		all, want := make(chan struct{}), int64(n*events)
		stop, err := begin(ctx, db, n, func() {
			if delivered.Add(1) == want {
				close(all)
			}
		})
		if err != nil {
			return sample{}, err
		}
		defer stop()
		start := time.Now()
		if err := appendCarts(ctx, store, events); err != nil {
			return sample{}, err
		}
		select {
		case <-all:
		case <-ctx.Done():
			return sample{}, ctx.Err()
		case <-time.After(2 * time.Minute):
			return sample{}, fmt.Errorf("%d of %d events were delivered", delivered.Load(), want)
		}
		return sample{rate: float64(want) / time.Since(start).Seconds()}, nil
	}
}

// appendCarts appends events as fast as one caller can, ten at once.
func appendCarts(ctx context.Context, store *eventstore.Store, n int) error {
	for range n / 10 {
		events := make([]eventstore.Payload, 10)
		for i := range events {
			events[i] = cart.Opened{OwnerID: "bench", Currency: "EUR"}
		}
		if _, err := store.Append(ctx, eventstore.Request{Stream: cart.NewID(), Events: events, Metadata: benchMeta}); err != nil {
			return err
		}
	}
	return nil
}

// inProcess lets goroutines follow the log through one tail, beside some who follow streams that nothing happens to.
func (b *bench) inProcess(bystanders int) subscribers {
	return func(ctx context.Context, db *database, n int, told func()) (func(), error) {
		store, err := b.open(ctx, db)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		tail := queries.NewTail(store, queries.TailConfig{})
		var wg sync.WaitGroup
		wg.Go(func() { _ = tail.Run(ctx) })
		stop := func() {
			cancel()
			wg.Wait()
			_ = store.Close(context.WithoutCancel(ctx))
		}
		for i := range n + bystanders {
			filter, after := queries.EventFilter{}, int64(0)
			if i >= n {
				filter.Stream = fmt.Sprintf("cart-%d", i)
			}
			events, err := tail.Events(ctx, &after, filter)
			if err != nil {
				stop()
				return nil, err
			}
			wg.Go(func() {
				for _, err := range events {
					if err != nil {
						return
					}
					told()
				}
			})
		}
		return stop, nil
	}
}

// memory measures what a server's process grows by with a crowd of idle subscribers, for each of them.
func (b *bench) memory(ctx context.Context, api string) error {
	var rows []row
	for _, way := range []struct {
		name string
		open func(ctx context.Context, address string, after int) (*follower, error)
	}{{"WebSocket", openSocket}, {"event stream", openEvents}} {
		grown, err := b.grown(ctx, api, way.open)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		rows = append(rows, row{
			name:   fmt.Sprintf("%s idle subscribers, each with its %s", count(crowd), way.name),
			result: sample{rate: float64(grown) / crowd / 1024},
		})
	}
	printTable(os.Stdout, "Memory of the server's process", "KiB for each", rows)
	return nil
}

// grown is how much the server's resident memory grows from ten subscribers to a crowd of whom each has got all events.
func (b *bench) grown(ctx context.Context, api string, open func(context.Context, string, int) (*follower, error)) (int64, error) {
	db, err := b.database(ctx)
	if err != nil {
		return 0, err
	}
	defer db.drop()
	store, err := b.open(ctx, db)
	if err != nil {
		return 0, err
	}
	defer store.Close(ctx)
	address, server, stop, err := serveProcess(ctx, api, db.url)
	if err != nil {
		return 0, err
	}
	defer stop()
	var all []*follower
	defer func() {
		for _, f := range all {
			f.close()
		}
	}()
	before := int64(0)
	for round, n := range []int{10, crowd} {
		more, err := openMany(n-len(all), func() (*follower, error) { return open(ctx, address, 0) })
		all = append(all, more...)
		if err != nil {
			return 0, err
		}
		if err := appendCarts(ctx, store, 10); err != nil {
			return 0, err
		}
		for _, f := range all {
			for ; f.got < 10*(round+1); f.got++ {
				if err := f.next(); err != nil {
					return 0, err
				}
			}
		}
		now, err := resident(server.Process.Pid)
		if err != nil {
			return 0, err
		}
		if n == crowd {
			return now - before, nil
		}
		before = now
	}
	return 0, nil
}
