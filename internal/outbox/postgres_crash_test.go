package outbox_test

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/migrations"
)

// TestPostgresCrash loses what projections committed last, since that does not wait for the disk, and never a part of it:
// checkpoint and effects are lost together. What a broker brought was acknowledged by then and does not come again.
func TestPostgresCrash(t *testing.T) {
	t.Parallel()
	// What is in memory is written to the disk every 10 s all the same, which may be just before a crash.
	for range 4 {
		if crash(t) {
			return
		}
	}
	t.Error("nothing was lost: this was no crash")
}

// crash tells whether anything was lost, once all is made up for.
func crash(t *testing.T) (lost bool) {
	t.Helper()
	cluster := pgtest.Cluster(t)
	ctx := longDeadline(t)
	pool, err := pgxpool.New(ctx, cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := migrations.Up(ctx, pool); err != nil {
		t.Fatal(err)
	}
	b := open(t, ctx, pool)
	b.exec(`alter system set wal_writer_delay = '10s'`) // so that commits that do not wait stay in memory
	b.exec(`select pg_reload_conf()`)
	local := outbox.NewLocal(outbox.LocalConfig{})
	t.Cleanup(func() { _ = local.Close() })
	relay := outbox.NewRelay(b.store, local, outbox.RelayConfig{RetryMax: 20 * time.Millisecond, Logger: quiet()})
	b.run(relay.Run)
	until(ctx, t, "the relay has begun", func() bool { return relay.Status().Owner })
	appended, over := make(chan struct{}), make(chan struct{})
	var beside, halfway sync.WaitGroup
	var all []*crashed
	for name, broker := range map[string]message.Subscriber{"polls_v1": nil, "hears_v1": local} {
		c := &crashed{name: name}
		c.sub, c.at = sums(name)
		beside.Add(1)
		halfway.Add(1)
		// It takes a part while others append, whose commits bring its own to the disk, and a part that then stays in memory,
		// if it is a small one.
		c.sub.Committed = c.watch(c.sub.Committed, map[int64]func(){
			300: func() { <-appended },
			900: sync.OnceFunc(func() { beside.Done(); beside.Wait() }),
			950: sync.OnceFunc(func() { halfway.Done(); <-over }),
		})
		c.consumer = outbox.NewConsumer(b.pool, b.store, broker, c.sub, outbox.ConsumerConfig{
			Batch: 10, TTL: time.Minute, Probe: 100 * time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: quiet(),
		})
		b.run(c.consumer.Run)
		all = append(all, c)
	}
	b.add(2000, 50)
	close(appended)
	halfway.Wait()
	if err := cluster.Stop("immediate"); err != nil {
		t.Fatal(err)
	}
	close(over)
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		c.at.reach(ctx, t, 2000)
		until(ctx, t, "the projection is whole again", func() bool {
			s := c.consumer.Status()
			return s.Position == 2000 && s.LastError == ""
		})
		b.checkSums(c.name, 2000)
		lost = lost || c.back.Load()
	}
	return lost
}

// crashed is a projection that Postgres is going to lose a part of.
type crashed struct {
	name     string
	sub      outbox.Subscription
	at       *progress
	consumer *outbox.Consumer
	back     atomic.Bool // the checkpoint was found further back than it had been
}

// watch tells of each checkpoint, and calls what is to be done when it has come so far.
func (c *crashed) watch(committed func(eventstore.Token), then map[int64]func()) func(eventstore.Token) {
	return func(at eventstore.Token) {
		if at.Position < c.at.position() {
			c.back.Store(true)
		}
		committed(at)
		for _, position := range slices.Sorted(maps.Keys(then)) {
			if at.Position >= position {
				then[position]()
			}
		}
	}
}
