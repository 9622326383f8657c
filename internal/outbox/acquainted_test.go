package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/outbox"
)

// Two processes start at one moment, so that each says that it is there before it can see the other. The one that comes
// second tells all the same, and the first does not take itself for alone until it renews, which is an hour away here.
func TestNodesThatStartAtOnceKnowEachOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// What a node writes of itself waits for its gate, after the node has looked for others, and is counted.
	b.exec(`create table beats (id text)`)
	b.exec(`create function gate() returns trigger language plpgsql as $$ begin
		insert into beats values (new.id); perform pg_advisory_xact_lock_shared(hashtext(new.id)); return new; end $$`)
	b.exec(`create trigger gate before insert on nodes for each row execute function gate()`)
	gates := map[string]func(){}
	for _, id := range []string{"one", "two"} {
		conn, err := b.pool.Acquire(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		held := conn.Hijack()
		t.Cleanup(func() { _ = held.Close(context.Background()) })
		if _, err := held.Exec(b.ctx, `select pg_advisory_lock(hashtext($1))`, id); err != nil {
			t.Fatal(err)
		}
		gates[id] = func() { _ = held.Close(b.ctx) }
	}
	one, two := b.process(outbox.NodeConfig{ID: "one", TTL: time.Hour}), b.process(outbox.NodeConfig{ID: "two", TTL: time.Hour})
	until(b.ctx, t, "both hear, and have looked for others", func() bool {
		return one.node.Status().Hears && two.node.Status().Hears && b.count(`select count(*) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and wait_event = 'advisory'`) == 2
	})
	gates["one"]()
	until(b.ctx, t, "the first to have looked again after it heard", func() bool {
		return b.count(`select count(*) from beats where id = 'one'`) == 2
	})
	gates["two"]()
	acquainted(b, one, two)
}
