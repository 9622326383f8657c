package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

var (
	// errLost says that the lease belongs to somebody else or has run out.
	errLost = errors.New("the lease is lost")
	// errFenced says that a checkpoint did not move: the lease is lost, somebody moved it, or the log holds another
	// event at the new position.
	errFenced = errors.New("the checkpoint was not moved")
)

// ShardsError says that a checkpoint was begun with another number of shards than the program says, or that the row of a
// shard is gone. Its table could only become wrong, so nobody works on it.
type ShardsError struct {
	Checkpoint    string
	Shard, Shards int // as the program has them
	Kept          int // as the checkpoint has them
}

func (e *ShardsError) Error() string {
	if e.Kept == e.Shards {
		return fmt.Sprintf("checkpoint %s has lost the row of shard %d of %d, and with it what is in its table: rebuild the view",
			e.Checkpoint, e.Shard, e.Shards)
	}
	return fmt.Sprintf("checkpoint %s was begun with %d shards, and the program says %d: rebuild the view with "+
		"--switch, which fills a new table with %[3]d and lets it serve, or go back to %[2]d", e.Checkpoint, e.Kept, e.Shards)
}

// lease is the right to move one checkpoint, or one shard of it. The clock that judges it is the database's; renewed is only a hint.
type lease struct {
	pool    *pgxpool.Pool
	name    string
	shard   int
	shards  int
	owner   string
	ttl     time.Duration
	epoch   int64        // of the tenure; 0 before the first
	renewed atomic.Int64 // when the newest successful renewal was sent, in nanoseconds since start
	start   time.Time
	at      atomic.Int64  // the position that a consumer which owns it knows as committed
	back    chan struct{} // holds a value when the checkpoint was seen to be before that
	node    *Node         // nil: alone
	seat    *seat         // at the node
}

// leaseKey is what a lease is for.
type leaseKey struct {
	name  string
	shard int
}

func (l *lease) key() leaseKey { return leaseKey{l.name, l.shard} }

// join lets a node, if there is one, look after the lease. Look is told how the checkpoint is while others have it.
func (l *lease) join(node *Node, look func(Status)) {
	if node != nil {
		l.node, l.owner, l.ttl = node, node.cfg.ID, node.cfg.TTL
		node.join(l, look)
	}
}

// part ends what join began.
func (l *lease) part() {
	if l.node != nil {
		l.node.part(l)
	}
}

// standBy waits until it is worth another try: alone for about as long as given, else until the node says so.
func (l *lease) standBy(ctx context.Context, alone time.Duration) {
	if l.node == nil {
		pause(ctx, jitter(alone))
		return
	}
	timer := time.NewTimer(jitter(alonePace))
	defer timer.Stop()
	select {
	case <-l.seat.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func newLease(pool *pgxpool.Pool, name string, shard int, owner string, ttl time.Duration) *lease {
	if owner == "" {
		owner = uuid.NewString()
	}
	return &lease{pool: pool, name: name, shard: shard, shards: 1, owner: owner, ttl: ttl, start: time.Now(), back: make(chan struct{}, 1)}
}

// create makes the rows of all the checkpoint's shards when there are none yet, where start says; nobody is asked for that
// otherwise. A checkpoint that was begun with another number of shards, or that has lost this one, is a *ShardsError. It
// returns where the checkpoint was begun, as far as that is known.
func (l *lease) create(ctx context.Context, from From, start func(context.Context) (eventstore.Token, error)) (begun From, err error) {
	kept, there, begun, err := l.rows(ctx)
	if err == nil && kept == 0 {
		var at eventstore.Token
		if at, err = start(ctx); err == nil {
			_, err = l.pool.Exec(ctx, sqlCreate, l.name, l.shards, at.Position, at.EventID, at.LogID, at.Epoch, from)
		}
		if err == nil {
			kept, there, begun, err = l.rows(ctx)
		}
	}
	if err != nil {
		return "", fmt.Errorf("creating checkpoint %s: %w", l.name, err)
	}
	if kept != l.shards || !there {
		return "", &ShardsError{Checkpoint: l.name, Shard: l.shard, Shards: l.shards, Kept: kept}
	}
	return begun, nil
}

// rows tells with how many shards the checkpoint was begun, 0 if it was not, whether this one has its row, and from where.
func (l *lease) rows(ctx context.Context) (kept int, there bool, begun From, err error) {
	err = l.pool.QueryRow(ctx, sqlShards, l.name, l.shard).Scan(&kept, &there, &begun)
	return kept, there, begun, err
}

// take tries to become the owner and returns the checkpoint.
func (l *lease) take(ctx context.Context, evenHalted bool) (at eventstore.Token, taken bool, err error) {
	whoeverHasFewer := true
	if l.node != nil {
		l.node.taking.Lock()
		defer l.node.taking.Unlock()
		whoeverHasFewer = l.node.overdue(l)
	}
	sent := time.Since(l.start)
	err = l.pool.QueryRow(ctx, sqlTake, l.name, l.shard, l.owner, l.ttl.Seconds(), evenHalted, l.shards, whoeverHasFewer).
		Scan(&l.epoch, &at.Position, &at.EventID, &at.LogID, &at.Epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, false, nil
	}
	if err != nil {
		return at, false, fmt.Errorf("taking the lease of %s: %w", l.name, err)
	}
	l.renewed.Store(int64(sent))
	return at, true, nil
}

// reload reads the checkpoint again, or says errLost.
func (l *lease) reload(ctx context.Context) (at eventstore.Token, err error) {
	err = l.pool.QueryRow(ctx, sqlReload, l.name, l.shard, l.epoch).Scan(&at.Position, &at.EventID, &at.LogID, &at.Epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, errLost
	}
	if err != nil {
		return at, fmt.Errorf("reading checkpoint %s: %w", l.name, err)
	}
	return at, nil
}

func (l *lease) renew(ctx context.Context) error {
	sent := time.Since(l.start)
	tag, err := l.pool.Exec(ctx, sqlRenew, l.name, l.shard, l.epoch, l.ttl.Seconds())
	if err != nil {
		return fmt.Errorf("renewing the lease of %s: %w", l.name, err)
	}
	if tag.RowsAffected() == 0 {
		return errLost
	}
	l.renewed.Store(int64(sent))
	return nil
}

// farewell is how long an owner, or a node, may take to say that it ends. Later a lease would soon be over by itself.
func farewell(ttl time.Duration) time.Duration { return max(2*time.Second, ttl/2) }

// age is how long ago the newest successful renewal was sent.
func (l *lease) age() time.Duration { return time.Since(l.start) - time.Duration(l.renewed.Load()) }

// keep renews the lease until ctx ends, and calls lost when it cannot be renewed because it is not held any more, or when
// the node wants to give it to another.
func (l *lease) keep(ctx context.Context, lost func()) {
	if l.node != nil {
		defer l.node.hold(l, lost)()
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(l.ttl / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if l.age() < l.ttl/4 {
			continue // a checkpoint that moves renews the lease
		}
		// An unreachable database is no reason to stop: what the owner writes is fenced, and it may come back in time.
		if errors.Is(l.renew(ctx), errLost) {
			lost()
			return
		}
	}
}

// release gives the lease back, so that another process need not wait until it runs out, and tells the others. Leaving
// says that this process does not want it any more.
func (l *lease) release(ctx context.Context, leaving bool) error {
	if l.node == nil {
		_, err := l.pool.Exec(ctx, sqlRelease, l.name, l.shard, l.epoch, false, "")
		return err
	}
	if leaving {
		l.part()
		l.node.beating.Lock() // a renewal that is on its way would say that it is wanted
		defer l.node.beating.Unlock()
	}
	_, err := l.pool.Exec(ctx, sqlRelease, l.name, l.shard, l.epoch, leaving, l.owner)
	l.node.tell(ctx, hintLeases)
	return err
}

// halt records why the checkpoint does not move any more and gives the lease back.
func (l *lease) halt(ctx context.Context, reason string) error {
	if _, err := l.pool.Exec(ctx, sqlHalt, l.name, l.shard, l.epoch, eventstore.Reason(reason)); err != nil {
		return fmt.Errorf("halting %s: %w", l.name, err)
	}
	return nil
}

// stamp says of a checkpoint whose event is still in the log that it is of the log's present epoch.
func (l *lease) stamp(ctx context.Context, at *eventstore.Token, head eventstore.Token) error {
	if at.LogID == head.LogID && at.Epoch == head.Epoch {
		return nil
	}
	if _, err := l.pool.Exec(ctx, sqlStamp, l.name, l.shard, l.epoch, head.LogID, head.Epoch); err != nil {
		return fmt.Errorf("stamping checkpoint %s with the epoch %d: %w", l.name, head.Epoch, err)
	}
	at.LogID, at.Epoch = head.LogID, head.Epoch
	return nil
}

// queueAdvance adds the move of the checkpoint to a batch. The move fails the batch when it cannot be made.
func (l *lease) queueAdvance(b *pgx.Batch, from, to eventstore.Token) {
	b.Queue(sqlAdvance, l.name, l.shard, l.epoch, l.ttl.Seconds(), from.Position, to.Position, to.LogID, to.Epoch, to.EventID)
}

// scanAdvance reads the answer to queueAdvance: the event at the new position.
func scanAdvance(results pgx.BatchResults) (id uuid.UUID, err error) {
	var one int64
	err = results.QueryRow().Scan(&one, &id)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "22012" {
		return id, errFenced
	}
	return id, err
}

// advance moves the checkpoint in a transaction of its own, in one round trip. The event id of to may be zero: unknown.
func (l *lease) advance(ctx context.Context, from, to eventstore.Token) (eventstore.Token, error) {
	sent := time.Since(l.start)
	var b pgx.Batch
	b.Queue(sqlAsync)
	l.queueAdvance(&b, from, to)
	results := l.pool.SendBatch(ctx, &b)
	_, err := results.Exec()
	if err == nil {
		to.EventID, err = scanAdvance(results)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return from, fmt.Errorf("moving checkpoint %s to %d: %w", l.name, to.Position, err)
	}
	l.renewed.Store(int64(sent))
	return to, nil
}
