package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// takeBack takes a checkpoint back to a position, and with it what else the same transactions wrote, as a crash of Postgres
// does with commits that did not wait for the disk.
func (b *bundle) takeBack(name string, position int64, tables ...string) {
	b.t.Helper()
	err := pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(b.ctx, `update checkpoints set position = $2::bigint, event_id = (select id from events where position = $2)
			where name = $1`, name, position)
		for _, sql := range tables {
			_, failed := tx.Exec(b.ctx, sql, position)
			err = errors.Join(err, failed)
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// Nothing is appended after the crash, and no message comes.
func TestWhatACrashTookBackIsAppliedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	node := outbox.NewNode(b.pool, b.store, outbox.NodeConfig{TTL: tick, Logger: quiet()})
	b.run(node.Run)
	sub, at := sums("sums_v1")
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{Node: node, Probe: time.Hour, Logger: quiet()}).Run)
	at.reach(b.ctx, t, 30)
	b.takeBack("sums_v1", 15, `delete from sums where $1::bigint > 0`, `insert into sums select 'sums_v1', stream, sum((data->>'n')::bigint), count(*)
		from events where type = 'test.added' and position <= $1 group by stream`)
	until(b.ctx, t, "the checkpoint is at the head again", func() bool {
		return b.count(`select count(*) from checkpoints where name = 'sums_v1' and position = 30`) == 1
	})
	b.checkSums("sums_v1", 30)
}

// An event that cannot be handled since what it follows was taken back is not to blame.
func TestNobodyHaltsForWhatACrashTookBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	b.exec(`create table steps (position bigint primary key)`)
	p := &progress{changed: make(chan struct{}, 1)}
	c := outbox.NewConsumer(b.pool, b.store, nil, outbox.Subscription{
		Name: "steps_v1", Committed: p.advance,
		Apply: func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			for _, e := range events {
				tag, err := tx.Exec(ctx, `insert into steps select $1 where $1 = 1 + (select coalesce(max(position), 0) from steps)`, e.Position)
				if err == nil && tag.RowsAffected() == 0 {
					err = fmt.Errorf("event %d comes after a hole", e.Position)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}, outbox.ConsumerConfig{TTL: time.Hour, Probe: time.Hour, RetryMax: time.Millisecond, Logger: quiet()})
	b.run(c.Run)
	p.reach(b.ctx, t, 30)
	b.takeBack("steps_v1", 15, `delete from steps where position > $1`)
	b.add(1, 1)
	until(b.ctx, t, "all is applied, or it halts", func() bool {
		return b.count(`select count(*) from checkpoints where name = 'steps_v1' and (position = 31 or halted_at is not null)`) == 1
	})
	if s := c.Status(); s.HaltReason != "" {
		t.Fatalf("it halts: %s", s.HaltReason)
	}
	if n := b.count(`select count(*) from steps`); n != 31 {
		t.Fatalf("%d of 31 events are applied", n)
	}
}
