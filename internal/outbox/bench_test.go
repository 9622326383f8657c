package outbox_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// fill writes events of about 300 bytes straight into the table: what is measured is reading them.
func (b *bundle) fill(n int) {
	b.exec(`insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
		select i, 1 + i / 1000, clock_timestamp(), gen_random_uuid(), 'sum-' || i % 1000, 'test.added', 1,
			jsonb_build_object('n', i, 'text', repeat('x', 280)), jsonb_build_object('actor', repeat('y', 130))
		from generate_series(1, $1::int) i`, n)
	b.exec(`vacuum analyze events`)
}

// told is a publisher that hands each message's last position to a channel.
type told chan string

func (told) Close() error { return nil }

func (c told) Publish(_ string, messages ...*message.Message) error {
	for _, msg := range messages {
		c <- msg.Metadata.Get(outbox.MetaLast)
	}
	return nil
}

// BenchmarkRelay drains a backlog; an operation is one event.
func BenchmarkRelay(b *testing.B) {
	s := setup(b)
	n := max(b.N, 1000)
	s.fill(n)
	c := make(told)
	b.ResetTimer()
	s.run(outbox.NewRelay(s.store, c, outbox.RelayConfig{Pool: s.pool}).Run)
	for last := int64(0); last < int64(n); {
		msg := <-c
		last = 0
		for _, digit := range msg {
			last = 10*last + int64(digit-'0')
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkConsumer catches up with a backlog; an operation is one event.
func BenchmarkConsumer(b *testing.B) {
	for name, apply := range map[string]func(context.Context, pgx.Tx, []eventstore.Event) error{
		"nothing": func(context.Context, pgx.Tx, []eventstore.Event) error { return nil },
		"sums":    applySums("sums_v1"),
	} {
		b.Run(name, func(b *testing.B) {
			s := setup(b)
			n := max(b.N, 1000)
			s.fill(n)
			sub, at := sums("sums_v1")
			sub.Apply = apply
			b.ResetTimer()
			s.run(outbox.NewConsumer(s.pool, s.store, nil, sub, outbox.ConsumerConfig{}).Run)
			at.reach(s.ctx, b, int64(n))
			b.StopTimer()
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkCommitToSubscriber appends 1,000 events a second and reports how old they are, by the database's clock under
// the log's lock, when a subscriber of Local receives them.
func BenchmarkCommitToSubscriber(b *testing.B) {
	s := setup(b)
	local := outbox.NewLocal(outbox.LocalConfig{})
	defer local.Close()
	messages, err := local.Subscribe(s.ctx, outbox.LogTopic)
	if err != nil {
		b.Fatal(err)
	}
	sub, at := sums("sums_v1")
	s.run(outbox.NewConsumer(s.pool, s.store, local, sub, outbox.ConsumerConfig{}).Run)
	at.reach(s.ctx, b, 0)
	s.run(outbox.NewRelay(s.store, local, outbox.RelayConfig{}).Run)
	ages := make([]time.Duration, 0, b.N)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(ages) < b.N {
			msg := receive(s.ctx, b, messages)
			now := time.Now()
			run, err := outbox.DecodeRun(msg.Payload)
			if err != nil {
				b.Error(err)
			}
			for _, e := range run.Events {
				ages = append(ages, now.Sub(e.RecordedAt))
			}
			msg.Ack()
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	for range b.N {
		<-tick.C
		go func() {
			r := eventstore.Request{Stream: "sum-1", Expected: eventstore.Any, Events: []eventstore.Payload{added{N: 1}}}
			if _, err := s.store.Append(s.ctx, r); err != nil {
				b.Error(err)
			}
		}()
	}
	<-done
	slices.Sort(ages)
	b.ReportMetric(float64(ages[len(ages)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(ages[len(ages)*99/100].Microseconds())/1000, "p99-ms")
}
