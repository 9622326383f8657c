package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// deadline is the one time limit of a test's waits. It ends with the test.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// longDeadline is that of a test that does much, and takes seconds where nothing else runs.
func longDeadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// until waits for what has no channel of its own.
func until(ctx context.Context, t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		}
	}
}

type added struct {
	N int64 `json:"n"`
}

func (added) EventType() string { return "test.added" }

type noise struct{}

func (noise) EventType() string { return "test.noise" }

// text is an event of any size.
type text struct {
	Text string `json:"text"`
}

func (text) EventType() string { return "test.text" }

// bundle is a migrated database with a store, and a projection into tables of its own.
type bundle struct {
	t     testing.TB
	ctx   context.Context
	pool  *pgxpool.Pool
	store *eventstore.Store
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return open(t, deadline(t), pgtest.Pool(t))
}

// setupLong is setup for a test that does much.
func setupLong(t testing.TB) *bundle {
	t.Helper()
	return open(t, longDeadline(t), pgtest.Pool(t))
}

// open is setup on a database that the test has made.
func open(t testing.TB, ctx context.Context, pool *pgxpool.Pool) *bundle {
	t.Helper()
	b := &bundle{t: t, ctx: ctx, pool: pool}
	registry, err := eventstore.NewRegistry(eventstore.Define[added](1), eventstore.Define[noise](1), eventstore.Define[text](1))
	if err != nil {
		t.Fatal(err)
	}
	if b.store, err = eventstore.Open(ctx, b.pool, registry, eventstore.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close(context.Background()) })
	b.exec(`create table sums (name text, stream text, sum bigint not null, times bigint not null, primary key (name, stream))`)
	return b
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.ctx, sql, args...); err != nil {
		b.t.Fatal(err)
	}
}

// add appends events in requests of up to size, over three streams, every third request with noise.
func (b *bundle) add(n, size int) {
	b.t.Helper()
	for i := 0; n > 0; i++ {
		var events []eventstore.Payload
		for ; n > 0 && len(events) < size; n-- {
			if i%3 == 2 {
				events = append(events, noise{})
			} else {
				events = append(events, added{N: int64(n)})
			}
		}
		stream := fmt.Sprintf("sum-%d", i%4)
		if _, err := b.store.Append(b.ctx, eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: events}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// addSQL is not idempotent on purpose: an event that is applied twice, or not at all, shows.
const addSQL = `
insert into sums (name, stream, sum, times)
select $1, stream, sum((data->>'n')::bigint), count(*) from unnest($2::text[], $3::jsonb[]) as e(stream, data) group by stream
on conflict (name, stream) do update set sum = sums.sum + excluded.sum, times = sums.times + excluded.times`

func applySums(name string) func(context.Context, pgx.Tx, []eventstore.Event) error {
	return func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		var streams, data []string
		for _, e := range events {
			streams, data = append(streams, e.Stream), append(data, string(e.Data))
		}
		_, err := tx.Exec(ctx, addSQL, name, streams, data)
		return err
	}
}

// sums is a subscription to what was added, into the table sums. The channel tells each checkpoint.
func sums(name string) (outbox.Subscription, *progress) {
	p := &progress{changed: make(chan struct{}, 1)}
	return outbox.Subscription{Name: name, Types: []string{"test.added"}, Apply: applySums(name), Committed: p.advance}, p
}

// progress collects what a consumer's Committed hook was told.
type progress struct {
	mu      sync.Mutex
	at      eventstore.Token
	changed chan struct{}
}

func (p *progress) advance(at eventstore.Token) {
	p.mu.Lock()
	p.at = at
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *progress) position() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at.Position
}

func (p *progress) reach(ctx context.Context, t testing.TB, position int64) {
	t.Helper()
	for p.position() < position {
		select {
		case <-p.changed:
		case <-ctx.Done():
			t.Fatalf("the checkpoint is at %d and should reach %d", p.position(), position)
		}
	}
}

// run starts something that runs until stop is called, which waits for its end.
func (b *bundle) run(what func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- what(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *bundle) head() int64 {
	b.t.Helper()
	head, err := b.store.Head(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return head.Position
}

// checkSums compares the projection with what the log says up to a position.
func (b *bundle) checkSums(name string, position int64) {
	b.t.Helper()
	type row struct {
		Stream     string
		Sum, Times int64
	}
	read := func(sql string, args ...any) []row {
		rows, err := b.pool.Query(b.ctx, sql, args...)
		if err != nil {
			b.t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			b.t.Fatal(err)
		}
		return all
	}
	want := read(`select stream, sum((data->>'n')::bigint)::bigint, count(*) from events
		where type = 'test.added' and position <= $1 group by stream order by stream`, position)
	got := read(`select stream, sum, times from sums where name = $1 order by stream`, name)
	if !slices.Equal(got, want) {
		b.t.Fatalf("%s is not what a replay gives:\n got %v\nwant %v", name, got, want)
	}
}

// statements counts what is sent to a database, by the text.
type statements struct {
	mu    sync.Mutex
	times map[string]int
}

func (s *statements) note(sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[sql]++
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.note(data.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *statements) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	s.note(data.SQL)
}

func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// most is how often that statement was sent which was sent most often of those that contain the text.
func (s *statements) most(containing string) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sql, times := range s.times {
		if strings.Contains(sql, containing) {
			most = max(most, times)
		}
	}
	return most
}

// traced is another process on the same database, with an account of what it sends.
func (b *bundle) traced() (*bundle, *statements) {
	b.t.Helper()
	sent := &statements{times: map[string]int{}}
	config := b.pool.Config()
	config.ConnConfig.Tracer = sent
	pool, err := pgxpool.NewWithConfig(b.ctx, config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	store, err := eventstore.Open(b.ctx, pool, b.store.Registry(), eventstore.Config{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = store.Close(context.Background()) })
	return &bundle{t: b.t, ctx: b.ctx, pool: pool, store: store}, sent
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
