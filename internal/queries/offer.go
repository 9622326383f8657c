package queries

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// Offer says how the readings of one view may be answered by a replica.
type Offer struct {
	// View is the stable name of the view that is read.
	View string
	// Tokens are what the answer has to include.
	Tokens []eventstore.Token
	// Else is called before the primary is read in the place of a replica, and once at the most. It returns when the primary
	// may be read, such as when its view includes the tokens.
	Else func(context.Context) error
	// Answered hears what a replica's answer included, before it is returned. Nil: nobody does.
	Answered func(Freshness)
}

// Offer returns a context with which readers of the view read from a replica that shows what the offer's tokens stand
// for in the same snapshot as the rows, or else, without waiting for a replica, from the primary. With any other context
// readers read from the primary. What one context has answered is never older than what it answered before.
func (r *Replicas) Offer(ctx context.Context, o Offer) context.Context {
	return context.WithValue(ctx, offerKey{}, &offer{Offer: o, replicas: r})
}

type offerKey struct{}

// offer is an Offer on its way.
type offer struct {
	Offer
	replicas *Replicas

	mu      sync.Mutex
	chosen  *replica // that answered first; nil: none yet
	settled bool     // the primary answers from now on
	failed  error    // what Else said
}

func offerOf(ctx context.Context) *offer {
	o, _ := ctx.Value(offerKey{}).(*offer)
	return o
}

// settle has the primary answer from now on.
func (o *offer) settle(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.settled {
		o.settled, o.failed = true, o.Else(ctx)
	}
	return o.failed
}

// place is a replica to read from, as it was when it was chosen.
type place struct {
	*replica
	pool    *pgxpool.Pool
	using   context.Context
	log     origin
	head    int64
	freshAt time.Time
}

// pick chooses the replica that answered before, or else the next one in turn that may be used.
func (o *offer) pick() (place, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.settled {
		return place{}, false
	}
	if o.chosen != nil {
		return o.replicas.try(o.chosen, o)
	}
	all := o.replicas.all
	for i, first := 0, int(o.replicas.turn.Add(1)); i < len(all); i++ {
		if found, ok := o.replicas.try(all[(first+i)%len(all)], o); ok {
			return found, true
		}
	}
	return place{}, false
}

// try is the replica as it is now, unless it is not to be used, or has lately lacked what the offer asks for.
func (r *Replicas) try(one *replica, o *offer) (place, bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if !one.usable(r.cfg.MaxLag) {
		return place{}, false
	}
	if position, lacked := one.lacks[o.View]; lacked && o.latest() >= position {
		return place{}, false
	}
	return place{replica: one, pool: one.pool, using: one.using, log: one.log, head: one.head, freshAt: one.freshAt}, true
}

// latest is the highest position that the answer has to include.
func (o *offer) latest() (position int64) {
	for _, t := range o.Tokens {
		position = max(position, t.Position)
	}
	return position
}

// lack says that the replica lacked what was asked for, and why.
func (o *offer) lack(one *replica, err error) {
	one.passed.Add(1)
	refused, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, errLacks):
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.lacks == nil {
			one.lacks = map[string]int64{}
		}
		if before, lacked := one.lacks[o.View]; !lacked || o.latest() < before {
			one.lacks[o.View] = o.latest()
		}
	case errors.Is(err, errStranger), errors.Is(err, errParked):
	case errors.Is(err, errPromoted), !answered, strings.HasPrefix(refused.Code, "57P"):
		if one.judge(fmt.Errorf("%w: %w", errReading, err)) {
			o.replicas.cfg.Logger.Warn("a replica is not used for reads", "replica", one.Name, "reason", err)
		}
	}
}

// Why a replica does not answer: it does not show yet what was asked for, it knows another history, or what it shows is
// marked by what the primary knows.
var (
	errLacks    = errors.New("the replica lacks what was asked for")
	errStranger = errors.New("the replica knows nothing of the history that was asked for")
	errParked   = errors.New("the view has parked streams on the replica")
)

// fromReplica answers from a replica. Answered is false when the primary has to answer.
func fromReplica[T any](
	ctx context.Context, o *offer, sql string, args []any, collect func(pgx.Rows) (T, error),
) (found T, answered bool, err error) {
	from, ok := o.pick()
	if !ok {
		return found, false, nil
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(from.using, cancel)()
	seen, err := from.snapshot(reading, o, sql, args, func(rows pgx.Rows) (err error) {
		found, err = collect(rows)
		return err
	})
	refused, said := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
	case ctx.Err() != nil, said && refused.Code == queryCancelled: // the primary would not do it in that time either
		return found, true, err
	default:
		o.lack(from.replica, err)
		return found, false, nil
	}
	from.reads.Add(1)
	o.mu.Lock()
	o.chosen = from.replica
	o.mu.Unlock()
	if o.Answered != nil {
		o.Answered(seen)
	}
	return found, true, nil
}

// snapshot reads, in one round trip and one snapshot, what the replica is, how far its view is, and the rows.
func (p place) snapshot(ctx context.Context, o *offer, sql string, args []any, rows func(pgx.Rows) error) (seen Freshness, err error) {
	positions, ids := make([]int64, 0, len(o.Tokens)), make([]uuid.UUID, 0, len(o.Tokens))
	for _, t := range o.Tokens {
		if t.Position > 0 {
			positions, ids = append(positions, t.Position), append(ids, t.EventID)
		}
	}
	var batch pgx.Batch
	batch.Queue(sqlBeginSnapshot)
	// Before the snapshot: what the name of the view stands for is the same for the proof and for the rows, though it is looked
	// up in the newest catalogue. A switch that is replayed meanwhile waits.
	batch.Queue(fmt.Sprintf(sqlHoldView, pgx.Identifier{o.View}.Sanitize()))
	batch.Queue(sqlReplicaState, positions, ids, o.View)
	batch.Queue(sqlServing, []string{o.View})
	batch.Queue(sqlPlanFreely)
	batch.Queue(sql, args...)
	batch.Queue(sqlEndSnapshot)
	results := p.pool.SendBatch(ctx, &batch)
	defer func() {
		if closed := results.Close(); err == nil {
			err = closed
		}
	}()
	for range 2 {
		if _, err := results.Exec(); err != nil {
			return seen, err
		}
	}
	var inRecovery, parked bool
	var log origin
	var known int
	if err := results.QueryRow().Scan(nil, &inRecovery, &log.log, &log.epoch, &known, &parked); err != nil {
		return seen, err
	}
	checkpoints, _ := results.Query() // its error comes with the rows
	found, err := pgx.CollectRows(checkpoints, pgx.RowToStructByName[serving])
	switch {
	case err != nil:
		return seen, err
	case !inRecovery:
		return seen, errPromoted
	case len(found) == 0 || log.log != p.log.log || log.epoch != p.log.epoch:
		return seen, errStranger
	case o.latest() > found[0].Head:
		return seen, errLacks
	case known < len(positions):
		return seen, errStranger
	case parked: // what is known here of parked streams, to mark their objects, is the primary's
		return seen, errParked
	}
	if err := includes(found, o.Tokens); err != nil {
		return seen, err
	}
	if _, err := results.Exec(); err != nil {
		return seen, err
	}
	answer, _ := results.Query() // as above
	return p.freshness(found), rows(answer)
}

// includes returns nil when all shards of a view have taken all events up to each of the tokens.
func includes(rows []serving, asked []eventstore.Token) error {
	for _, shard := range tokens(rows) {
		for _, t := range asked {
			switch {
			case t.Position > shard.Position:
				return errLacks
			case t.Position > 0 && (shard.LogID != t.LogID || shard.Epoch != t.Epoch):
				return errStranger
			}
		}
	}
	return nil
}

// freshness is what the replica's rows say, with what it is known to lack: the events that its primary had more.
func (p place) freshness(rows []serving) Freshness {
	f := freshness(rows)
	f.Replica = true
	if p.head > f.Head {
		f.Head, f.Behind = p.head, max(f.Behind, time.Since(p.freshAt))
	}
	return f
}
