package outbox_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// An owner that is cut off, or freezes, in the middle of a transaction holds locks on rows that its successor has to write.
// Postgres gives them back after as long as a lease lasts, and not when TCP notices, which no test would wait for.
func TestAnOwnerThatIsCutOffWithRowsLockedHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	var pool *pgxpool.Pool
	t.Cleanup(func() { pool.Close() }) // after the wire, since it waits for what hangs
	w := newMutedWire(t, b.pool.Config().ConnConfig)
	var err error
	if pool, err = pgxpool.New(b.ctx, w.url); err != nil {
		t.Fatal(err)
	}
	sub, at := sums("sums_v1")
	cut, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	var once sync.Once
	frozen := sub
	frozen.Committed = nil
	frozen.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		if err := sub.Apply(ctx, tx, events); err != nil {
			return err
		}
		once.Do(func() {
			w.mute()
			close(cut)
			<-released
		})
		return nil
	}
	owner := outbox.NewConsumer(pool, b.store, nil, frozen, outbox.ConsumerConfig{TTL: time.Second, Logger: quiet()})
	stop := b.run(owner.Run)
	select {
	case <-cut:
	case <-b.ctx.Done():
		t.Fatal("the owner applied nothing")
	}
	b.exec(`update checkpoints set lease_until = clock_timestamp() - interval '1 second' where name = 'sums_v1'`)
	successor := outbox.ConsumerConfig{TTL: time.Hour, Standby: time.Millisecond, Logger: quiet()}
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, successor).Run)
	at.reach(b.ctx, t, 27)
	release()
	stop()
	b.checkSums("sums_v1", 30)
}

// A handler that sends nothing for longer than leases last is not to blame for what Postgres does then, and comes to its end.
func TestAHandlerThatThinksForLongIsGivenTheTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	sub, at := sums("sums_v1")
	apply := sub.Apply
	var calls atomic.Int64
	sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		calls.Add(1)
		if err := apply(ctx, tx, events); err != nil {
			return err
		}
		_, err := b.pool.Exec(ctx, `select pg_sleep(1.2)`) // on another connection
		return err
	}
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: time.Second, RetryMax: time.Millisecond, Logger: quiet()})
	b.run(c.Run)
	at.reach(b.ctx, t, 27)
	b.checkSums("sums_v1", 30)
	if calls.Load() < 2 {
		t.Fatal("Postgres let the transaction be")
	}
	if s := c.Status(); s.HaltReason != "" || s.LastError != "" {
		t.Fatalf("after it was done the status is %+v", s)
	}
}
