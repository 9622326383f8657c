package outbox_test

import (
	"testing"
	"time"

	"github.com/headrace/headrace/internal/outbox"
)

// A paused checkpoint stands still, whichever process had it or starts anew, and goes on where it was when resumed.
func TestAPausedCheckpointStandsStill(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(100, 3)
	cfg := outbox.ConsumerConfig{Standby: 5 * time.Millisecond, TTL: time.Second, Logger: quiet()}
	sub, at := sums("sums_v1")
	owner := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
	b.run(owner.Run)
	at.reach(b.ctx, t, b.head()-1)
	until(b.ctx, t, "the first is the owner", func() bool { return owner.Status().Owner })

	b.exec(`update checkpoints set paused_at = clock_timestamp(), paused_by = 'ada', lease_epoch = lease_epoch + 1,
		lease_owner = null, lease_until = '-infinity' where name = 'sums_v1'`)
	paused := at.position()
	b.add(50, 3)
	second, secondAt := sums("sums_v1")
	late := outbox.NewConsumer(b.pool, b.store, nil, second, cfg)
	b.run(late.Run)
	for _, c := range []*outbox.Consumer{owner, late} {
		until(b.ctx, t, "it says so", func() bool { return c.Status().PausedBy == "ada" && !c.Status().Owner })
	}
	if at.position() > paused || secondAt.position() > 0 {
		t.Fatalf("paused at %d, but they came to %d and %d", paused, at.position(), secondAt.position())
	}
	b.checkSums("sums_v1", paused)

	b.exec(`update checkpoints set paused_at = null, paused_by = null where name = 'sums_v1'`)
	until(b.ctx, t, "it goes on", func() bool { return max(at.position(), secondAt.position()) >= b.head()-1 })
	b.checkSums("sums_v1", b.head())
}
