package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// skewed is a database whose clock is off from that of the test's process, and from its own as pg_catalog has it.
func skewed(t *testing.T, by string) *bundle {
	t.Helper()
	plain := pgtest.Pool(t)
	for _, sql := range []string{
		`create schema skewed`,
		`create function skewed.clock_timestamp() returns timestamptz language sql volatile
			as $$ select pg_catalog.clock_timestamp() + interval '` + by + `' $$`,
	} {
		if _, err := plain.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	config := plain.Config()
	config.ConnConfig.RuntimeParams["search_path"] = "public, skewed, pg_catalog"
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return open(t, deadline(t), pool)
}

// Leases are by the database's clock alone: where that is hours off, they are shared out, run out, and are handed over as
// anywhere else.
func TestLeasesAreByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]string{"ahead": "3 hours", "behind": "-3 hours"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := skewed(t, by)
			b.add(30, 3)
			all := names(2)
			// What a killed process left behind runs out in a second of that clock.
			b.exec(`insert into checkpoints (name, log_id, lease_owner, lease_epoch, lease_until)
				select $1, log_id, 'killed', 1, clock_timestamp() + interval '1 second' from log`, all[0])
			cfg := outbox.NodeConfig{TTL: 2 * tick}
			one := b.process(cfg, all...)
			counts(t, b, []int{2}, one)
			two := b.process(cfg, all...)
			counts(t, b, []int{1, 1}, one, two)
			until(b.ctx, t, "leases and nodes are of the database's time", func() bool {
				const near = `between clock_timestamp() - interval '1 hour' and clock_timestamp() + interval '1 hour'`
				return b.count(`select count(*) from checkpoints where lease_until `+near) == 2 &&
					b.count(`select count(*) from nodes where seen_until `+near) == 2
			})
			one.stop()
			counts(t, b, []int{2}, two)
			for _, name := range all {
				until(b.ctx, t, name+" is at the head", func() bool {
					return b.count(`select count(*) from checkpoints where name = $1 and position = 30`, name) == 1
				})
				b.checkSums(name, 30)
			}
		})
	}
}

// A lease without a node is by the same clock.
func TestALeaseAloneIsByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]string{"ahead": "3 hours", "behind": "-3 hours"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := skewed(t, by)
			b.add(30, 3)
			b.exec(`insert into checkpoints (name, log_id, lease_owner, lease_epoch, lease_until)
				select 'sums_v1', log_id, 'killed', 1, clock_timestamp() + interval '500 ms' from log`)
			cfg := outbox.ConsumerConfig{TTL: time.Minute, Standby: time.Millisecond, Logger: quiet()}
			first, firstAt := sums("sums_v1")
			c := outbox.NewConsumer(b.pool, b.store, nil, first, cfg)
			b.run(c.Run)
			firstAt.reach(b.ctx, t, 30)
			second, secondAt := sums("sums_v1")
			standby := outbox.NewConsumer(b.pool, b.store, nil, second, cfg)
			b.run(standby.Run)
			until(b.ctx, t, "the second stands by", func() bool { return standby.Status().Position == 30 })
			if standby.Status().Owner {
				t.Fatal("two owners")
			}
			b.exec(`update checkpoints set lease_until = clock_timestamp() - interval '1 second'`)
			secondAt.reach(b.ctx, t, 30)
			b.checkSums("sums_v1", 30)
		})
	}
}
