package outbox

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// beat renews this node and its leases, learns of the others, and sees to it that each has its share. It returns
// when the next is due.
func (n *Node) beat(ctx context.Context) (next time.Duration, err error) {
	next = n.cfg.TTL / 4
	// One that is cut off may be carried out all the same, after this node has left, and let it seem alive.
	lasting, end := outlast(ctx, farewell(n.cfg.TTL))
	defer end()
	bounded, cancel := context.WithTimeout(lasting, max(n.cfg.TTL, time.Second))
	defer cancel()
	n.beating.Lock()
	asked := n.asked()
	rows, err := n.renew(bounded, asked)
	n.beating.Unlock()
	if err != nil {
		return next, err
	}
	others, least := rows[0].Others, rows[0].Least
	n.saw(rows[0].Head)
	held, movable := 0, []leaseKey{}
	n.mu.Lock()
	if n.others != others {
		n.cfg.Logger.Debug("other processes on this database", "others", others)
	}
	n.others = others
	var calls []func()
	for _, row := range rows {
		seat, known := asked.seats[leaseKey{row.Name, row.Shard}]
		if _, still := n.seats[seat]; !known || !still {
			continue
		}
		if seat.epoch > 0 {
			held++
			if time.Now().After(seat.keepUntil) {
				movable = append(movable, seat.lease.key())
			}
		}
		calls = append(calls, n.judge(seat, asked, row))
		if row.Expires > 0 && row.Expires < next {
			next = row.Expires + 5*time.Millisecond
		}
	}
	n.mu.Unlock()
	for _, call := range calls {
		call()
	}
	if others > 0 && held >= least+2 && len(movable) > 0 {
		return next, n.giveBack(bounded, movable)
	}
	return next, nil
}

// asked is what a renewal says of this process.
type asked struct {
	sent   time.Time
	seats  map[leaseKey]*seat
	at     map[leaseKey]int64 // how far their owners here knew them to be
	names  []string
	shards []int
	epochs []int64 // 0: not held
}

func (n *Node) asked() asked {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := asked{sent: time.Now(), seats: make(map[leaseKey]*seat, len(n.seats)), at: make(map[leaseKey]int64, len(n.seats))}
	for seat := range n.seats {
		a.seats[seat.lease.key()], a.at[seat.lease.key()] = seat, seat.lease.at.Load()
		a.names, a.shards = append(a.names, seat.lease.name), append(a.shards, seat.lease.shard)
		a.epochs = append(a.epochs, seat.epoch)
	}
	return a
}

// renewal is a row of the answer to a renewal: what is so of the fleet, and of one lease.
type renewal struct {
	Others  int
	Least   int // leases of the other node that has the fewest
	Head    int64
	Name    string // empty: of no lease
	Shard   int
	Epoch   int64 // that was asked for
	Renewed bool
	Lost    bool // it is another's, or has run out
	Free    bool
	Expires time.Duration // of another's lease; 0: none
	Row     Status        // of the checkpoint
}

func (n *Node) renew(ctx context.Context, a asked) ([]renewal, error) {
	rows, err := n.pool.Query(ctx, sqlBeat, n.cfg.ID, n.cfg.TTL.Seconds(), n.host, os.Getpid(), a.names, a.shards, a.epochs)
	if err != nil {
		return nil, fmt.Errorf("renewing the leases: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r renewal, err error) {
		var expires float64
		var haltedAt, pausedAt *time.Time
		err = row.Scan(nil, &r.Others, &r.Least, &r.Head, &r.Name, &r.Shard, &r.Epoch, &r.Renewed, &r.Lost, &r.Free, &expires,
			&r.Row.Position, &r.Row.HaltReason, &haltedAt, &pausedAt, &r.Row.PausedBy)
		r.Row.HaltedAt, r.Row.PausedAt = orZero(haltedAt), orZero(pausedAt)
		r.Expires = time.Duration(expires * float64(time.Second))
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("renewing the leases: %w", err)
	}
	return all, nil
}

// judge takes over what was learnt of one lease, and returns what is to be called without the lock, which the caller
// holds.
func (n *Node) judge(s *seat, a asked, row renewal) func() {
	switch {
	case s.epoch != row.Epoch: // taken or given up meanwhile
		return func() {}
	case s.epoch > 0 && row.Lost:
		return s.stop
	case s.epoch > 0:
		if row.Renewed {
			s.lease.renewed.Store(int64(a.sent.Sub(s.lease.start)))
		}
		if row.Row.Position < a.at[s.lease.key()] { // Postgres crashed, and lost the last commits, which did not wait for the disk
			signal(s.lease.back)
		}
		return func() {}
	}
	switch {
	case !row.Free:
		s.freeSince = time.Time{}
	case s.freeSince.IsZero():
		s.freeSince = time.Now()
	}
	if row.Free {
		signal(s.wake)
	}
	if s.look == nil {
		return func() {}
	}
	return func() { s.look(row.Row) }
}

// giveBack ends one tenure, if another node wants its lease and has at least two fewer.
func (n *Node) giveBack(ctx context.Context, movable []leaseKey) error {
	names, shards := make([]string, len(movable)), make([]int, len(movable))
	for i, key := range movable {
		names[i], shards[i] = key.name, key.shard
	}
	var surplus leaseKey
	rows, err := n.pool.Query(ctx, sqlSurplus, n.cfg.ID, names, shards)
	if err == nil {
		defer rows.Close()
		if !rows.Next() {
			return rows.Err()
		}
		err = rows.Scan(&surplus.name, &surplus.shard)
	}
	if err != nil {
		return fmt.Errorf("looking for a lease to give back: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for seat := range n.seats {
		if seat.epoch > 0 && seat.lease.key() == surplus {
			n.cfg.Logger.Info("giving a lease to a process that has fewer", "name", surplus.name, "shard", surplus.shard)
			seat.stop()
		}
	}
	return nil
}
