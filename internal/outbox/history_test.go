package outbox_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// lose takes away what follows a position, and has the store notice.
func (b *bundle) lose(after int64) (epoch int32) {
	b.t.Helper()
	before, _ := b.store.Epoch()
	pgtest.Lose(b.t, b.pool, after)
	if err := b.store.Review(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	if epoch, _ = b.store.Epoch(); epoch <= before {
		b.t.Fatal("the epoch was not raised")
	}
	return epoch
}

// A policy is at an event when that is lost, and its command is refused. It goes back to its checkpoint, parks nothing, and
// hears what the log has now.
func TestAReactionToALostEventIsGivenUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type heard struct {
		position int64
		epoch    int32
	}
	var mu sync.Mutex
	var all []heard
	atLost, lost := make(chan struct{}), make(chan struct{})
	_, at := sums("")
	sub := outbox.Subscription{
		Name: "policy", Types: []string{"test.added"}, OnFailure: outbox.Park, Committed: at.advance,
		React: func(ctx context.Context, e eventstore.Event) error {
			mu.Lock()
			all = append(all, heard{e.Position, e.Epoch})
			first := len(all) == 3
			mu.Unlock()
			if !first {
				return nil
			}
			close(atLost)
			select {
			case <-lost:
			case <-ctx.Done():
			}
			now, _ := b.store.Epoch()
			return &eventstore.HistoryError{Stream: "sum-0", Epoch: now}
		},
	}
	c := outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: never, Logger: quiet(), RetryMax: 10 * time.Millisecond})
	b.run(c.Run)
	before, _ := b.store.Epoch()
	b.add(2, 1)
	at.reach(b.ctx, t, 2)
	b.add(1, 2) // 3 is lost
	select {
	case <-atLost:
	case <-b.ctx.Done():
		t.Fatal("the policy heard nothing of 3")
	}
	now := b.lose(2)
	b.add(2, 2) // another 3, and 4
	close(lost)
	at.reach(b.ctx, t, 4)
	mu.Lock()
	defer mu.Unlock()
	if want := []heard{{1, before}, {2, before}, {3, before}, {3, now}, {4, now}}; !slices.Equal(all, want) {
		t.Errorf("it heard %v, want %v", all, want)
	}
	if n := b.count(`select count(*) from parked_streams`); n != 0 || !c.Status().HaltedAt.IsZero() {
		t.Errorf("%d streams are parked, %+v", n, c.Status())
	}
}

// The checkpoints come back with the database. Those whose events are there are stamped with the epoch and go on, whether their
// owners live through it or start anew.
func TestCheckpointsGoOnInANewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	sub, _ := sums("sums_v1")
	told := &recorder{changed: make(chan struct{}, 1)}
	start := func() (stop func()) {
		consumer := b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{
			TTL: never, Logger: quiet(), MoveAfter: 10 * time.Millisecond,
		}).Run)
		relay := b.run(outbox.NewRelay(b.store, recorderOf{told, "a"}, outbox.RelayConfig{
			Pool: b.pool, TTL: never, Logger: quiet(), PollMax: 20 * time.Millisecond, // in a lease that lasts, it tells nothing twice
		}).Run)
		return func() { consumer(); relay() }
	}
	stamped := func(position int64, epoch int32) {
		t.Helper()
		until(b.ctx, t, "both checkpoints to be there in the epoch", func() bool {
			return b.count(`select count(*) from checkpoints where position = $1 and log_epoch = $2`, position, epoch) == 2
		})
	}
	epoch, _ := b.store.Epoch()
	stop := start()
	b.add(6, 1)
	stamped(6, epoch)
	stop()

	b.add(1, 1)
	epoch = b.lose(6) // 7, of which neither was told
	start()
	stamped(6, epoch)
	b.add(2, 1)
	stamped(8, epoch)

	// An orderly switch-over, through which both live. The relay says so with what it tells next.
	b.exec(`update log set epoch = epoch + 1`)
	if err := b.store.Review(b.ctx); err != nil {
		t.Fatal(err)
	}
	until(b.ctx, t, "the view's checkpoint to be stamped", func() bool {
		return b.count(`select log_epoch from checkpoints where name = 'sums_v1'`) == int(epoch)+1
	})
	b.add(3, 1)
	stamped(11, epoch+1)
	b.checkSums("sums_v1", 11)
	told.check(t, 1)
}
