package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// poisons are the positions of events that cannot be handled, until they are mended.
type poisons struct {
	mu  sync.Mutex
	bad map[int64]bool
}

func poison(positions ...int64) *poisons {
	p := &poisons{bad: map[int64]bool{}}
	for _, position := range positions {
		p.bad[position] = true
	}
	return p
}

func (p *poisons) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = map[int64]bool{}
}

func (p *poisons) add(position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad[position] = true
}

func (p *poisons) judge(events ...eventstore.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		if p.bad[e.Position] {
			return fmt.Errorf("%d cannot be", e.Position)
		}
	}
	return nil
}

// trails is a projection that shows the order: of each stream, the positions as they were applied.
func (b *bundle) trails(name string, bad *poisons) (outbox.Subscription, *progress) {
	b.exec(`create table if not exists trails (name text, stream text, positions bigint[], primary key (name, stream))`)
	p := &progress{changed: make(chan struct{}, 1)}
	return outbox.Subscription{
		Name: name, Types: []string{"test.added"}, Committed: p.advance, OnFailure: outbox.Park,
		Apply: func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			var streams []string
			var positions []int64
			for _, e := range events {
				streams, positions = append(streams, e.Stream), append(positions, e.Position)
			}
			_, err := tx.Exec(ctx, `
				insert into trails select $1, stream, array_agg(position order by place)
				from unnest($2::text[], $3::bigint[]) with ordinality as e(stream, position, place) group by stream
				on conflict (name, stream) do update set positions = trails.positions || excluded.positions`, name, streams, positions)
			return errors.Join(err, bad.judge(events...))
		},
	}, p
}

// checkTrails compares the projection with a replay that leaves out what was skipped and what waits.
func (b *bundle) checkTrails(name string, position int64) {
	b.t.Helper()
	read := func(sql string, args ...any) map[string][]int64 {
		rows, err := b.pool.Query(b.ctx, sql, args...)
		if err != nil {
			b.t.Fatal(err)
		}
		all := map[string][]int64{}
		var stream string
		var positions []int64
		if _, err := pgx.ForEachRow(rows, []any{&stream, &positions}, func() error {
			all[stream] = slices.Clone(positions)
			return nil
		}); err != nil {
			b.t.Fatal(err)
		}
		return all
	}
	want := read(`select stream, array_agg(position order by position) from events e
		where type = 'test.added' and position <= $2
		and not exists (select from skipped_events s where s.checkpoint = $1 and s.position = e.position)
		and not exists (select from parked_streams p where p.checkpoint = $1 and p.stream = e.stream and p.position <= e.position)
		group by stream`, name, position)
	got := read(`select stream, positions from trails where name = $1`, name)
	if !maps.EqualFunc(got, want, slices.Equal) {
		b.t.Fatalf("%s is not what a replay gives:\n got %v\nwant %v", name, got, want)
	}
}

func (b *bundle) parked(name string) map[string]outbox.Parked {
	b.t.Helper()
	found, err := outbox.ListParked(b.ctx, b.pool, name, 10_000)
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]outbox.Parked{}
	for _, p := range found {
		all[p.Stream] = p
	}
	return all
}

// answered waits until the owner has done what was asked.
func (b *bundle) answered(name string) {
	b.t.Helper()
	until(b.ctx, b.t, "the owner does what was asked", func() bool {
		return b.count(`select count(*) from parked_streams where checkpoint = $1 and requested_at is not null`, name) == 0
	})
}

func (b *bundle) retry(name, stream string) {
	b.t.Helper()
	if asked, err := outbox.RetryParked(b.ctx, b.pool, name, stream, "ada"); err != nil || len(asked) == 0 {
		b.t.Fatalf("asked %v, %v", asked, err)
	}
	b.answered(name)
}

// unpark asks for retries until nothing is parked: a stream may be parked by an attempt that began before the mend.
func (b *bundle) unpark(name string) {
	b.t.Helper()
	until(b.ctx, b.t, "nothing is parked", func() bool {
		_, err := outbox.RetryParked(b.ctx, b.pool, name, "", "ada")
		// A connection of the pool may have been ended by the test; an operator would ask again too.
		return err == nil && b.count(`select count(*) from parked_streams where checkpoint = $1`, name) == 0
	})
}

// quick are the times of consumers that are asked for something.
func quick() outbox.ConsumerConfig {
	return outbox.ConsumerConfig{
		Probe: 5 * time.Millisecond, RequestPoll: time.Millisecond, RetryMax: time.Millisecond, MoveAfter: time.Millisecond,
		Standby: time.Millisecond, TTL: never, Logger: quiet(), // attempts are counted, and a lost lease makes one more
	}
}

func TestPoisonParksItsStreamAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(4000, 40)
	const bad = 1931 // of sum-0: in the middle of the one batch
	sub, at := b.trails("trails_v1", poison(bad))
	apply := sub.Apply
	var calls atomic.Int64
	sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		calls.Add(1)
		return apply(ctx, tx, events)
	}
	cfg := quick()
	cfg.Batch = 4000
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
	b.run(c.Run)
	at.reach(b.ctx, t, 4000)
	b.checkTrails("trails_v1", 4000)
	all := b.parked("trails_v1")
	if len(all) != 1 {
		t.Fatalf("parked are %v", all)
	}
	for stream, p := range all {
		if p.Position != bad || p.Type != "test.added" || p.Reason != "1931 cannot be" || p.Attempts != 1 || p.Waiting < 2 {
			t.Fatalf("%s is parked as %+v", stream, p)
		}
		events, err := outbox.ListWaiting(b.ctx, b.pool, "trails_v1", stream, 5, 3)
		if err != nil || len(events) != 3 || events[0].Position != bad || len(events[0].Data) != 5 || !events[0].Cut {
			t.Fatalf("waiting are %+v, %v", events, err)
		}
	}
	if n := calls.Load(); n > 2*12+2 { // twice the depth of halving 4,000
		t.Errorf("one bad event of 4,000 took %d attempts", n)
	}
	if s := c.Status(); s.Parked != 1 || !s.HaltedAt.IsZero() {
		t.Fatalf("the status is %+v", s)
	}
	b.add(40, 4) // events of the parked stream wait, the others flow
	at.reach(b.ctx, t, b.head())
	b.checkTrails("trails_v1", b.head())
}

func TestManyPoisonsInOneBatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 60 {
		b.append(fmt.Sprintf("sum-%d", i), 5)
	}
	bad := poison()
	for i := range 20 {
		bad.add(int64(i*15 + 3)) // the third of five events of every third stream
	}
	sub, at := b.trails("trails_v1", bad)
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
	at.reach(b.ctx, t, 300)
	if n := len(b.parked("trails_v1")); n != 20 {
		t.Fatalf("%d streams are parked", n)
	}
	b.checkTrails("trails_v1", 300)
	bad.mend()
	b.retry("trails_v1", "")
	if n := len(b.parked("trails_v1")); n != 0 {
		t.Fatalf("%d streams are still parked", n)
	}
	b.checkTrails("trails_v1", 300)
}

func TestSkipMustBeAskedForAndIsRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(200, 1)
	sub, at := b.trails("trails_v1", poison(5, 6, 101))
	sub.OnFailure = outbox.Skip
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
	at.reach(b.ctx, t, 199) // the last one is noise
	b.checkTrails("trails_v1", 200)
	skipped, err := outbox.ListSkipped(b.ctx, b.pool, "trails_v1", 10)
	if err != nil || len(skipped) != 2 { // 6 is noise
		t.Fatalf("skipped are %+v, %v", skipped, err)
	}
	if s := skipped[0]; s.Position != 101 || s.Reason != "101 cannot be" || s.By != "policy" || s.Type != "test.added" {
		t.Fatalf("skipped is %+v", s)
	}
	if err := outbox.NewConsumer(b.pool, b.store, nil, outbox.Subscription{
		Name: "x", Apply: sub.Apply, OnFailure: "drop",
	}, quick()).Run(b.ctx); err == nil {
		t.Fatal("any word is a policy")
	}
}

func TestRetryAfterAMend(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append("sum-a", 10)
	b.append("sum-b", 10)
	bad := poison(4, 8)
	sub, at := b.trails("trails_v1", bad)
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
	at.reach(b.ctx, t, 20)
	if p := b.parked("trails_v1")["sum-a"]; p.Position != 4 || p.Waiting != 7 {
		t.Fatalf("parked is %+v", p)
	}
	b.retry("trails_v1", "sum-a") // in vain
	if p := b.parked("trails_v1")["sum-a"]; p.Position != 4 || p.Attempts != 2 {
		t.Fatalf("parked is %+v", p)
	}
	bad.mu.Lock()
	delete(bad.bad, 4) // the next one still cannot be
	bad.mu.Unlock()
	b.retry("trails_v1", "sum-a")
	if p := b.parked("trails_v1")["sum-a"]; p.Position != 8 || p.Attempts != 3 || p.Reason != "8 cannot be" || p.Waiting != 3 {
		t.Fatalf("parked is %+v", p)
	}
	b.checkTrails("trails_v1", 20)
	b.append("sum-a", 2)
	at.reach(b.ctx, t, 22)
	bad.mend()
	b.retry("trails_v1", "sum-a")
	b.append("sum-a", 1)
	at.reach(b.ctx, t, 23)
	if n := len(b.parked("trails_v1")); n != 0 {
		t.Fatalf("%d are parked", n)
	}
	b.checkTrails("trails_v1", 23)
}

func TestSkipOfAParkedEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append("sum-a", 10)
	sub, at := b.trails("trails_v1", poison(4, 8, 10))
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
	at.reach(b.ctx, t, 10)
	for i, next := range []int64{8, 10} {
		asked, err := outbox.SkipParked(b.ctx, b.pool, "trails_v1", "sum-a", "ada", "nobody misses it")
		if err != nil || len(asked) != 1 {
			t.Fatalf("asked %v, %v", asked, err)
		}
		b.answered("trails_v1")
		if p := b.parked("trails_v1")["sum-a"]; p.Position != next {
			t.Fatalf("after %d skips parked is %+v", i+1, p)
		}
		b.checkTrails("trails_v1", 10)
	}
	if _, err := outbox.SkipParked(b.ctx, b.pool, "trails_v1", "sum-a", "ada", "nor this"); err != nil {
		t.Fatal(err)
	}
	b.answered("trails_v1")
	b.checkTrails("trails_v1", 10)
	skipped, err := outbox.ListSkipped(b.ctx, b.pool, "", 10)
	if err != nil || len(skipped) != 3 || skipped[0].By != "ada" || skipped[0].Reason != "nor this" || skipped[0].Position != 10 {
		t.Fatalf("skipped are %+v, %v", skipped, err)
	}
	if asked, err := outbox.SkipParked(b.ctx, b.pool, "trails_v1", "sum-a", "ada", "again"); err != nil || len(asked) != 0 {
		t.Fatalf("asked %v, %v", asked, err)
	}
}

// The retry of a stream that goes on meanwhile leaves no hole and repeats nothing.
func TestRetryUnderLoad(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	b.append("sum-0", 50)
	bad := poison(10)
	sub, at := b.trails("trails_v1", bad)
	cfg := quick()
	cfg.Batch = 7
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
	at.reach(b.ctx, t, 50)
	ctx, stop := context.WithCancel(b.ctx)
	var appending sync.WaitGroup
	defer appending.Wait()
	defer stop()
	for i := range 3 {
		appending.Go(func() {
			for ctx.Err() == nil {
				if head, _ := b.store.Committed(); head > at.position()+300 { // a slow consumer would never come to what is bad
					select {
					case <-at.changed:
					case <-ctx.Done():
					}
					continue
				}
				b.append(fmt.Sprintf("sum-%d", i), 1)
			}
		})
	}
	for range 5 {
		bad.mend()
		b.unpark("trails_v1")
		for i := range 50 {
			bad.add(b.head() + int64(i) + 1)
		}
		until(b.ctx, t, "it is parked again", func() bool { return len(b.parked("trails_v1")) > 0 })
	}
	bad.mend()
	b.unpark("trails_v1")
	stop()
	appending.Wait()
	at.reach(b.ctx, t, b.head())
	b.checkTrails("trails_v1", b.head())
}

func TestTooManyParkedStreamsHalt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := poison()
	for i := range 5 {
		b.append(fmt.Sprintf("sum-%d", i), 2)
		bad.add(int64(2*i + 1))
	}
	sub, at := b.trails("trails_v1", bad)
	cfg := quick()
	cfg.ParkedMax = 3
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
	stop := b.run(c.Run)
	until(b.ctx, t, "it halts", func() bool { return !c.Status().HaltedAt.IsZero() })
	if s := c.Status(); s.Position != 6 || !strings.Contains(s.HaltReason, "3 streams are parked already") {
		t.Fatalf("the status is %+v", s)
	}
	stop()
	b.checkTrails("trails_v1", 6)
	bad.mend()
	if _, err := outbox.RetryParked(b.ctx, b.pool, "trails_v1", "", "ada"); err != nil {
		t.Fatal(err)
	}
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
	at.reach(b.ctx, t, 10)
	b.answered("trails_v1")
	b.checkTrails("trails_v1", 10)
}

func TestWhatPassesIsNoPoison(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append("sum-a", 20)
	for _, code := range []string{"40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "08006", "08000", "53300"} {
		name := "trails_" + strings.ToLower(code)
		sub, at := b.trails(name, poison())
		apply := sub.Apply
		var failures, largest atomic.Int64
		sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			if failures.Add(1) <= 3 {
				_, err := tx.Exec(ctx, fmt.Sprintf(`do $$ begin raise exception using errcode = '%s'; end $$`, code))
				return err
			}
			largest.Store(int64(len(events)))
			return apply(ctx, tx, events)
		}
		stop := b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
		at.reach(b.ctx, t, 20)
		stop()
		if len(b.parked(name)) != 0 || largest.Load() != 20 {
			t.Fatalf("%s: parked are %v, the batch has %d", code, b.parked(name), largest.Load())
		}
		b.checkTrails(name, 20)
	}
}

func TestZombieParksAndSkipsNothing(t *testing.T) {
	t.Parallel()
	for _, policy := range []outbox.OnFailure{outbox.Park, outbox.Skip} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.append("sum-a", 1)
			sub, _ := b.trails("trails_v1", poison(1))
			sub.OnFailure = policy
			asleep, wake := make(chan struct{}), make(chan struct{})
			var once sync.Once
			apply := sub.Apply
			sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
				once.Do(func() { close(asleep); <-wake })
				return apply(context.WithoutCancel(ctx), tx, events)
			}
			cfg := quick()
			cfg.TTL = time.Hour
			zombie := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
			b.run(zombie.Run)
			<-asleep
			b.exec(`update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'successor',
				lease_until = clock_timestamp() + interval '1 hour' where name = 'trails_v1'`)
			close(wake)
			until(b.ctx, t, "the zombie notices", func() bool { return !zombie.Status().Owner })
			if n := b.count(`select (select count(*) from parked_streams) + (select count(*) from skipped_events)
				+ (select parked + parked_changes from checkpoints where name = 'trails_v1')`); n != 0 {
				t.Fatal("the zombie wrote something")
			}
		})
	}
}

func TestReactorsParkAndSkip(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append("sum-a", 5)
	b.append("sum-b", 5)
	bad := poison(2, 4)
	var mu sync.Mutex
	seen := map[string][]int64{}
	reactor := func(name string, policy outbox.OnFailure) (outbox.Subscription, *progress) {
		p := &progress{changed: make(chan struct{}, 1)}
		return outbox.Subscription{
			Name: name, OnFailure: policy, Committed: p.advance,
			React: func(_ context.Context, e eventstore.Event) error {
				if err := bad.judge(e); err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				seen[name] = append(seen[name], e.Position)
				return nil
			},
		}, p
	}
	saw := func(name string, want ...int64) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(seen[name], want) {
			t.Fatalf("%s saw %v, want %v", name, seen[name], want)
		}
	}
	parks, parksAt := reactor("parks", outbox.Park)
	skips, skipsAt := reactor("skips", outbox.Skip)
	b.run(outbox.NewConsumer(b.pool, b.store, nil, parks, quick()).Run)
	b.run(outbox.NewConsumer(b.pool, b.store, nil, skips, quick()).Run)
	parksAt.reach(b.ctx, t, 10)
	skipsAt.reach(b.ctx, t, 10)
	saw("parks", 1, 6, 7, 8, 9, 10)
	saw("skips", 1, 3, 5, 6, 7, 8, 9, 10)
	if asked, err := outbox.SkipParked(b.ctx, b.pool, "parks", "sum-a", "ada", "no"); err != nil || len(asked) != 1 {
		t.Fatalf("asked %v, %v", asked, err)
	}
	b.answered("parks")
	saw("parks", 1, 6, 7, 8, 9, 10, 3)
	if p := b.parked("parks")["sum-a"]; p.Position != 4 || p.Attempts != 2 {
		t.Fatalf("parked is %+v", p)
	}
	bad.mend()
	b.retry("parks", "sum-a")
	saw("parks", 1, 6, 7, 8, 9, 10, 3, 4, 5)
}

// append adds events to a stream.
func (b *bundle) append(stream string, n int) {
	events := make([]eventstore.Payload, n)
	for i := range events {
		events[i] = added{N: int64(i)}
	}
	if _, err := b.store.Append(b.ctx, eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: events}); err != nil {
		b.t.Error(err)
	}
}
