package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// addStreams appends n events to as many streams, each third one noise.
func (b *bundle) addStreams(random *rand.Rand, n, streams int) {
	b.t.Helper()
	for range n {
		var event eventstore.Payload = added{N: random.Int64N(1000)}
		if random.IntN(3) == 0 {
			event = noise{}
		}
		r := eventstore.Request{
			Stream: fmt.Sprint("sum-", random.IntN(streams)), Expected: eventstore.Any, Events: []eventstore.Payload{event},
		}
		if _, err := b.store.Append(b.ctx, r); err != nil {
			b.t.Fatal(err)
		}
	}
}

// sharded are the subscriptions of all shards of sums, and how far each is.
func sharded(name string, shards int) ([]outbox.Subscription, []*progress) {
	subs, at := make([]outbox.Subscription, shards), make([]*progress, shards)
	for shard := range shards {
		subs[shard], at[shard] = sums(name)
		subs[shard].Shard, subs[shard].Shards = shard, shards
	}
	return subs, at
}

func (b *bundle) checkpoints(name string) (rows []string) {
	b.t.Helper()
	found, err := b.pool.Query(b.ctx, `select shard || '/' || shards from checkpoints where name = $1 order by shard`, name)
	if err != nil {
		b.t.Fatal(err)
	}
	if rows, err = pgx.CollectRows(found, pgx.RowTo[string]); err != nil {
		b.t.Fatal(err)
	}
	return rows
}

func TestShardsTogetherEqualAReplayWhateverTheBrokerDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := setupLong(t)
			random := rand.New(rand.NewPCG(seed, 0))
			local := outbox.NewLocal(outbox.LocalConfig{Queue: 1 + random.IntN(20)})
			defer local.Close()
			b.addStreams(random, 200, 30) // what the relay does not tell
			b.run(outbox.NewRelay(b.store, &liar{to: local, random: rand.New(rand.NewPCG(seed, 1))}, outbox.RelayConfig{
				RetryMax: time.Millisecond, Logger: quiet(),
			}).Run)
			subs, at := sharded("sums_v1", 4)
			for _, sub := range subs {
				apply, shard := sub.Apply, sub.Shard
				sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
					for _, e := range events {
						if eventstore.Shard(e.Stream, 4) != shard {
							t.Errorf("shard %d was given an event of %s", shard, e.Stream)
						}
					}
					return apply(ctx, tx, events)
				}
				b.run(outbox.NewConsumer(b.pool, b.store, local, sub, outbox.ConsumerConfig{
					Batch: 1 + random.IntN(50), BufferBytes: 1 + random.IntN(10_000),
					Probe: 5 * time.Millisecond, RetryMax: time.Millisecond, Logger: quiet(),
				}).Run)
			}
			b.addStreams(random, 300, 30)
			for _, p := range at { // also over the events of the others
				p.reach(b.ctx, t, b.head())
			}
			b.checkSums("sums_v1", b.head())
			if rows := b.checkpoints("sums_v1"); !slices.Equal(rows, []string{"0/4", "1/4", "2/4", "3/4"}) {
				t.Fatalf("the checkpoint has the rows %v", rows)
			}
		})
	}
}

// Two processes share four shards. One of them sleeps with a batch of one shard in hand until another has taken just that
// shard: it writes nothing of it, and goes on with its others meanwhile.
func TestEachShardIsWrittenOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	random := rand.New(rand.NewPCG(7, 7))
	b.addStreams(random, 200, 30)
	cfg := outbox.ConsumerConfig{TTL: time.Hour, Standby: time.Millisecond, RetryMax: time.Millisecond, Batch: 20, Logger: quiet()}
	const slept = 2
	asleep, wake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sleepers, sleepersAt := sharded("sums_v1", 4)
	apply := sleepers[slept].Apply
	sleepers[slept].Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		once.Do(func() { close(asleep); <-wake })
		return apply(context.WithoutCancel(ctx), tx, events)
	}
	var zombie *outbox.Consumer
	for shard, sub := range sleepers {
		consumer := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
		if shard == slept {
			zombie = consumer
		}
		b.run(consumer.Run)
	}
	<-asleep
	head := b.head()
	for shard, at := range sleepersAt {
		if shard != slept {
			at.reach(b.ctx, t, head)
		}
	}
	b.exec(`update checkpoints set lease_until = '-infinity' where name = 'sums_v1' and shard = $1`, slept)
	others, othersAt := sharded("sums_v1", 4)
	standby := make([]*outbox.Consumer, len(others))
	for shard, sub := range others {
		standby[shard] = outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
		b.run(standby[shard].Run)
	}
	othersAt[slept].reach(b.ctx, t, head)
	close(wake)
	until(b.ctx, t, "the zombie notices", func() bool { return !zombie.Status().Owner })
	b.addStreams(random, 100, 30)
	head = b.head()
	for shard, at := range sleepersAt {
		if shard == slept {
			at = othersAt[shard]
		} else if standby[shard].Status().Owner {
			t.Errorf("shard %d has another owner too", shard)
		}
		at.reach(b.ctx, t, head)
	}
	b.checkSums("sums_v1", head)
}

// A checkpoint keeps the number of shards that it was begun with: whoever says another does nothing but say so.
func TestAnotherNumberOfShardsIsRefused(t *testing.T) {
	t.Parallel()
	for _, change := range [][2]int{{4, 2}, {1, 4}, {4, 1}, {2, 4}} {
		t.Run(fmt.Sprint(change), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.addStreams(rand.New(rand.NewPCG(1, 1)), 50, 10)
			cfg := outbox.ConsumerConfig{Standby: time.Millisecond, Logger: quiet()}
			before, at := sharded("sums_v1", change[0])
			for shard, sub := range before {
				stop := b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
				at[shard].reach(b.ctx, t, b.head())
				stop()
			}
			rows := b.checkpoints("sums_v1")
			after, _ := sharded("sums_v1", change[1])
			for _, sub := range after {
				sub.Apply = func(context.Context, pgx.Tx, []eventstore.Event) error {
					t.Error("a consumer of another number of shards works")
					return nil
				}
				consumer := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
				b.run(consumer.Run)
				until(b.ctx, t, "it refuses", func() bool { return consumer.Status().Refused != "" })
				want := fmt.Sprintf("was begun with %d shards, and the program says %d: rebuild the view", change[0], change[1])
				if reason := consumer.Status().Refused; !strings.Contains(reason, want) {
					t.Errorf("it says %q", reason)
				}
			}
			if now := b.checkpoints("sums_v1"); !slices.Equal(now, rows) {
				t.Errorf("the rows were %v and are %v", rows, now)
			}
			b.checkSums("sums_v1", b.head())
		})
	}
}

// Processes of two versions that begin a checkpoint at the same moment make the rows of one of them, and not of both.
func TestOneNumberOfShardsWins(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for round := range 20 {
		name := fmt.Sprintf("sums_v%d", round)
		var all sync.WaitGroup
		var consumers []*outbox.Consumer
		ctx, cancel := context.WithCancel(b.ctx)
		for _, shards := range []int{1, 3, 5} {
			subs, _ := sharded(name, shards)
			consumers = append(consumers, outbox.NewConsumer(b.pool, b.store, nil, subs[shards-1], outbox.ConsumerConfig{Logger: quiet()}))
		}
		for _, consumer := range consumers {
			all.Go(func() { _ = consumer.Run(ctx) })
		}
		until(b.ctx, t, "one works and two refuse", func() bool {
			owners, refused := 0, 0
			for _, consumer := range consumers {
				status := consumer.Status()
				if status.Owner {
					owners++
				}
				if status.Refused != "" {
					refused++
				}
			}
			return owners == 1 && refused == 2
		})
		cancel()
		all.Wait()
		rows := b.checkpoints(name)
		for shard, row := range rows {
			if row != fmt.Sprintf("%d/%d", shard, len(rows)) {
				t.Fatalf("the checkpoint has the rows %v", rows)
			}
		}
	}
}

// The table of a shard holds what the lost row had counted, so beginning anew would count it twice.
func TestALostRowIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.addStreams(rand.New(rand.NewPCG(2, 2)), 60, 20)
	cfg := outbox.ConsumerConfig{Standby: time.Millisecond, Logger: quiet()}
	run := func() (consumers []*outbox.Consumer, at []*progress, stop func()) {
		subs, at := sharded("sums_v1", 3)
		var stops []func()
		for _, sub := range subs {
			consumers = append(consumers, outbox.NewConsumer(b.pool, b.store, nil, sub, cfg))
			stops = append(stops, b.run(consumers[len(consumers)-1].Run))
		}
		return consumers, at, func() {
			for _, stop := range stops {
				stop()
			}
		}
	}
	_, at, stop := run()
	for _, p := range at {
		p.reach(b.ctx, t, b.head())
	}
	stop()
	b.exec(`delete from checkpoints where name = 'sums_v1' and shard = 1`)
	consumers, _, _ := run()
	until(b.ctx, t, "it refuses", func() bool { return strings.Contains(consumers[1].Status().Refused, "lost the row of shard 1 of 3") })
	until(b.ctx, t, "the others work", func() bool { return consumers[0].Status().Owner && consumers[2].Status().Owner })
	b.checkSums("sums_v1", b.head())
}

func TestShardsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, shard := range []int{-1, 4} {
		sub, _ := sums("sums_v1")
		sub.Shard, sub.Shards = shard, 4
		if err := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{}).Run(b.ctx); err == nil {
			t.Errorf("shard %d of 4 is taken for one", shard)
		}
	}
}
