package outbox_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// ear hears all hints of a database, as they are.
type ear struct {
	mu      sync.Mutex
	heard   []string
	changed chan struct{}
}

func (b *bundle) ear() *ear {
	b.t.Helper()
	conn, err := pgx.ConnectConfig(b.ctx, b.pool.Config().ConnConfig.Copy())
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := conn.Exec(b.ctx, "listen headrace"); err != nil {
		b.t.Fatal(err)
	}
	e := &ear{changed: make(chan struct{}, 1)}
	b.run(func(ctx context.Context) error {
		defer conn.Close(context.WithoutCancel(ctx))
		for {
			note, err := conn.WaitForNotification(ctx)
			if err != nil {
				return nil
			}
			e.mu.Lock()
			e.heard = append(e.heard, note.Payload)
			e.mu.Unlock()
		}
	})
	return e
}

func (e *ear) count(kind string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, payload := range e.heard {
		if strings.HasPrefix(payload, kind) {
			n++
		}
	}
	return n
}

// mark sends a hint of the test's own and waits until it was heard: what was sent before it has come too.
func (b *bundle) mark(e *ear) {
	b.t.Helper()
	before := e.count("mark")
	b.exec(`select pg_notify('headrace', 'mark')`)
	until(b.ctx, b.t, "the mark", func() bool { return e.count("mark") > before })
}

func acquainted(b *bundle, processes ...*process) {
	b.t.Helper()
	until(b.ctx, b.t, "they know each other and hear", func() bool {
		for _, p := range processes {
			if s := p.node.Status(); s.Others != len(processes)-1 || !s.Hears {
				return false
			}
		}
		return true
	})
}

func TestCommitsAreToldOnlyWhenOthersLive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.ear()
	one := b.process(outbox.NodeConfig{TTL: time.Hour})
	acquainted(b, one)
	one.b.add(30, 1)
	b.mark(e)
	if n := e.count("commit"); n != 0 {
		t.Fatalf("a process alone sent %d hints", n)
	}
	two := b.process(outbox.NodeConfig{TTL: time.Hour})
	acquainted(b, one, two)
	_, next := two.b.store.Committed()
	one.b.add(1, 1)
	select {
	case <-next:
	case <-b.ctx.Done():
		t.Fatal("the other was not woken")
	}
	if head, _ := two.b.store.Committed(); head != 0 {
		t.Fatalf("the hint was taken for the truth: %d", head)
	}
}

func TestHintsOfManyCommitsAreFew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.ear()
	one, two := b.process(outbox.NodeConfig{TTL: time.Hour, Debounce: time.Hour}), b.process(outbox.NodeConfig{TTL: time.Hour})
	acquainted(b, one, two)
	one.b.add(500, 1)
	until(b.ctx, t, "the first commit is told at once", func() bool { return e.count("commit") > 0 })
	b.mark(e)
	if n := e.count("commit"); n != 1 {
		t.Fatalf("%d hints within one debounce", n)
	}
}

// A hint in the appending transaction would take Postgres's lock on notifications while the log's lock is held, and make
// all processes' appends wait for each other once more.
func TestNoHintIsSentWithinAnAppend(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.ear()
	b.exec(`insert into nodes (id, seen_until) values ('other', clock_timestamp() + interval '1 hour')`)
	b.add(50, 1) // a store without a node
	b.mark(e)
	if n := e.count("commit"); n != 0 {
		t.Fatalf("the store sent %d hints by itself", n)
	}

	// A node beside the store tells of its commits, over no connection of the store's.
	w := newMutedWire(t, b.pool.Config().ConnConfig)
	pool, err := pgxpool.New(b.ctx, w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store, err := eventstore.Open(b.ctx, pool, b.store.Registry(), eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	node := outbox.NewNode(b.pool, store, outbox.NodeConfig{TTL: time.Hour, Logger: quiet()})
	b.run(node.Run)
	until(b.ctx, t, "it knows of the other", func() bool { return node.Status().Others == 1 })
	through := &bundle{t: t, ctx: b.ctx, pool: b.pool, store: store}
	through.add(50, 1)
	until(b.ctx, t, "the commits are told", func() bool { return e.count("commit") > 0 })
	sent := strings.ToLower(w.sent())
	if !strings.Contains(sent, "insert into events") {
		t.Fatal("the appends went another way")
	}
	if strings.Contains(sent, "notify") {
		t.Fatal("the store's own connections carry hints")
	}
}

func TestALostHintIsHealedByTheNextRenewal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.process(outbox.NodeConfig{TTL: tick})
	acquainted(b, p)
	_, next := p.b.store.Committed()
	b.add(1, 1) // told by nobody
	select {
	case <-next:
	case <-b.ctx.Done():
		t.Fatal("nobody looked")
	}
}

// Behind a pooler in transaction mode LISTEN is accepted and nothing ever comes. The node polls then, for all of its
// process, and says so once.
func TestWithoutHintsTheHeadIsPolled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pooler := pgtest.StartPooler(t, pgtest.URL(t), 2)
	cfg := outbox.NodeConfig{
		TTL: time.Hour, ListenURL: pooler.URL, Check: 10 * time.Millisecond, CheckTimeout: 300 * time.Millisecond,
		PollMin: time.Millisecond, PollMax: 10 * time.Millisecond,
	}
	p := b.process(cfg)
	b.exec(`insert into nodes (id, seen_until) values ('other', clock_timestamp() + interval '1 hour')`)
	b.exec(`select pg_notify('headrace', 'leases 0 other')`)
	other := b.process(outbox.NodeConfig{TTL: time.Hour})
	_ = other
	until(b.ctx, t, "it knows of others", func() bool { return p.node.Status().Others > 0 })
	for range 3 {
		_, next := p.b.store.Committed()
		b.add(1, 1)
		select {
		case <-next:
		case <-b.ctx.Done():
			t.Fatal("the head was not polled")
		}
	}
}

// listeners are the backends that wait for hints in this test's database.
func (b *bundle) listeners() (pids []int) {
	b.t.Helper()
	rows, err := b.pool.Query(b.ctx, `select pid from pg_stat_activity
		where datname = current_database() and query = 'listen headrace' and state = 'idle'`)
	if err != nil {
		b.t.Fatal(err)
	}
	pids, err = pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.t.Fatal(err)
	}
	return pids
}

// When the connection for hints is cut, another is made, and what was committed meanwhile is looked for at once.
func TestACutConnectionIsMadeAnewAndLooksAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.process(outbox.NodeConfig{TTL: time.Hour})
	acquainted(b, p)
	before := b.listeners()
	if len(before) != 1 {
		t.Fatalf("%d listen", len(before))
	}
	_, next := p.b.store.Committed()
	b.exec(`select pg_terminate_backend($1)`, before[0])
	select {
	case <-next: // not told by anybody: the look after connecting
	case <-b.ctx.Done():
		t.Fatal("nobody looked after the connection came back")
	}
	until(b.ctx, t, "it hears again", func() bool {
		now := b.listeners()
		return p.node.Status().Hears && len(now) == 1 && now[0] != before[0]
	})
}

// A connection that carries nothing any more, and does not end, is noticed by the hint to itself that does not come back.
func TestADeadConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := newMutedWire(t, b.pool.Config().ConnConfig)
	p := b.process(outbox.NodeConfig{
		TTL: time.Hour, ListenURL: w.url, Check: 5 * time.Millisecond, CheckTimeout: time.Second,
	})
	acquainted(b, p)
	before := w.mute()
	// It hears the new one only after it has noticed; that it does not hear may pass too quickly to be seen.
	until(b.ctx, t, "it is noticed, and another connection made", func() bool { return w.made() > before })
	until(b.ctx, t, "it hears over that", func() bool { return p.node.Status().Hears })
}

// Run returns also while the connection for hints hangs.
func TestStopReturnsWhileTheConnectionHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := newMutedWire(t, b.pool.Config().ConnConfig)
	p := b.process(outbox.NodeConfig{TTL: time.Hour, ListenURL: w.url})
	acquainted(b, p)
	w.mute()
	p.stop()
	if n := b.count(`select count(*) from nodes`); n != 0 {
		t.Errorf("%d nodes are left", n)
	}
}

// Run returns also while somebody who accepts the connection for hints says nothing.
func TestStopReturnsWhileTheConnectionIsNotAnswered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := newDoor(t, func(net.Conn) {})
	p := b.process(outbox.NodeConfig{TTL: time.Hour, ListenURL: d.url, CheckTimeout: never})
	until(b.ctx, t, "it knocks", func() bool { return d.knocks() > 0 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop()
	}()
	select {
	case <-stopped:
	case <-b.ctx.Done():
		t.Fatal("it does not stop")
	}
	if n := b.count(`select count(*) from nodes`); n != 0 {
		t.Errorf("%d nodes are left", n)
	}
}

// A server that takes connections for hints and drops them is asked ever more seldom. The time is the database's; whatever the
// test's own machine does meanwhile, the pauses double.
func TestAConnectionThatIsDroppedIsMadeAnewEverMoreSeldom(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := newDoor(t, func(c net.Conn) { _ = c.Close() })
	b.process(outbox.NodeConfig{TTL: time.Hour, ListenURL: d.url, Check: time.Hour})
	until(b.ctx, t, "it is tried again", func() bool { return d.knocks() >= 2 })
	b.exec(`select pg_sleep(2)`)
	if n := d.knocks(); n > 14 { // the pauses of 14 last 6 minutes at least
		t.Fatalf("%d connections in 2 s", n)
	}
}

// What is committed within a debounce is told when it is over.
func TestTheLastCommitWithinADebounceIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.ear()
	cfg := outbox.NodeConfig{TTL: time.Hour, Debounce: 200 * time.Millisecond}
	one, two := b.process(cfg), b.process(cfg)
	acquainted(b, one, two)
	one.b.add(1, 1)
	until(b.ctx, t, "the first commit is told at once", func() bool { return e.count("commit 1 ") == 1 })
	one.b.add(2, 1)
	until(b.ctx, t, "the last is told too", func() bool { return e.count("commit 3 ") == 1 })
}

// Hints of a process wake everything that follows the log in another.
func TestAHintWakesConsumersOfAnotherProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.process(outbox.NodeConfig{TTL: time.Hour}, "sums0_v1"), b.process(outbox.NodeConfig{TTL: time.Hour})
	acquainted(b, one, two)
	until(b.ctx, t, "the first owns the view", func() bool { return len(one.owned()) == 1 })
	if _, err := two.b.store.Append(b.ctx, eventstore.Request{
		Stream: "sum-9", Expected: eventstore.Any, Events: []eventstore.Payload{added{N: 9}},
	}); err != nil {
		t.Fatal(err)
	}
	until(b.ctx, t, "the view has it", func() bool { return one.consumers[0].Status().Position == 1 })
}

// A node that ends in the middle of a renewal does not seem alive afterwards.
func TestANodeThatEndsWhileItRenewsIsGone(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	var told atomic.Int64
	b.run(func(ctx context.Context) error { // has nodes renew again and again
		for ctx.Err() == nil {
			if _, err := b.pool.Exec(ctx, `select pg_notify('headrace', 'leases 0 other')`); err == nil {
				told.Add(1)
			}
		}
		return nil
	})
	for range 30 {
		node := outbox.NewNode(b.pool, b.store, outbox.NodeConfig{TTL: time.Hour, Logger: quiet()})
		stop := b.run(node.Run)
		until(b.ctx, t, "it hears", func() bool { return node.Status().Hears })
		before := told.Load()
		until(b.ctx, t, "it is told", func() bool { return told.Load() >= before+3 })
		stop()
	}
	if n := b.count(`select count(*) from nodes`); n != 0 {
		t.Errorf("%d nodes of 30 seem alive", n)
	}
}
