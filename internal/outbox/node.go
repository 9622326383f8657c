package outbox

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// NodeConfig configures a Node. The zero value is ready for use.
type NodeConfig struct {
	// ID names this process in the table of nodes and in the leases that it holds; leases under the same name are taken
	// over at once. No two processes that live may have the same. Default: random.
	ID string
	// TTL is how long leases and the node itself last without renewal, which is sent every quarter of it. Default 5 s.
	TTL time.Duration
	// ListenURL leads to the same database without a pooler in transaction mode in between, for hints of other processes.
	// Default: as the pool connects.
	ListenURL string
	// Debounce is the least time between two hints that this process sends after its commits. The first is sent at once.
	// Default 5 ms.
	Debounce time.Duration
	// PollMin and PollMax bound the time between two looks at the head of the log while other processes live and their
	// hints do not arrive. It doubles while nothing is found. Defaults 50 ms and 500 ms.
	PollMin, PollMax time.Duration
	// Check is how often the connection for hints is tried, by a hint to itself, and CheckTimeout how long that may take
	// before another connection is made. Defaults 30 s and 5 s.
	Check, CheckTimeout time.Duration
	// Logger is told of failures. Default slog.Default().
	Logger *slog.Logger
}

func (c NodeConfig) withDefaults() NodeConfig {
	c.ID = orDefault(c.ID, uuid.NewString())
	c.TTL = orDefault(c.TTL, defaultTTL)
	c.Debounce = orDefault(c.Debounce, 5*time.Millisecond)
	c.PollMin = orDefault(c.PollMin, 50*time.Millisecond)
	c.PollMax = orDefault(c.PollMax, 500*time.Millisecond)
	c.Check = orDefault(c.Check, 30*time.Second)
	c.CheckTimeout = orDefault(c.CheckTimeout, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

const (
	defaultTTL = 5 * time.Second
	// keptAfterForce is how long a lease stays with the node that took it because others, who had fewer, did not: giving it
	// back sooner would leave it without an owner again and again.
	keptAfterForce = 10 * time.Minute
	// alonePace is how often a process that stands by looks by itself, should its node not tell it.
	alonePace = time.Minute
)

// Node is this process among those that share a database. It renews the leases of all consumers and relays that were
// configured with it, by one statement, and shares them out: a process takes no lease that another wants which has
// fewer, unless nobody takes it for as long as leases last; and one that has at least two more than another gives back,
// one at a time, what the other wants. A process that stops gives back what it has, and the others, who are told, take it at
// once; what a killed one had is taken when it runs out, by the database's clock.
//
// A node also tells the other nodes after commits of this process's store, and lets whoever waits for
// Store.Committed look when they tell of theirs. That is a hint, which may be lost: the next renewal finds the head of
// the log too.
type Node struct {
	pool  *pgxpool.Pool
	store *eventstore.Store
	cfg   NodeConfig
	host  string
	now   chan struct{} // holds a value when the leases are to be looked at at once

	taking  sync.Mutex // one lease at a time, so that each look counts what was taken before
	beating sync.Mutex // held while a renewal says what this process wants

	mu      sync.Mutex
	seats   map[*seat]struct{}
	empty   chan struct{} // closed while there are no seats
	others  int           // other nodes alive, when last seen
	hears   bool          // hints arrive
	head    int64         // of the log, when last seen
	headAt  time.Time     // when that was
	checked chan struct{} // holds a value when the own hint came
}

// seat is what a node knows of one lease that this process wants. All but wake belongs to the node's lock.
type seat struct {
	lease     *lease
	look      func(Status)  // told of each state while it is not held; may be nil
	wake      chan struct{} // holds a value when the lease may be free
	epoch     int64         // of the tenure; 0: not held
	stop      func()        // ends the tenure
	freeSince time.Time     // zero: not free, when last seen
	keepUntil time.Time
}

// NewNode makes a node, which Run starts. The store is that of the pool's database.
func NewNode(pool *pgxpool.Pool, store *eventstore.Store, cfg NodeConfig) *Node {
	n := &Node{
		pool: pool, store: store, cfg: cfg.withDefaults(), now: make(chan struct{}, 1), checked: make(chan struct{}, 1),
		seats: map[*seat]struct{}{}, empty: make(chan struct{}),
	}
	close(n.empty)
	n.host, _ = os.Hostname() // for people only
	return n
}

// NodeStatus is what a node knows of the fleet.
type NodeStatus struct {
	ID     string
	Others int  // other nodes that were alive when last seen
	Leases int  // held by this process
	Hears  bool // hints of other processes arrive
}

// Status returns the node's state. It may be called by any goroutine.
func (n *Node) Status() NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := NodeStatus{ID: n.cfg.ID, Others: n.others, Hears: n.hears}
	for seat := range n.seats {
		if seat.epoch > 0 {
			s.Leases++
		}
	}
	return s
}

// Run keeps the node alive until ctx ends, and then for as long as consumers and relays give their leases back, a TTL at
// most; they end by contexts of their own. Then the node is gone for the others too, and Run returns nil. It may be called
// once.
func (n *Node) Run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var helpers sync.WaitGroup
	helpers.Go(func() { n.announce(running) })
	helpers.Go(func() { n.listen(running) })
	helpers.Go(func() { n.lookOut(running) })
	helpers.Go(func() { n.keepAlive(running) })
	<-ctx.Done()
	n.awaitEmpty()
	stop()
	helpers.Wait()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell(n.cfg.TTL))
	defer cancel()
	if _, err := n.pool.Exec(ending, sqlLeave, n.cfg.ID, hintChannel, hint{kind: hintLeases, node: n.cfg.ID}.String()); err != nil {
		n.cfg.Logger.Warn("this process is taken for alive until its time runs out", "error", err)
	}
	return nil
}

func (n *Node) awaitEmpty() {
	timer := time.NewTimer(n.cfg.TTL)
	defer timer.Stop()
	n.mu.Lock()
	empty := n.empty
	n.mu.Unlock()
	select {
	case <-empty:
	case <-timer.C:
	}
}

// keepAlive renews, on time and whenever there is news.
func (n *Node) keepAlive(ctx context.Context) {
	first := true
	retry := pace{least: min(50*time.Millisecond, n.cfg.TTL/4), most: min(time.Second, n.cfg.TTL/4)}
	for ctx.Err() == nil {
		next, err := n.beat(ctx)
		switch {
		case err == nil:
			retry.reset()
			if first {
				first = false
				// The others learn at once that they are not alone. One that began at the same moment was not to be seen yet.
				n.send(ctx, hint{kind: hintLeases, node: n.cfg.ID})
			}
		case ctx.Err() == nil:
			n.cfg.Logger.Warn("renewing the leases failed; it is tried again", "error", err)
			next = jitter(retry.step())
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-n.now:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// beatNow has the leases looked at at once.
func (n *Node) beatNow() { signal(n.now) }

// join makes the node look after a lease. Look is told how the checkpoint is while others have it.
func (n *Node) join(l *lease, look func(Status)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seats) == 0 {
		n.empty = make(chan struct{})
	}
	l.seat = &seat{lease: l, look: look, wake: make(chan struct{}, 1)}
	n.seats[l.seat] = struct{}{}
	n.beatNow()
}

// part ends what join began: the lease is not wanted any more.
func (n *Node) part(l *lease) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, joined := n.seats[l.seat]; !joined {
		return
	}
	delete(n.seats, l.seat)
	if len(n.seats) == 0 {
		close(n.empty)
	}
}

// hold has the lease, which was just taken, renewed until release. Stop is called when it is lost or is to be given back.
func (n *Node) hold(l *lease, stop func()) (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l.seat.epoch, l.seat.stop, l.seat.freeSince = l.epoch, stop, time.Time{}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		l.seat.epoch, l.seat.stop = 0, nil
	}
}

// overdue tells whether nobody took the lease for so long that this process must, however many it has.
func (n *Node) overdue(l *lease) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.seat.freeSince.IsZero() || time.Since(l.seat.freeSince) < n.cfg.TTL {
		return false
	}
	l.seat.keepUntil = time.Now().Add(keptAfterForce)
	return true
}

// saw takes note of the head of the log, and lets those look who follow it, when there is more than this process committed.
func (n *Node) saw(head int64) (news bool) {
	own, _ := n.store.Committed()
	n.mu.Lock()
	news = head != n.head && head > own
	n.head, n.headAt = head, time.Now()
	n.mu.Unlock()
	if news {
		n.store.Wake()
	}
	return news
}

// knownHead is the head of the log as the newest renewal saw it, if that was not long ago. Without a node nothing is known.
func (n *Node) knownHead() (head int64, known bool) {
	if n == nil {
		return 0, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.head, time.Since(n.headAt) < n.cfg.TTL
}
