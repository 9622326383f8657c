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

// drainSection drains backlogs of two sizes through each broker in turn: by a leased relay, which records after each run how
// far the broker has acknowledged, to a subscriber that reads every run. Beside it Watermill's own outbox drains backlogs
// that are a tenth and a half of the smaller one, of the same payload.
func (b *bench) drainSection(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-drain")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "nats-server")
	if err := build(ctx, "-modfile=tools/go.mod", "-o", program, "github.com/nats-io/nats-server/v2"); err != nil {
		return err
	}
	baseline, err := buildBaseline(ctx, dir)
	if err != nil {
		return err
	}
	small, large := b.config.Events, 10*b.config.Events
	var cases []benchCase
	for _, size := range []int{small, large} {
		backlog, closeBacklog, err := b.backlog(ctx, size)
		if err != nil {
			return err
		}
		defer closeBacklog()
		cases = append(cases, backlog.cases(program, dir, toLocal(small))...)
	}
	for _, size := range []int{small / 10, small / 2} {
		cases = append(cases, benchCase{
			name: "watermill-sql's Forwarder to gochannel, " + count(float64(size)), run: b.baseline(baseline, "drain", size), base: toLocal(small),
		})
	}
	return b.report(ctx, "Relay: a backlog, acknowledged by the broker and read", "events/s", cases)
}

func toLocal(size int) string { return "to local, " + count(float64(size)) }

// backlog is a log that waits to be published.
type backlog struct {
	size  int
	db    *database
	store *eventstore.Store
}

func (b *bench) backlog(ctx context.Context, size int) (*backlog, func(), error) {
	fmt.Fprintf(os.Stderr, "a backlog of %s events\n", count(float64(size)))
	db, err := b.database(ctx)
	if err != nil {
		return nil, nil, err
	}
	store, err := b.open(ctx, db)
	if err == nil {
		err = generate(ctx, db, size)
	}
	if err != nil {
		db.drop()
		return nil, nil, err
	}
	return &backlog{size, db, store}, func() {
		_ = store.Close(ctx)
		db.drop()
	}, nil
}

// cases drain the backlog to each broker. The ratio of local's is to the small backlog, the others' to local's. Each run has
// a server of its own, which holds nothing of the one before.
func (l *backlog) cases(program, dir, small string) []benchCase {
	nats := func(sync string) func(context.Context) (carrier, error) {
		return func(ctx context.Context) (carrier, error) { return openNATS(ctx, program, dir, sync) }
	}
	local, size := toLocal(l.size), count(float64(l.size))
	return []benchCase{
		{
			name: local, base: small, note: "60,000/s",
			run: drain(l.db, l.store, func(context.Context) (carrier, error) { return outbox.NewLocal(outbox.LocalConfig{}), nil }),
		},
		{name: "to NATS, which writes to disk later, " + size, run: drain(l.db, l.store, nats("2m")), base: local},
		{name: "to NATS with sync_interval: always, " + size, run: drain(l.db, l.store, nats("always")), base: local},
	}
}

// generate writes events straight into the log, ten to a stream: a log of millions is not worth the wait for appends.
func generate(ctx context.Context, db *database, events int) error {
	_, err := db.pool.Exec(ctx, `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select n, (n - 1) % 10 + 1, now(), gen_random_uuid(), 'bench-' || lpad(((n - 1) / 10)::text, 36, '0'), 'bench.happened', 1, $2, $3
from generate_series(1, $1) n`, events, benchData, benchMetadata)
	if err != nil {
		return fmt.Errorf("writing the backlog: %w", err)
	}
	return settle(ctx, db)
}

// settle does at once what Postgres would do in the middle of a measurement.
func settle(ctx context.Context, db *database) error {
	for _, then := range []string{"vacuum analyze events", "checkpoint"} {
		if _, err := db.pool.Exec(ctx, then); err != nil {
			return fmt.Errorf("%s: %w", then, err)
		}
	}
	return nil
}

// build builds a program in the repository's folder.
func build(ctx context.Context, arguments ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, arguments...)...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s, in the repository's folder: %w", arguments[len(arguments)-1], err)
	}
	return nil
}

// drain measures a relay from the beginning of the log until the broker has acknowledged and brought all of it.
func drain(db *database, store *eventstore.Store, open func(context.Context) (carrier, error)) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		head, err := store.Head(ctx)
		if err != nil {
			return sample{}, err
		}
		broker, err := open(ctx)
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

// ownNATS is a connection to a server that ends with it.
type ownNATS struct {
	*natsjs.Broker
	stop func()
}

// Close closes the connection, stops the server and deletes what it holds.
func (n *ownNATS) Close() error {
	defer n.stop()
	return n.Broker.Close()
}

func openNATS(ctx context.Context, program, within, sync string) (*ownNATS, error) {
	dir, err := os.MkdirTemp(within, "nats")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	url, stop, err := startNATS(ctx, program, dir, sync)
	if err != nil {
		return nil, err
	}
	remove := func() {
		stop()
		_ = os.RemoveAll(dir)
	}
	broker, err := natsjs.Open(natsjs.Config{URL: url, MaxBytes: 8 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		remove()
		return nil, err
	}
	return &ownNATS{broker, remove}, nil
}

// startNATS starts a server with JetStream and returns its address.
func startNATS(ctx context.Context, program, dir, sync string) (url string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("looking for a free port: %w", err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
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
