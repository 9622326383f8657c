package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// chaotic has the database end connections at the commit of some of the transactions that touch parked streams or skipped
// events: what they did is lost whole.
func (b *bundle) chaotic() {
	b.exec(`create function chaos() returns trigger language plpgsql as
		$$ begin if random() < 0.15 then perform pg_terminate_backend(pg_backend_pid()); end if; return null; end $$`)
	for _, table := range []string{"parked_streams", "skipped_events"} {
		b.exec(fmt.Sprintf(`create constraint trigger chaos after insert or update or delete on %s
			deferrable initially deferred for each row execute function chaos()`, table))
	}
}

// fleet is two processes with one projection, of which one stands by. They end at moments of their own, and others come.
type fleet struct {
	b      *bundle
	sub    outbox.Subscription
	broker *outbox.Local
	cfg    outbox.ConsumerConfig
	stops  []func()
	born   atomic.Int64
}

// start begins a process, which the number of its parkings ends when it reaches fatal: right after such a transaction.
func (f *fleet) start(fatal int64) {
	ctx, end := context.WithCancel(f.b.ctx)
	sub, cfg := f.sub, f.cfg
	cfg.Owner = fmt.Sprint("process ", f.born.Add(1))
	var parkings atomic.Int64
	sub.Parked = func(outbox.ParkedStreams) {
		if parkings.Add(1) == fatal {
			end()
		}
	}
	done := make(chan error, 1)
	go func() { done <- outbox.NewConsumer(f.b.pool, f.b.store, f.broker, sub, cfg).Run(ctx) }()
	f.stops = append(f.stops, func() {
		end()
		if err := <-done; err != nil {
			f.b.t.Error(err)
		}
	})
}

// replace ends the eldest process and begins another.
func (f *fleet) replace(fatal int64) {
	f.stops[0]()
	f.stops = f.stops[1:]
	f.start(fatal)
}

func (f *fleet) stop() {
	for _, stop := range f.stops {
		stop()
	}
}

// TestWhatIsShownIsAReplayWithoutWhatWaits does anything to a projection that parks or skips, under a broker that lies, a
// database that ends connections at commits, and processes that come and go. In the end its table is what a replay
// gives that leaves out exactly what waits and what was skipped, each stream in its order.
func TestWhatIsShownIsAReplayWithoutWhatWaits(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	b.chaotic()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		if runs > 12 { // each is a fleet of its own
			return
		}
		name, bad := fmt.Sprintf("trails_v%d", runs), poison()
		local := outbox.NewLocal(outbox.LocalConfig{Queue: rapid.IntRange(1, 20).Draw(rt, "queue")})
		defer local.Close()
		sub, _ := b.trails(name, bad)
		sub.OnFailure = rapid.SampledFrom([]outbox.OnFailure{outbox.Park, outbox.Park, outbox.Skip}).Draw(rt, "policy")
		sub.Types = append(sub.Types, "test.text") // so that streams of other runs do not matter
		apply := sub.Apply
		sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			if rand.IntN(20) == 0 {
				_, _ = tx.Exec(ctx, `select pg_terminate_backend(pg_backend_pid())`)
			}
			return apply(ctx, tx, events)
		}
		cfg := quick()
		cfg.Batch, cfg.TTL = rapid.IntRange(1, 40).Draw(rt, "batch"), 2*time.Second // one that ends may not come to give its lease back
		stopRelay := b.run(outbox.NewRelay(b.store, &liar{to: local, random: rand.New(rand.NewPCG(uint64(runs), 1))},
			outbox.RelayConfig{RetryMax: time.Millisecond, Logger: quiet()}).Run)
		defer stopRelay()
		f := &fleet{b: b, sub: sub, broker: local, cfg: cfg}
		f.start(0)
		f.start(0)
		defer f.stop()

		stream := func() string { return fmt.Sprintf("sum-%d", rapid.IntRange(0, 4).Draw(rt, "stream")) }
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2, 3:
				b.append(stream(), rapid.IntRange(1, 6).Draw(rt, "events"))
			case 4, 5:
				bad.add(b.head() + rapid.Int64Range(-3, 6).Draw(rt, "bad"))
			case 6:
				bad.mend()
			case 7:
				_, err := outbox.RetryParked(b.ctx, b.pool, name, rapid.SampledFrom([]string{"", stream()}).Draw(rt, "which"), "ada")
				noted(rt, err)
			case 8:
				_, err := outbox.SkipParked(b.ctx, b.pool, name, stream(), "ada", "why not")
				noted(rt, err)
			case 9:
				f.replace(rapid.Int64Range(0, 3).Draw(rt, "fatal"))
			}
		}
		f.start(0) // the others may have ended themselves
		head := b.head()
		until(b.ctx, t, "the projection comes to the end", func() bool {
			return b.count(`select count(*) from checkpoints where name = $1 and position >= $2`, name, head) == 1 &&
				b.count(`select count(*) from parked_streams where checkpoint = $1 and requested_at is not null`, name) == 0
		})
		b.checkTrails(name, head)
		bad.mend()
		b.unpark(name)
		b.checkTrails(name, head)
		if n := b.count(`select parked from checkpoints where name = $1`, name); n != 0 {
			rt.Fatalf("the checkpoint counts %d parked streams", n)
		}
	})
}

// noted fails for what is not the connection's end, which may hit any connection of the pool.
func noted(rt *rapid.T, err error) {
	if err != nil {
		rt.Log(err)
	}
}

func TestEachShardParksItsOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := poison()
	for i := range 10 {
		b.append(fmt.Sprintf("sum-%d", i), 4)
		if i%2 == 0 {
			bad.add(int64(4*i + 2))
		}
	}
	sub, _ := b.trails("trails_v1", bad)
	told := [2]atomic.Int64{}
	for shard := range 2 {
		sub := sub
		sub.Shard, sub.Shards = shard, 2
		sub.Parked = func(now outbox.ParkedStreams) { told[shard].Store(int64(len(now.Streams))) }
		b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, quick()).Run)
	}
	reached := func(position int64) {
		t.Helper()
		until(b.ctx, t, "both shards come to the end", func() bool {
			return b.count(`select count(*) from checkpoints where name = 'trails_v1' and position >= $1`, position) == 2
		})
	}
	reached(40)
	b.checkTrails("trails_v1", 40)
	all := b.parked("trails_v1")
	if len(all) != 5 || told[0].Load()+told[1].Load() != 5 {
		t.Fatalf("parked are %v", all)
	}
	for stream, p := range all {
		if p.Shard != eventstore.Shard(stream, 2) || p.Waiting != 3 {
			t.Errorf("%s is parked as %+v", stream, p)
		}
	}
	bad.mend()
	b.retry("trails_v1", "")
	b.append("sum-0", 1)
	reached(41)
	b.checkTrails("trails_v1", 41)
	if n := b.count(`select sum(parked) from checkpoints where name = 'trails_v1'`); n != 0 || told[0].Load()+told[1].Load() != 0 {
		t.Fatalf("%d streams are still parked", n)
	}
}
