package queries

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ReplicasConfig tunes the use of replicas. The zero value works.
type ReplicasConfig struct {
	// MaxLag is how old what a replica shows may be; one that is further behind is not used. 0 stands for 5 s.
	MaxLag time.Duration
	// Every is how often each replica is looked at. 0 stands for 250 ms.
	Every time.Duration
	// Logger hears when the use of a replica begins and ends. Nil: slog's default.
	Logger *slog.Logger
}

func (c ReplicasConfig) withDefaults() ReplicasConfig {
	c.MaxLag = or(c.MaxLag, 5*time.Second)
	c.Every = or(c.Every, 250*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Replica is a streaming standby of the primary.
type Replica struct {
	Name string                                       // for people; without a password
	Open func(context.Context) (*pgxpool.Pool, error) // opens the connections to it, which Replicas closes
}

// ReplicaStatus is what is known of a replica.
type ReplicaStatus struct {
	Name   string
	Used   bool
	Reason string        // why it is not used; it tells of no hosts and users
	Lag    time.Duration // what it shows is at most this old; 0 when that is not known
	Reads  int64         // answered from it
	Passed int64         // asked of it, and answered by the primary: it lacked what was asked for, or failed
}

// Replicas are the standbys that views may be read from. A replica is used while it is looked at with success, is in
// recovery, has the system identifier, the log and the epoch of the primary, and shows what is at most MaxLag old. One
// that was found to be promoted is never used again: what it shows from then on is another history.
//
// How old it is, is measured by the write-ahead log and by the clock of this process: a replica that has replayed what
// the primary had written at a moment shows at least what the primary showed then. It is safe for concurrent use.
type Replicas struct {
	primary *pgxpool.Pool
	cfg     ReplicasConfig
	all     []*replica
	turn    atomic.Uint32
}

// NewReplicas returns the replicas of a primary. None is used before Run has looked at it.
func NewReplicas(primary *pgxpool.Pool, all []Replica, cfg ReplicasConfig) *Replicas {
	r := &Replicas{primary: primary, cfg: cfg.withDefaults()}
	for _, one := range all {
		r.all = append(r.all, &replica{Replica: one, reason: "nobody has looked at it yet"})
	}
	return r
}

// Run looks at the replicas until the context ends, and returns nil then. It closes their connections.
func (r *Replicas) Run(ctx context.Context) error {
	var looking sync.WaitGroup
	for _, one := range r.all {
		looking.Go(func() { r.follow(ctx, one) })
	}
	looking.Wait()
	return nil
}

// Status says how the replicas are used, in the order in which they were given.
func (r *Replicas) Status() []ReplicaStatus {
	all := make([]ReplicaStatus, len(r.all))
	for i, one := range r.all {
		all[i] = one.status(r.cfg.MaxLag)
	}
	return all
}

// replica is a Replica and what was found of it.
type replica struct {
	Replica
	reads, passed atomic.Int64

	mu      sync.Mutex
	pool    *pgxpool.Pool
	using   context.Context    // ends when the replica is not used any more; nil: it is not used
	stop    context.CancelFunc // ends using
	reason  string             // why it is not used
	over    bool               // it was promoted
	lagging bool
	log     origin
	head    int64            // of the primary's log when it was last looked at
	freshAt time.Time        // it shows what the primary showed then, or newer
	marks   []mark           // of the primary's write-ahead log that it has not replayed yet
	lacks   map[string]int64 // by view: the least position of a token that it lacked since the last look
}

// origin is which log somebody has, and in which history.
type origin struct {
	system int64
	log    uuid.UUID
	epoch  int32
}

// mark is how far the primary had written at a moment.
type mark struct {
	at      time.Time
	written int64
}

// lookTimeout bounds one look at a primary and its replica, so that one that hangs is given up.
var lookTimeout = 2 * time.Second

// A replica that cannot be used is looked at soon, and then ever more seldom.
const (
	soon    = 50 * time.Millisecond
	slowest = 5 * time.Second
)

// follow looks at one replica until the context ends or it was promoted.
func (r *Replicas) follow(ctx context.Context, one *replica) {
	defer one.close()
	for failing := soon; ; {
		err := r.look(ctx, one)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errPrimary) && one.status(r.cfg.MaxLag).Used {
			rest(ctx, r.cfg.Every) // what it shows grows old, and is not too old yet
			continue
		}
		if changed := one.judge(err); changed && err == nil {
			r.cfg.Logger.Info("a replica is used for reads", "replica", one.Name)
		} else if changed {
			r.cfg.Logger.Warn("a replica is not used for reads", "replica", one.Name, "reason", err)
		}
		if errors.Is(err, errPromoted) {
			return
		}
		if err == nil {
			failing = soon
			rest(ctx, r.cfg.Every)
			continue
		}
		rest(ctx, failing)
		failing = min(2*failing, slowest)
	}
}

var (
	errPromoted = errors.New("it is no standby, or no longer: a server that was promoted has a history of its own, and is never read again")
	errForeign  = errors.New("it is no replica of this database")
	errHistory  = errors.New("it has not come to the history that the primary is in")
	errPrimary  = errors.New("the primary cannot be compared with it")
	errAway     = errors.New("it cannot be reached")
	errSilent   = errors.New("it does not answer")
	errReading  = errors.New("a reading from it failed")
	errLagging  = errors.New("it is too far behind the primary")
)

// look compares a replica with its primary.
func (r *Replicas) look(ctx context.Context, one *replica) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	pool, err := one.connections(ctx)
	if err != nil {
		return err
	}
	now := mark{at: time.Now()} // before the primary says how far it is
	var primary, found origin
	var head, replayed int64
	var inRecovery, settled bool
	err = r.primary.QueryRow(ctx, sqlLookAtPrimary).Scan(&now.written, &primary.system, &primary.log, &primary.epoch, &head, &settled)
	if err != nil {
		return fmt.Errorf("%w: %w", errPrimary, err)
	}
	err = pool.QueryRow(ctx, sqlLookAtReplica).Scan(&inRecovery, &replayed, &found.system, &found.log, &found.epoch)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errSilent, err)
	case found.system != primary.system || found.log != primary.log:
		return errForeign
	case !inRecovery:
		return errPromoted
	case found.epoch != primary.epoch || !settled:
		return errHistory
	}
	return one.measure(primary, head, now, replayed, r.cfg.MaxLag)
}

// measure takes over what a look has found. After it was too far behind, a replica has to come closer than it need be
// otherwise, so that it does not come and go.
func (one *replica) measure(log origin, head int64, now mark, replayed int64, maxLag time.Duration) error {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.log, one.head, one.lacks = log, head, nil
	one.marks = append(one.marks, now)
	for len(one.marks) > 0 && one.marks[0].written <= replayed {
		one.freshAt, one.marks = one.marks[0].at, one.marks[1:]
	}
	// Marks so close to each other that they make no difference are not kept.
	if n := len(one.marks); n > 1 && now.at.Sub(one.marks[n-2].at) < maxLag/100 {
		one.marks = one.marks[:n-1]
	}
	for len(one.marks) > 0 && now.at.Sub(one.marks[0].at) > maxLag {
		one.marks = one.marks[1:]
	}
	limit := maxLag
	if one.lagging {
		limit /= 2
	}
	if one.lagging = time.Since(one.freshAt) > limit; one.lagging {
		return errLagging
	}
	return nil
}

// judge begins the use of a replica, or ends it for a reason. It reports whether that changed anything.
func (one *replica) judge(reason error) (changed bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	before := one.reason
	if one.over {
		return false
	}
	if reason == nil {
		one.reason = ""
		if one.using == nil {
			one.using, one.stop = context.WithCancel(context.Background())
		}
		return before != ""
	}
	one.reason, one.over = plainly(reason), errors.Is(reason, errPromoted)
	if one.stop != nil {
		one.stop() // whoever reads there now is answered by the primary
	}
	one.using, one.stop = nil, nil
	return before != one.reason
}

// plainly is the reason without what a driver said, which may tell of hosts and users.
func plainly(reason error) string {
	for _, known := range []error{errPromoted, errForeign, errHistory, errPrimary, errAway, errSilent, errLagging} {
		if errors.Is(reason, known) {
			return known.Error()
		}
	}
	return errReading.Error()
}

func (one *replica) connections(ctx context.Context) (*pgxpool.Pool, error) {
	one.mu.Lock()
	pool := one.pool
	one.mu.Unlock()
	if pool != nil {
		return pool, nil
	}
	pool, err := one.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	one.pool = pool
	return pool, nil
}

// close ends the use of a replica for good.
func (one *replica) close() {
	one.mu.Lock()
	pool, stop := one.pool, one.stop
	one.using, one.stop, one.over = nil, nil, true
	if one.reason == "" {
		one.reason = "nobody looks at it any more"
	}
	one.mu.Unlock()
	if stop != nil {
		stop()
	}
	if pool != nil {
		pool.Close()
	}
}

func (one *replica) status(maxLag time.Duration) ReplicaStatus {
	one.mu.Lock()
	defer one.mu.Unlock()
	s := ReplicaStatus{
		Name: one.Name, Used: one.usable(maxLag), Reason: one.reason, Reads: one.reads.Load(), Passed: one.passed.Load(),
	}
	if !one.freshAt.IsZero() {
		s.Lag = time.Since(one.freshAt)
	}
	if !s.Used && s.Reason == "" {
		s.Reason = errLagging.Error()
	}
	return s
}

// usable is asked with the lock held.
func (one *replica) usable(maxLag time.Duration) bool {
	return one.using != nil && time.Since(one.freshAt) <= maxLag
}
