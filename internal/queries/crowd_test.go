package queries_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/migrations"
)

// process is what one process has to follow a log with.
type process struct {
	store *eventstore.Store
	tail  *queries.Tail
}

// processes are several on one database.
func (b *bundle) processes(t *testing.T, n int, cfg queries.TailConfig) []process {
	t.Helper()
	var out []process
	for range n {
		store, err := eventstore.Open(t.Context(), b.pool, b.registry, eventstore.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) })
		tail := queries.NewTail(store, cfg)
		background(t, tail.Run)
		out = append(out, process{store: store, tail: tail})
	}
	return out
}

// steadily appends events of three types to seven streams, twenty at once through one process after the other, some 2,000
// a second, and then one more of each type to each stream, so that every subscriber can tell when it has all.
func steadily(t *testing.T, all []process, total int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	add := func(i int, stream string, events ...eventstore.Payload) {
		request := eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: events}
		if _, err := all[i%len(all)].store.Append(t.Context(), request); err != nil {
			t.Error(err)
		}
	}
	for i := range total / 20 {
		<-tick.C
		events := make([]eventstore.Payload, 20)
		for n := range events {
			switch {
			case i%25 == 0 && n == 7:
				events[n] = noted{Note: "seldom"}
			case n%3 == 0:
				events[n] = unrelated{Text: "x"}
			default:
				events[n] = counted{By: n}
			}
		}
		add(i, streamName(i%7), events...)
	}
	for i := range 7 {
		add(i, streamName(i), counted{}, noted{}, unrelated{})
	}
}

// subscriber is one of a crowd.
type subscriber struct {
	after  int64
	filter queries.EventFilter
	slow   bool // stops in the middle until the appending is over
	got    []int64
}

func newSubscriber(i int, head int64) *subscriber {
	s := &subscriber{after: rand.Int64N(head + 1), slow: i%10 == 0}
	switch i % 5 {
	case 1:
		s.filter.Stream = streamName(i % 7)
	case 2:
		s.filter.Types = []string{"tally.noted"}
	case 3:
		s.filter = queries.EventFilter{Stream: streamName(i % 7), Types: []string{"tally.noted", "other.happened"}}
	case 4:
		s.filter.Types = []string{"tally.noted", "tally.counted"}
	}
	return s
}

// follow reads up to the first event beyond the total.
func (s *subscriber) follow(t *testing.T, ctx context.Context, tail *queries.Tail, total int64, over <-chan struct{}) {
	events, err := tail.Events(ctx, &s.after, s.filter)
	if err != nil {
		t.Error(err)
		return
	}
	for e, err := range events {
		if err != nil {
			t.Error(err)
			return
		}
		if e.Position > total {
			return
		}
		if s.got = append(s.got, e.Position); s.slow && len(s.got) == 10 {
			<-over
		}
	}
	t.Errorf("a subscription of %+v after %d ended at %v", s.filter, s.after, s.got[max(0, len(s.got)-1):])
}

// Two hundred subscribers of two processes, who come at any time and begin anywhere, all at once or by stream and type, some of
// them slow, each see exactly their part of the log.
func TestCrowdSeesExactlyItsRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const total = 6000
	all := b.processes(t, 2, queries.TailConfig{Keep: 1000, Readers: 2})
	b.append(t, streamName(0), slices.Repeat([]eventstore.Payload{counted{By: 1}}, 100)...)
	ctx, over := deadline(t), make(chan struct{})
	var appending, following sync.WaitGroup
	appending.Go(func() {
		steadily(t, all, total-100)
		close(over)
	})
	crowd := make([]*subscriber, 200)
	for i := range crowd {
		head, err := all[i%2].store.Head(ctx)
		require.NoError(t, err)
		crowd[i] = newSubscriber(i, min(head.Position, total))
		following.Go(func() { crowd[i].follow(t, ctx, all[i%2].tail, total, over) })
	}
	following.Wait()
	appending.Wait()
	var log []eventstore.Event
	for e, err := range b.store.Log(t.Context(), eventstore.LogQuery{Until: total}) {
		require.NoError(t, err)
		log = append(log, e)
	}
	for _, s := range crowd {
		var want []int64
		for _, e := range log {
			if e.Position > s.after && (s.filter.Stream == "" || e.Stream == s.filter.Stream) &&
				(len(s.filter.Types) == 0 || slices.Contains(s.filter.Types, e.Type)) {
				want = append(want, e.Position)
			}
		}
		require.Equal(t, want, s.got, "%+v after %d", s.filter, s.after)
	}
	for _, p := range all {
		require.Zero(t, p.tail.Subscribers())
	}
}

// inFlight counts the statements that run at the same time.
type inFlight struct{ now, most atomic.Int64 }

func (f *inFlight) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	now := f.now.Add(1)
	for most := f.most.Load(); now > most && !f.most.CompareAndSwap(most, now); most = f.most.Load() {
	}
	return ctx
}

func (f *inFlight) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) { f.now.Add(-1) }

// Many who come at once and have much to read take turns: they leave the connections to others.
func TestResumesLeaveConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const total, resumes = 1500, 300
	for range total / 100 {
		b.append(t, "tally-a", slices.Repeat([]eventstore.Payload{counted{By: 1}}, 100)...)
	}
	counter := &inFlight{}
	cfg := b.pool.Config()
	cfg.ConnConfig.Tracer, cfg.MaxConns = counter, 20
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	store, err := eventstore.Open(t.Context(), pool, b.registry, eventstore.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	tail := queries.NewTail(store, queries.TailConfig{Readers: 3, Keep: 10, PollMin: time.Hour, PollMax: time.Hour})
	background(t, tail.Run)
	counter.most.Store(0)
	var all sync.WaitGroup
	for i := range resumes {
		all.Go(func() {
			after := int64(i)
			got := take(t, tail, &after, queries.EventFilter{}, total-i)
			for n, e := range got {
				if e.Position != after+int64(n)+1 {
					t.Errorf("position %d in the place of %d", e.Position, after+int64(n)+1)
					return
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, counter.most.Load(), int64(3+1+1), "statements at once, with the tail's own reading and the store's look, once a second")
	require.Greater(t, counter.most.Load(), int64(1))
}

// Subscriptions outlive a crash of Postgres, those that wait as well as those that read the past.
func TestSubscriptionsOutliveACrash(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	pool, err := pgxpool.New(t.Context(), cluster.URL())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrations.Up(t.Context(), pool))
	store, err := eventstore.Open(t.Context(), pool, registry(t), eventstore.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	b := &bundle{pool: pool, store: store, registry: registry(t)}
	tail := queries.NewTail(store, queries.TailConfig{
		Keep: 50, PollMin: time.Millisecond, PollMax: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	background(t, tail.Run)
	const before, after = 1000, 200
	b.append(t, "tally-a", slices.Repeat([]eventstore.Payload{counted{By: 1}}, before)...)
	halfway, restarted := make(chan struct{}, 3), make(chan struct{})
	var all sync.WaitGroup
	for i, from := range []int64{0, before - 10, before} {
		filter := queries.EventFilter{}
		if i == 1 {
			filter.Stream = "tally-a"
		}
		all.Go(func() {
			events, err := tail.Events(deadline(t), &from, filter)
			if err != nil {
				t.Error(err)
				return
			}
			if from == before { // waits for what does not come before the crash
				halfway <- struct{}{}
			}
			for e, err := range events {
				if from++; err != nil || e.Position != from {
					t.Errorf("position %d in the place of %d: %v", e.Position, from, err)
					return
				}
				if from == before-5 {
					halfway <- struct{}{}
					<-restarted
				}
				if from == before+after {
					return
				}
			}
			t.Errorf("the subscription ended at %d", from)
		})
	}
	for range 3 {
		<-halfway
	}
	require.NoError(t, cluster.Stop("immediate"))
	require.NoError(t, cluster.Start())
	close(restarted)
	patience := deadline(t)
	for n := 0; n < after; { // what the crash cut off was not written: nothing was under way
		events := slices.Repeat([]eventstore.Payload{counted{By: 1}}, 20)
		_, err := store.Append(deadline(t), eventstore.Request{Stream: "tally-a", Expected: eventstore.Exact(before + int64(n)), Events: events})
		if err == nil {
			n += len(events)
		}
		require.NoError(t, patience.Err())
	}
	all.Wait()
}
