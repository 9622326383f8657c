package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// process is what a process of a fleet runs: a store, a node, and a consumer for each of some names.
type process struct {
	b         *bundle
	node      *outbox.Node
	consumers []*outbox.Consumer
	stop      func() // ends politely
}

// tick is quick, so that tests of what happens when time has passed take little. Tests of what must happen without waiting
// say an hour.
const tick = 800 * time.Millisecond

func (b *bundle) process(cfg outbox.NodeConfig, names ...string) *process {
	b.t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	if cfg.CheckTimeout == 0 {
		cfg.CheckTimeout = time.Minute // a hint that was slow is not sent again
	}
	store, err := eventstore.Open(b.ctx, b.pool, b.store.Registry(), eventstore.Config{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = store.Close(context.Background()) })
	p := &process{b: &bundle{t: b.t, ctx: b.ctx, pool: b.pool, store: store}, node: outbox.NewNode(b.pool, store, cfg)}
	stops := []func(){b.run(p.node.Run)}
	for _, name := range names {
		sub, _ := sums(name)
		c := outbox.NewConsumer(b.pool, store, nil, sub, outbox.ConsumerConfig{Node: p.node, Probe: time.Hour, Logger: quiet()})
		p.consumers = append(p.consumers, c)
		stops = append(stops, b.run(c.Run))
	}
	p.stop = func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
	}
	return p
}

// owned are the names that a process works on.
func (p *process) owned() (names []string) {
	for _, c := range p.consumers {
		if s := c.Status(); s.Owner {
			names = append(names, s.Name)
		}
	}
	return names
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("sums%d_v1", i))
	}
	return all
}

// counts waits until the processes own so many leases each, in whatever order.
func counts(t *testing.T, b *bundle, want []int, processes ...*process) {
	t.Helper()
	until(b.ctx, t, fmt.Sprintf("the leases are shared out as %v", want), func() bool {
		var got []int
		for _, p := range processes {
			got = append(got, len(p.owned()))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

func TestLeasesSpreadEvenlyAsNodesComeAndGo(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	b.add(60, 3)
	all := names(7)
	cfg := outbox.NodeConfig{TTL: 4 * tick} // a busy machine loses leases that last less, and they count as moved
	one := b.process(cfg, all...)
	counts(t, b, []int{7}, one)
	two := b.process(cfg, all...)
	counts(t, b, []int{3, 4}, one, two)
	three := b.process(cfg, all...)
	counts(t, b, []int{2, 2, 3}, one, two, three)
	b.add(30, 3)
	until(b.ctx, t, "all are at the head", func() bool {
		return b.count(`select count(*) from checkpoints where position = 90`) == 7
	})
	// Nothing moves any more while each node renews a few times, and looks at what the others have. A machine that is busy for
	// longer than leases last moves some without need, and then they have another life of a lease to come to rest.
	moves := func() int { return b.count(`select sum(lease_epoch) from checkpoints`) }
	until(b.ctx, t, "a time in which no lease goes to and fro", func() bool {
		before, seen := moves(), b.count(`select (extract(epoch from max(seen_until)) * 1000)::bigint from nodes`)
		until(b.ctx, t, "four renewals", func() bool {
			return b.count(`select (extract(epoch from min(seen_until)) * 1000)::bigint from nodes`) > seen+int(cfg.TTL.Milliseconds())
		})
		return moves() == before
	})
	counts(t, b, []int{2, 2, 3}, one, two, three)
	two.stop()
	counts(t, b, []int{3, 4}, one, three)
	one.stop()
	counts(t, b, []int{7}, three)
	for _, name := range all {
		until(b.ctx, t, "the view is at the head", func() bool {
			return b.count(`select count(*) from checkpoints where name = $1 and position = 90`, name) == 1
		})
		b.checkSums(name, 90)
	}
	until(b.ctx, t, "one node is left, and runs", func() bool { return b.count(`select count(*) from nodes`) == 1 })
}

// Nothing runs out in this test, and nobody polls: what another process does is known only because it said so.
func TestAPoliteStopHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	cfg := outbox.NodeConfig{TTL: time.Hour}
	one := b.process(cfg, "sums0_v1", "sums1_v1")
	counts(t, b, []int{2}, one)
	two := b.process(cfg, "sums0_v1", "sums1_v1")
	until(b.ctx, t, "they know each other and hear", func() bool {
		a, b := one.node.Status(), two.node.Status()
		return a.Others == 1 && b.Others == 1 && a.Hears && b.Hears
	})
	one.stop()
	counts(t, b, []int{2}, two)
}

func TestLeasesOfAKilledProcessAreTakenWhenTheyRunOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	all := names(3)
	// What a killed process leaves behind: leases of another second, and a node that will be seen for a little less.
	b.exec(`insert into nodes (id, seen_until, wants) values ('killed', clock_timestamp() + interval '500 ms', $1)`,
		[]string{all[0] + ":0", all[1] + ":0", all[2] + ":0"})
	for i, name := range all {
		b.exec(`insert into checkpoints (name, log_id, lease_owner, lease_epoch, lease_until)
			select $1, log_id, 'killed', $2, clock_timestamp() + interval '1 second' from log`, name, i+1)
	}
	// Renewals are an hour apart, so it is the lease's end that it looks at, not a poll.
	p := b.process(outbox.NodeConfig{TTL: time.Hour}, all...)
	counts(t, b, []int{3}, p)
	if n := b.count(`select count(*) from checkpoints where lease_until < clock_timestamp() + interval '30 minutes'`); n != 0 {
		t.Errorf("%d leases are not its own", n)
	}
}

// A node that wants a lease, has fewer, and does not take it must not leave it without an owner.
func TestALeaseThatNobodyElseTakesIsTakenWhateverTheShare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	// It is alive and says that it wants all, and does nothing.
	b.exec(`insert into nodes (id, seen_until, wants) values ('idler', clock_timestamp() + interval '1 hour', $1)`,
		[]string{"sums0_v1:0", "sums1_v1:0", "sums2_v1:0"})
	p := b.process(outbox.NodeConfig{TTL: tick}, names(3)...)
	counts(t, b, []int{3}, p)
}

// During a rolling deploy processes have different views: those that only one has do not count for the other, and are
// not given back to nobody.
func TestLeasesThatOnlyOneWantsStayWithIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	cfg := outbox.NodeConfig{TTL: 4 * tick} // as above
	old := b.process(cfg, names(5)...)
	counts(t, b, []int{5}, old)
	fresh := b.process(cfg, "other0_v2", "sums0_v1")
	until(b.ctx, t, "both work, and one is given to the one that has fewer", func() bool {
		return len(fresh.owned()) == 2 && len(old.owned()) == 4
	})
	until(b.ctx, t, "all have an owner", func() bool {
		return b.count(`select count(*) from checkpoints where lease_until >= clock_timestamp()`) == 6
	})
}

// The row of a node whose lease was taken from it says so at the next renewal, and its owner stops.
func TestALostLeaseEndsATenure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	p := b.process(outbox.NodeConfig{TTL: tick}, "sums0_v1", "sums1_v1")
	counts(t, b, []int{2}, p)
	b.exec(`update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'thief',
		lease_until = clock_timestamp() + interval '1 hour' where name = 'sums0_v1'`)
	until(b.ctx, t, "it notices", func() bool { return slices.Equal(p.owned(), []string{"sums1_v1"}) })
	b.exec(`update checkpoints set lease_until = '-infinity' where name = 'sums0_v1'`)
	counts(t, b, []int{2}, p)
}

// The checkpoint of a table that was replaced is held for ever. A process that wants it still, until it notices, renews its
// other leases all the same.
func TestALeaseThatNeverRunsOutDisturbsNoRenewal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	p := b.process(outbox.NodeConfig{TTL: tick}, "sums0_v1", "sums1_v1")
	counts(t, b, []int{2}, p)
	renewed := func() int {
		return b.count(`select coalesce(max(extract(epoch from seen_until) * 1000), 0)::bigint from nodes`)
	}
	until(b.ctx, t, "the first renewal", func() bool { return renewed() > 0 })
	b.exec(`update checkpoints set lease_epoch = lease_epoch + 1, lease_owner = 'retired', lease_until = 'infinity' where name = 'sums0_v1'`)
	before := renewed()
	until(b.ctx, t, "renewals for two lives of a lease", func() bool { return renewed() > before+2*int(tick.Milliseconds()) })
	until(b.ctx, t, "it works on the other", func() bool { return slices.Equal(p.owned(), []string{"sums1_v1"}) })
}

// A process that was killed and started anew under the same name, as in development, takes its own leases over at once.
func TestANodeOfTheSameNameTakesItsLeasesOverAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`insert into checkpoints (name, log_id, lease_owner, lease_epoch, lease_until)
		select 'sums0_v1', log_id, 'development', 4, clock_timestamp() + interval '1 hour' from log`)
	b.exec(`insert into nodes (id, seen_until, wants) values ('development', clock_timestamp() + interval '1 hour', '{}')`)
	p := b.process(outbox.NodeConfig{ID: "development", TTL: time.Hour}, "sums0_v1")
	counts(t, b, []int{1}, p)
}

func TestPausedAndHaltedCheckpointsAreShownByTheNode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`insert into checkpoints (name, log_id, paused_at, paused_by)
		select 'sums0_v1', log_id, clock_timestamp(), 'ada' from log`)
	p := b.process(outbox.NodeConfig{TTL: tick}, "sums0_v1")
	until(b.ctx, t, "it is shown as paused", func() bool { return p.consumers[0].Status().PausedBy == "ada" })
	b.exec(`update checkpoints set paused_at = null, paused_by = null where name = 'sums0_v1'`)
	counts(t, b, []int{1}, p)
}

// The leases of a relay are shared out too, and its state is shown.
func TestARelayIsHandedOverToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(20, 2)
	told := &recorder{changed: make(chan struct{}, 1)}
	relay := func(p *process, name string) (*outbox.Relay, func()) {
		r := outbox.NewRelay(p.b.store, recorderOf{told, name}, outbox.RelayConfig{
			Pool: b.pool, Node: p.node, PollMax: time.Hour, Logger: slog.New(slog.DiscardHandler),
		})
		return r, b.run(r.Run)
	}
	one, two := b.process(outbox.NodeConfig{TTL: time.Hour}), b.process(outbox.NodeConfig{TTL: time.Hour})
	until(b.ctx, t, "they know each other and hear", func() bool {
		a, b := one.node.Status(), two.node.Status()
		return a.Others == 1 && b.Others == 1 && a.Hears && b.Hears
	})
	first, stop := relay(one, "one")
	told.reach(t, b, 20)
	until(b.ctx, t, "the first owns it", func() bool { return first.Status().Owner })
	second, _ := relay(two, "two")
	until(b.ctx, t, "the second stands by", func() bool { return second.Status().Running && second.Status().Position == 20 })
	stop()
	until(b.ctx, t, "the second owns it", func() bool { return second.Status().Owner })
	one.b.add(10, 2) // in a process that does not relay: the hint wakes the other
	told.reach(t, b, 30)
	told.check(t, 1)
}

// As servers run: the broker loses what comes last, another process appends, and nobody waits. The head that renewals see
// brings it; the look at the log that a consumer takes by itself would be too late for this test.
func TestALostLastMessageIsHealedByTheNextRenewal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	silent := outbox.NewLocal(outbox.LocalConfig{}) // nobody publishes to it
	defer silent.Close()
	p := b.process(outbox.NodeConfig{TTL: tick})
	sub, at := sums("sums_v1")
	cfg := outbox.ConsumerConfig{Node: p.node, Probe: 2100 * time.Millisecond, Logger: quiet()}
	b.add(1, 1)
	b.run(outbox.NewConsumer(b.pool, p.b.store, silent, sub, cfg).Run)
	at.reach(b.ctx, t, 1) // by the look at the log that each tenure begins with
	for _, head := range []int64{2, 3} {
		b.add(1, 1) // the first may be found by the first probe, which asks by itself
		at.reach(b.ctx, t, head)
	}
	b.checkSums("sums_v1", 3)
}
