package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// deliveryWriters is how many append at the same time while what they append is delivered.
const deliveryWriters = 128

// deliverySection measures appends and their delivery together: what arrives while writers write. Beside it Watermill's
// own outbox: a message published in a transaction for each event, and the Forwarder.
func (b *bench) deliverySection(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-delivery")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	program, err := buildBaseline(ctx, dir)
	if err != nil {
		return err
	}
	const base = "watermill-sql's Forwarder to gochannel"
	cases := []benchCase{
		{name: base, run: b.baseline(program, "live", deliveryWriters, b.config.Duration.String())},
		{name: "append, relay to local, consumer with a checkpoint", run: b.delivery(deliveryWriters), base: base, target: 5},
	}
	return b.report(ctx, fmt.Sprintf("Delivered while %d writers append", deliveryWriters), "events/s", cases)
}

// delivery measures what a consumer has taken, checkpoint included, when the writers stop. The latencies are the appends'.
func (b *bench) delivery(writers int) func(context.Context) (sample, error) {
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
		beside, cancel := context.WithCancel(ctx)
		defer cancel()
		local := outbox.NewLocal(outbox.LocalConfig{})
		defer local.Close()
		var taken atomic.Int64
		relay := outbox.NewRelay(store, local, outbox.RelayConfig{Pool: db.pool})
		consumer := outbox.NewConsumer(db.pool, store, local, outbox.Subscription{
			Name: "delivery", Apply: func(context.Context, pgx.Tx, []eventstore.Event) error { return nil },
			Committed: func(at eventstore.Token) { taken.Store(at.Position) },
		}, outbox.ConsumerConfig{})
		ended := make(chan error, 2)
		go func() { ended <- relay.Run(beside) }()
		go func() { ended <- consumer.Run(beside) }()
		start := time.Now()
		streams := make([]string, writers)
		s, err := run(ctx, writers, 1, b.config.Duration, func(ctx context.Context, w, n int) error {
			if n%streamLength == 0 {
				streams[w] = eventstore.StreamID("bench")
			}
			_, err := store.Append(ctx, eventstore.Request{
				Stream: streams[w], Expected: eventstore.Exact(int64(n % streamLength)), Events: []eventstore.Payload{benchEvent}, Metadata: benchMeta,
			})
			return err
		})
		s.rate = float64(taken.Load()) / time.Since(start).Seconds()
		cancel()
		return s, errors.Join(err, <-ended, <-ended)
	}
}

// buildBaseline builds tools/watermillsql, whose module the product does not need.
func buildBaseline(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "watermillsql")
	return program, build(ctx, "-C", "tools", "-o", program, "./watermillsql")
}

// baseline runs the program on a database of its own, with a payload that is an event's data.
func (b *bench) baseline(program, what string, n int, more ...string) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		cmd := exec.CommandContext(ctx, program, append([]string{what, db.url, fmt.Sprint(n)}, more...)...)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(benchData), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return sample{}, fmt.Errorf("watermillsql %s: %w", what, err)
		}
		numbers := make([]float64, 3) // the rate, and of some also two latencies in milliseconds
		for i, field := range strings.Fields(string(out)) {
			if numbers[i], err = strconv.ParseFloat(field, 64); err != nil {
				return sample{}, fmt.Errorf("watermillsql %s: %w", what, err)
			}
		}
		ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
		return sample{rate: numbers[0], p50: ms(numbers[1]), p99: ms(numbers[2])}, nil
	}
}
