package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// never is longer than any test: what is left to it would not happen in time.
const never = time.Hour

func TestConsumerFollowsTheLogThroughTheBroker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(300, 7) // before anybody listens
	local := outbox.NewLocal(outbox.LocalConfig{})
	defer local.Close()
	b.run(outbox.NewRelay(b.store, local, outbox.RelayConfig{}).Run)
	sub, at := sums("sums_v1")
	// A probe is there for what may get lost at the very end, when nothing comes after it that would show the gap.
	b.run(outbox.NewConsumer(b.pool, b.store, local, sub, outbox.ConsumerConfig{Batch: 50, Probe: 5 * time.Second}).Run)
	at.reach(b.ctx, t, 300)
	// The relay follows from where the head is when it starts, which may be late.
	until(b.ctx, t, "the relay follows", func() bool {
		b.add(1, 1)
		return at.position() > 300
	})
	var appending sync.WaitGroup
	for range 4 {
		appending.Go(func() { b.add(250, 3) })
	}
	appending.Wait()
	at.reach(b.ctx, t, b.head())
	b.checkSums("sums_v1", b.head())
}

func TestConsumerWithoutBroker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(100, 10)
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{Probe: never}).Run)
	at.reach(b.ctx, t, 100)
	b.add(100, 10)
	at.reach(b.ctx, t, 200)
	b.checkSums("sums_v1", 200)
}

func TestProbeHealsALostLastMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	silent := outbox.NewLocal(outbox.LocalConfig{}) // nobody publishes to it
	defer silent.Close()
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, silent, sub, outbox.ConsumerConfig{Probe: 10 * time.Millisecond}).Run)
	at.reach(b.ctx, t, 0)
	b.add(20, 2)
	at.reach(b.ctx, t, 20)
	b.checkSums("sums_v1", 20)
}

// What a run holds beyond a batch is worked on as it came: nothing else would bring it here.
func TestARunOfManyBatchesIsWorkedOnAsItCame(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(1, 1)
	head, err := b.store.Head(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	local := outbox.NewLocal(outbox.LocalConfig{})
	defer local.Close()
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, local, sub, outbox.ConsumerConfig{Batch: 10, Probe: never, Logger: quiet()}).Run)
	at.reach(b.ctx, t, 1) // by the look at the log that each tenure begins with
	b.add(35, 35)
	page, err := b.store.ReadLog(b.ctx, eventstore.LogQuery{After: 1})
	if err != nil {
		t.Fatal(err)
	}
	run := outbox.Run{LogID: head.LogID, Epoch: head.Epoch, Prev: head.EventID, First: 2, Events: page.Events}
	if err := local.Publish(outbox.LogTopic, runMessage(run)); err != nil {
		t.Fatal(err)
	}
	at.reach(b.ctx, t, 36)
	b.checkSums("sums_v1", 36)
}

// Without a probe only the caller who waits brings what the broker lost.
func TestAWaitBringsWhatTheBrokerLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	silent := outbox.NewLocal(outbox.LocalConfig{}) // nobody publishes to it
	defer silent.Close()
	sub, at := sums("sums_v1")
	c := outbox.NewConsumer(b.pool, b.store, silent, sub, outbox.ConsumerConfig{Probe: never})
	b.add(5, 2)
	b.run(c.Run)
	at.reach(b.ctx, t, 5) // by the look at the log that each tenure begins with
	b.add(20, 2)
	c.Flush()
	at.reach(b.ctx, t, 25)
	b.checkSums("sums_v1", 25)
}

func TestCheckpointMovesOverOtherEventsWhenAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	sub, at := sums("sums_v1")
	sub.Types = []string{"test.something_else"}
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{MoveEvery: 1 << 40, MoveAfter: never})
	b.run(c.Run)
	b.add(30, 3)
	c.Flush()
	at.reach(b.ctx, t, 30)
	b.add(3, 3) // the wish lasts for a while
	at.reach(b.ctx, t, 33)
}

func TestCheckpointFollowsOtherEventsByNumberAndByTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	for name, cfg := range map[string]outbox.ConsumerConfig{
		"by_number": {MoveEvery: 30, MoveAfter: never},
		"by_time":   {MoveEvery: 1 << 40, MoveAfter: time.Millisecond},
	} {
		sub, at := sums(name)
		sub.Types = []string{"test.something_else"}
		b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
		at.reach(b.ctx, t, 30)
	}
}

func TestStopRecordsHowFarItLooked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	traced, sent := b.traced()
	sub, at := sums("sums_v1")
	sub.Types = []string{"test.noise"}
	sub.Apply = func(context.Context, pgx.Tx, []eventstore.Event) error { return nil }
	cfg := outbox.ConsumerConfig{MoveEvery: 1 << 40, MoveAfter: never, Probe: 10 * time.Millisecond}
	stop := b.run(outbox.NewConsumer(traced.pool, traced.store, nil, sub, cfg).Run)
	at.reach(b.ctx, t, 30)
	b.add(3, 3) // of another type, so that nothing is committed
	seen := sent.most("from events")
	until(b.ctx, t, "a look at the log, and that it is over", func() bool { return sent.most("from events") >= seen+3 })
	if n := at.position(); n != 30 {
		t.Fatalf("the checkpoint moved to %d before the stop", n)
	}
	stop()
	if n := b.count(`select count(*) from checkpoints where name = 'sums_v1' and position = 33 and lease_until = '-infinity'`); n != 1 {
		t.Fatal("after a stop the checkpoint is not at 33, or the lease is not given back")
	}
}

func TestPoisonHaltsExactlyBeforeIt(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context, pgx.Tx) error{
		"error":     func(context.Context, pgx.Tx) error { return errors.New("cannot be") },
		"panic":     func(context.Context, pgx.Tx) error { panic("cannot be") },
		"statement": func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "select 1/0"); return err },
		"swallowed": func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, "select 1/0"); return nil },
		"commits":   func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "rollback"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.add(200, 1) // every third is noise
			const poison = 101
			var mended atomic.Bool
			sub, at := sums("sums_v1")
			apply := sub.Apply
			sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
				if err := apply(ctx, tx, events); err != nil {
					return err
				}
				for _, e := range events {
					if e.Position == poison && !mended.Load() {
						return fail(ctx, tx)
					}
				}
				return nil
			}
			other, otherAt := sums("other_v1")
			cfg := outbox.ConsumerConfig{Standby: 5 * time.Millisecond, Logger: quiet()}
			c := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
			stop := b.run(c.Run)
			b.run(outbox.NewConsumer(b.pool, b.store, nil, other, cfg).Run)
			until(b.ctx, t, "the consumer halts", func() bool { return c.Status().HaltReason != "" })
			otherAt.reach(b.ctx, t, b.head()-1) // the last may be noise
			if at.position() != poison-1 {
				t.Fatalf("halted at %d, the event at fault is %d", at.position(), poison)
			}
			b.checkSums("sums_v1", poison-1)
			if reason := c.Status().HaltReason; !strings.Contains(reason, "event 101") {
				t.Fatalf("the reason does not name the event: %s", reason)
			}

			// It stays halted until somebody asks: an operator, or a process that starts anew.
			until(b.ctx, t, "the halt shows from the table", func() bool { return !c.Status().Owner && !c.Status().HaltedAt.IsZero() })
			mended.Store(true)
			if name == "error" {
				stop()
				b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
			} else {
				b.exec(`update checkpoints set halted_at = null, halt_reason = null where name = 'sums_v1'`)
			}
			at.reach(b.ctx, t, 199)
			b.checkSums("sums_v1", 200)
		})
	}
}

func TestTransientFailuresAreRetried(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(60, 2)
	sub, at := sums("sums_v1")
	apply := sub.Apply
	failures := []error{
		&pgconn.PgError{Code: "40001"},
		&pgconn.PgError{Code: "40P01"},
		&pgconn.PgError{Code: "55P03"},
		&pgconn.PgError{Code: "57P01"},
		context.DeadlineExceeded,
	}
	var calls int
	sub.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		if err := apply(ctx, tx, events); err != nil {
			return err
		}
		if calls++; calls <= len(failures) {
			return failures[calls-1]
		}
		return nil
	}
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{RetryMax: time.Millisecond, Logger: quiet()})
	b.run(c.Run)
	at.reach(b.ctx, t, 60)
	b.checkSums("sums_v1", 60)
	if s := c.Status(); s.HaltReason != "" || s.LastError != "" {
		t.Fatalf("after failures that passed the status is %+v", s)
	}
}

func TestSlowConsumerSlowsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	local := outbox.NewLocal(outbox.LocalConfig{Queue: 1})
	defer local.Close()
	b.run(outbox.NewRelay(b.store, local, outbox.RelayConfig{}).Run)
	cfg := outbox.ConsumerConfig{BufferBytes: 2000, Probe: never}

	slow, slowAt := sums("slow_v1")
	held, release := make(chan struct{}), make(chan struct{})
	apply := slow.Apply
	var once sync.Once
	slow.Apply = func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
		once.Do(func() { close(held); <-release })
		return apply(ctx, tx, events)
	}
	b.add(1, 1) // before the consumer, which so finds it in the log, wherever the relay begins
	b.run(outbox.NewConsumer(b.pool, b.store, local, slow, cfg).Run)
	select {
	case <-held:
	case <-b.ctx.Done():
		t.Fatal("the slow consumer got nothing")
	}
	quick, quickAt := sums("quick_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, local, quick, cfg).Run)
	for range 50 {
		b.add(9, 3)
	}
	quickAt.reach(b.ctx, t, b.head()-3) // the last three are noise
	if slowAt.position() != 0 {
		t.Fatal("the slow consumer was not slow")
	}
	close(release)
	slowAt.reach(b.ctx, t, b.head()-3)
	b.checkSums("slow_v1", b.head())
	b.checkSums("quick_v1", b.head())
}

func TestReact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(10, 1)
	var mu sync.Mutex
	var seen []int64
	failed := false
	_, at := sums("")
	sub := outbox.Subscription{
		Name: "policy", Types: []string{"test.added"}, From: outbox.FromNow, Committed: at.advance,
		React: func(_ context.Context, e eventstore.Event) error {
			mu.Lock()
			defer mu.Unlock()
			if e.Position == 14 && !failed {
				failed = true
				return &eventstore.OverloadedError{}
			}
			if e.Position == 20 {
				return errors.New("refused")
			}
			seen = append(seen, e.Position)
			return nil
		},
	}
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: never, Logger: quiet(), Standby: 5 * time.Millisecond})
	b.run(c.Run)
	at.reach(b.ctx, t, 10) // from now
	b.add(12, 1)           // 13, 16, 19 and 22 are noise
	until(b.ctx, t, "the policy halts", func() bool { return c.Status().HaltReason != "" })
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []int64{11, 12, 14, 15, 17, 18} {
		if i >= len(seen) || seen[i] != want {
			t.Fatalf("reacted to %v", seen)
		}
	}
}

func TestDivergedCheckpointHalts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"another event": `update checkpoints set event_id = gen_random_uuid()`,
		"beyond head":   `update checkpoints set position = 1000`,
		"another log":   `update checkpoints set log_id = gen_random_uuid()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.add(20, 4)
			sub, at := sums("sums_v1")
			cfg := outbox.ConsumerConfig{Logger: quiet(), Standby: 5 * time.Millisecond}
			stop := b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
			at.reach(b.ctx, t, 20)
			stop()
			b.exec(change)
			b.add(20, 4)
			c := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
			b.run(c.Run)
			until(b.ctx, t, "the consumer halts", func() bool { return c.Status().HaltReason != "" })
			b.checkSums("sums_v1", 20)
		})
	}
}

func TestSubscriptionThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	if err := outbox.NewConsumer(nil, nil, nil, outbox.Subscription{Name: "x"}, outbox.ConsumerConfig{}).Run(deadline(t)); err == nil {
		t.Fatal("a subscription without Apply and React was accepted")
	}
}
