package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// carrier is a broker that a backlog is drained to.
type carrier interface {
	message.Publisher
	message.Subscriber
}

// relaySection drains one backlog through each broker in turn: by a leased relay, which records after each run how far
// the broker has acknowledged, to a subscriber that reads every run.
func (b *bench) relaySection(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-nats")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nats-server")
	build := exec.CommandContext(ctx, "go", "build", "-modfile=tools/go.mod", "-o", program, "github.com/nats-io/nats-server/v2")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building nats-server, in the repository's folder: %w", err)
	}
	lazy, stopLazy, err := startNATS(ctx, program, filepath.Join(dir, "lazy"), "2m")
	if err != nil {
		return err
	}
	defer stopLazy()
	synced, stopSynced, err := startNATS(ctx, program, filepath.Join(dir, "synced"), "always")
	if err != nil {
		return err
	}
	defer stopSynced()
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
	fmt.Fprintf(os.Stderr, "a backlog of %d events\n", b.config.Events)
	if err := seed(ctx, store, b.config.Events); err != nil {
		return fmt.Errorf("seeding the log: %w", err)
	}
	const local = "to local"
	nats := func(url string) func() (carrier, error) {
		return func() (carrier, error) {
			return natsjs.Open(natsjs.Config{URL: url, MaxBytes: 8 << 30, Logger: slog.New(slog.DiscardHandler)})
		}
	}
	cases := []benchCase{
		{name: local, run: drain(db, store, func() (carrier, error) { return outbox.NewLocal(outbox.LocalConfig{}), nil })},
		{name: "to NATS, which writes to disk later", run: drain(db, store, nats(lazy)), base: local},
		{name: "to NATS with sync_interval: always", run: drain(db, store, nats(synced)), base: local},
	}
	return b.report(ctx, fmt.Sprintf("Relay: a backlog of %s events, acknowledged by the broker and read", count(float64(b.config.Events))), "events/s", cases)
}

// drain measures a relay from the beginning of the log until the broker has acknowledged and brought all of it.
func drain(db *database, store *eventstore.Store, open func() (carrier, error)) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		head, err := store.Head(ctx)
		if err != nil {
			return sample{}, err
		}
		broker, err := open()
		if err != nil {
			return sample{}, err
		}
		defer broker.Close()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		name := fmt.Sprintf("drain_%d", time.Now().UnixNano()) // a cursor and a topic of its own
		messages, err := broker.Subscribe(ctx, name)
		if err != nil {
			return sample{}, err
		}
		start := time.Now()
		ended := make(chan error, 1)
		go func() {
			ended <- outbox.NewRelay(store, broker, outbox.RelayConfig{Pool: db.pool, Topic: name, Name: name}).Run(ctx)
		}()
		for at := int64(0); at < head.Position; {
			select {
			case err := <-ended:
				return sample{}, fmt.Errorf("the relay ended early: %w", err)
			case m := <-messages:
				run, err := outbox.DecodeRun(m.Payload)
				if err != nil {
					return sample{}, err
				}
				if run.First != at+1 {
					return sample{}, fmt.Errorf("got a run from %d after %d", run.First, at)
				}
				at = run.Last()
				m.Ack()
			}
		}
		// The subscriber may have been faster than the acknowledgement of the last run.
		for {
			var at int64
			err := db.pool.QueryRow(ctx, "select position from checkpoints where name = $1", name).Scan(&at)
			if err != nil {
				return sample{}, fmt.Errorf("reading the cursor: %w", err)
			}
			if at == head.Position {
				break
			}
		}
		rate := float64(head.Position) / time.Since(start).Seconds()
		cancel()
		return sample{rate: rate}, <-ended
	}
}

// startNATS starts a server with JetStream and returns its address.
func startNATS(ctx context.Context, program, dir, sync string) (url string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("looking for a free port: %w", err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("making a folder: %w", err)
	}
	file := filepath.Join(dir, "nats.conf")
	config := fmt.Sprintf("listen: %q\njetstream { store_dir: %q, sync_interval: %q, max_file_store: 32GB }\n", address, dir, sync)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return "", nil, fmt.Errorf("writing the configuration of NATS: %w", err)
	}
	server := exec.CommandContext(context.WithoutCancel(ctx), program, "-c", file)
	if err := server.Start(); err != nil {
		return "", nil, fmt.Errorf("starting nats-server: %w", err)
	}
	stop = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
			return "nats://" + address, stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	return "", nil, ctx.Err()
}
