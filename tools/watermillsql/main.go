// Command watermillsql is the baseline of `make bench` for delivery: Watermill's own outbox, which is watermill-sql's
// publisher inside a transaction, its subscriber, and the Forwarder, to a gochannel, with the settings that they come with.
//
//	watermillsql drain URL N        publishes N messages, then measures how fast they arrive
//	watermillsql live URL WRITERS DURATION   publishes and delivers at the same time
//
// Each message's payload is what stands on standard input. It prints the messages per second that arrived, and for live
// the median and the 99th percentile of a publish in milliseconds.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "watermillsql:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if len(args) < 3 {
		return errors.New("give drain URL N, or live URL WRITERS DURATION")
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	cfg, err := pgxpool.ParseConfig(args[1])
	if err != nil {
		return err
	}
	cfg.MaxConns = 140
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	b := &baseline{pool: pool, payload: bytes.TrimSpace(payload)}
	if args[0] == "drain" {
		return b.drain(ctx, n)
	}
	if len(args) < 4 {
		return errors.New("give live URL WRITERS DURATION")
	}
	d, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	return b.live(ctx, n, d)
}

const topic = "events"

type baseline struct {
	pool    *pgxpool.Pool
	payload []byte
}

func (b *baseline) message() *message.Message {
	return message.NewMessage(watermill.NewUUID(), slices.Clone(b.payload))
}

// publisher puts messages into the Forwarder's table, through whatever executes statements.
func publisher(on sql.ContextExecutor, initialize bool) (message.Publisher, error) {
	p, err := sql.NewPublisher(on, sql.PublisherConfig{SchemaAdapter: sql.DefaultPostgreSQLSchema{}, AutoInitializeSchema: initialize}, nil)
	if err != nil {
		return nil, err
	}
	return forwarder.NewPublisher(p, forwarder.PublisherConfig{}), nil
}

// forward starts the Forwarder, and returns what arrives.
func (b *baseline) forward(ctx context.Context) (<-chan *message.Message, error) {
	subscriber, err := sql.NewSubscriber(sql.BeginnerFromPgx(b.pool), sql.SubscriberConfig{
		SchemaAdapter: sql.DefaultPostgreSQLSchema{}, OffsetsAdapter: sql.DefaultPostgreSQLOffsetsAdapter{}, InitializeSchema: true,
	}, nil)
	if err != nil {
		return nil, err
	}
	channel := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 1000}, nil)
	messages, err := channel.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	f, err := forwarder.NewForwarder(subscriber, channel, watermill.NopLogger{}, forwarder.Config{})
	if err != nil {
		return nil, err
	}
	go func() { _ = f.Run(ctx) }()
	select {
	case <-f.Running():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return messages, nil
}

// drain publishes ten messages in each statement, which is a transaction, and then lets the Forwarder begin.
func (b *baseline) drain(ctx context.Context, n int) error {
	out, err := publisher(sql.BeginnerFromPgx(b.pool), true)
	if err != nil {
		return err
	}
	const workers, together = 32, 10
	if err := out.Publish(topic, b.message()); err != nil { // makes the table
		return err
	}
	err = parallel(workers, func(w int) error {
		for at := w * together; at < n-1; at += workers * together {
			messages := make([]*message.Message, min(together, n-1-at))
			for i := range messages {
				messages[i] = b.message()
			}
			if err := out.Publish(topic, messages...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	start := time.Now()
	messages, err := b.forward(ctx)
	if err != nil {
		return err
	}
	for range n {
		select {
		case m := <-messages:
			m.Ack()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Println(float64(n) / time.Since(start).Seconds())
	return nil
}

// live has writers publish one message in each transaction, and counts what arrives meanwhile.
func (b *baseline) live(ctx context.Context, writers int, d time.Duration) error {
	out, err := publisher(sql.BeginnerFromPgx(b.pool), true)
	if err != nil {
		return err
	}
	messages, err := b.forward(ctx)
	if err != nil {
		return err
	}
	if err := out.Publish(topic, b.message()); err != nil { // makes the table
		return err
	}
	(<-messages).Ack()
	var arrived atomic.Int64
	go func() {
		for m := range messages {
			m.Ack()
			arrived.Add(1)
		}
	}()
	start := time.Now()
	took := make([][]time.Duration, writers)
	err = parallel(writers, func(w int) error {
		for time.Since(start) < d {
			begin := time.Now()
			if err := b.publishInTransaction(ctx); err != nil {
				return err
			}
			took[w] = append(took[w], time.Since(begin))
		}
		return nil
	})
	if err != nil {
		return err
	}
	rate := float64(arrived.Load()) / time.Since(start).Seconds()
	all := slices.Concat(took...)
	slices.Sort(all)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	fmt.Println(rate, ms(all[len(all)/2]), ms(all[len(all)*99/100]))
	return nil
}

func (b *baseline) publishInTransaction(ctx context.Context) error {
	tx, err := b.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // of what was committed it does nothing
	out, err := publisher(sql.TxFromPgx(tx), false)
	if err != nil {
		return err
	}
	if err := out.Publish(topic, b.message()); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// parallel runs f for each of n workers and returns what went wrong first.
func parallel(n int, f func(worker int) error) error {
	var wg sync.WaitGroup
	failures := make(chan error, n)
	for w := range n {
		wg.Go(func() {
			if err := f(w); err != nil {
				failures <- err
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
