package queries

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

const (
	rebuildPage  = 500              // how near the head a fill comes before the rest is taken in one transaction
	rebuildLease = 30 * time.Second // how long others believe that a rebuild lives after it said so last
)

// RebuildConfig tunes Rebuild, Switch, Rollback and Diff. The zero value works.
type RebuildConfig struct {
	// Workers share the streams between them, each with a connection, a checkpoint of its own and a core to decode on. Only
	// for views whose key is the stream; others have one. A fill that goes on has as many as it began with. 0 stands for
	// the number of CPUs, at most 4.
	Workers int
	// Batch is how many events a worker applies in one transaction: the more, the fewer writes of the same row. 0: 4,000.
	Batch int
	// MaxWALRate is how many bytes of WAL the whole cluster may write in a second before the fill slows down, and
	// MaxLiveLag how old the oldest event may be that a serving projection, a policy or a relay at work has not taken. 0
	// stands for 128 MiB and 2 s; less than 0 for no limit.
	MaxWALRate int64
	MaxLiveLag time.Duration
	// ParkedMax is how many streams a view that parks may have parked in the table, for each of its shards: one more, and the
	// fill stops before the event. 0: 1,000.
	ParkedMax int
	// Switch lets the filled table serve at once. Only Rebuild looks at it.
	Switch bool
	// Progress, if any, is told how far the fill is, after each batch of each worker. It is called by one goroutine at a time.
	Progress func(RebuildProgress)
}

func (c RebuildConfig) withDefaults() RebuildConfig {
	c.Workers = or(c.Workers, min(4, runtime.NumCPU()))
	c.Batch = max(1, or(c.Batch, 4000))
	c.MaxWALRate = or(c.MaxWALRate, 128<<20)
	c.MaxLiveLag = or(c.MaxLiveLag, 2*time.Second)
	c.ParkedMax = or(c.ParkedMax, 1000)
	if c.Progress == nil {
		c.Progress = func(RebuildProgress) {}
	}
	return c
}

// Phase is what a fill is at.
type Phase string

// The phases, in their order.
const (
	PhaseFill    Phase = "fill"    // takes the log
	PhaseIndex   Phase = "index"   // builds the indexes that it did without
	PhaseSwitch  Phase = "switch"  // takes the rest and lets the table serve
	PhaseCompare Phase = "compare" // of Diff: positions are then rows, and the head about how many there are
)

// RebuildProgress is how far one worker of a fill is.
type RebuildProgress struct {
	View       string
	Checkpoint string // of the table being filled
	Phase      Phase
	Worker     int // from 0; 0 in phases that are not shared
	Workers    int
	Position   int64  // up to which the worker has taken its share of the log
	Head       int64  // of the log, when last looked at
	Events     int64  // that the worker has applied since it began or went on
	Throttled  string // why the fill slows itself; empty when it does not
}

// Filled is what a rebuild, a switch or a rollback did.
type Filled struct {
	View       string
	Checkpoint string // of the table that was filled, and its name
	Position   int64  // it includes the log up to here
	Events     int64  // applied by this call
	Workers    int
	Resumed    bool // it went on with what an earlier call had left
	Serves     bool
	Replaced   string // the table that served before, if the call switched
}

// RebuildingError says that another rebuild of the view is at work, or was until a moment ago.
type RebuildingError struct{ Checkpoint string }

func (e *RebuildingError) Error() string {
	return fmt.Sprintf("%s is being filled by another rebuild, or was within the last %s", e.Checkpoint, rebuildLease)
}

// PoisonError says which event a fill could not apply. All before it, of its worker's streams, is applied and recorded:
// after the view's code was mended the fill can go on, or begin anew when the table is dropped.
type PoisonError struct {
	Checkpoint string
	Position   int64
	Stream     string
	Type       string
	Err        error
}

func (e *PoisonError) Error() string {
	return fmt.Sprintf("%s stopped before event %d, %s of %s: %v", e.Checkpoint, e.Position, e.Type, e.Stream, e.Err)
}

func (e *PoisonError) Unwrap() error { return e.Err }

// NoTableError says that there is no table of the view to do something with.
type NoTableError struct{ View, Reason string }

func (e *NoTableError) Error() string { return fmt.Sprintf("%s: %s", e.View, e.Reason) }

// Rebuild fills a table of a view from the whole log, beside the one that serves: the next generation of that, made like
// it, or when a migration made a table of another version, that one. Readers and the serving projection are not touched.
// With cfg.Switch the table serves afterwards; without, it waits for Switch, and is not kept up to date meanwhile.
//
// The log is read once and shared between workers by stream, each of which moves a checkpoint of its own in the
// transaction that it writes in. So a call that was stopped or killed at any moment is gone on with by the next one. A
// folded view's indexes are built after the load, except what makes rows unique; SQL of On may need them all.
//
// An event that cannot be applied is a *PoisonError, another rebuild of the view at the same time a *RebuildingError, a view
// that is not there an *UnknownProjectionError, a version without a table a *NoTableError. What serves is as it was.
func Rebuild(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, cfg RebuildConfig) (Filled, error) {
	return newRebuild(pool, store, cfg).run(ctx, p, "rebuild "+p.Name, chooseNext, cfg.Switch)
}

// Switch lets a table of the projection's version serve that does not, after bringing it up to date; one that is not filled
// is filled first. Generation 0 stands for the newest. The switch is one transaction, after which the replaced table is
// kept, for Rollback, until Drop. Errors are those of Rebuild.
func Switch(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, generation int, cfg RebuildConfig) (Filled, error) {
	return newRebuild(pool, store, cfg).run(ctx, p, "switch "+p.Name, chooseGeneration(generation), true)
}

// Rollback lets the table serve again that the last switch replaced, after bringing it up to date; so a second Rollback
// takes the first back. With a projection of another version than the one that serves, it is that version's newest
// table: the way back for a program before the change. Errors are those of Rebuild.
func Rollback(ctx context.Context, pool *pgxpool.Pool, store *eventstore.Store, p Projection, cfg RebuildConfig) (Filled, error) {
	return newRebuild(pool, store, cfg).run(ctx, p, "roll "+p.Name+" back", choosePrevious, true)
}

// rebuild is one call of Rebuild, Switch, Rollback or Diff.
type rebuild struct {
	pool  *pgxpool.Pool
	store *eventstore.Store
	cfg   RebuildConfig
	owner string
	pace  *pace

	mu sync.Mutex // of cfg.Progress
}

func newRebuild(pool *pgxpool.Pool, store *eventstore.Store, cfg RebuildConfig) *rebuild {
	cfg = cfg.withDefaults()
	return &rebuild{
		pool: pool, store: store, cfg: cfg, owner: "rebuild " + uuid.NewString(),
		pace: &pace{limits: limits{walRate: float64(cfg.MaxWALRate), liveLag: cfg.MaxLiveLag}, share: 1},
	}
}

// run fills the chosen table, and lets it serve if that is wanted. What names the call in errors.
func (r *rebuild) run(ctx context.Context, p Projection, what string, choose chooser, serve bool) (filled Filled, err error) {
	f, err := r.begin(ctx, p, choose)
	if err == nil {
		filled, err = r.complete(ctx, f, serve)
	}
	if err != nil {
		return filled, fmt.Errorf("%s: %w", what, err)
	}
	return filled, nil
}

func (r *rebuild) tell(p RebuildProgress) {
	p.Throttled = r.pace.why()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg.Progress(p)
}

// complete brings a fill to its end: takes the log, builds what was left out, takes what came meanwhile, and switches.
func (r *rebuild) complete(ctx context.Context, f *fill, serve bool) (filled Filled, err error) {
	ctx, release := r.keep(ctx, f)
	defer func() { err = errors.Join(err, release()) }()
	filled = Filled{View: f.p.Name, Checkpoint: f.p.Checkpoint(), Workers: len(f.workers), Resumed: f.resumed}
	defer func() { filled.Position, filled.Events = f.position(), f.events() }()
	if err := r.load(ctx, f); err != nil {
		return filled, cause(ctx, err)
	}
	if !serve {
		return filled, cause(ctx, r.finish(ctx, f))
	}
	r.tell(RebuildProgress{
		View: f.p.Name, Checkpoint: f.p.Checkpoint(), Phase: PhaseSwitch, Workers: len(f.workers), Position: f.position(), Head: f.position(),
	})
	if err := r.switchOver(ctx, f); err != nil {
		return filled, cause(ctx, err)
	}
	filled.Serves, filled.Replaced = true, f.serving.Checkpoint
	return filled, nil
}

// load takes the log until little is left, and builds the indexes.
func (r *rebuild) load(ctx context.Context, f *fill) error {
	if err := r.fill(ctx, f); err != nil {
		return err
	}
	built, err := r.buildIndexes(ctx, f)
	if err != nil || !built {
		return err
	}
	return r.fill(ctx, f) // what came meanwhile
}

// cause says why the context ended, when that is known better than its error.
func cause(ctx context.Context, err error) error {
	var lost *RebuildingError
	if err != nil && errors.As(context.Cause(ctx), &lost) {
		return lost
	}
	return err
}

// servingTable is a row of sqlGenerations.
type servingTable struct {
	Version    int    `db:"version"`
	Generation int    `db:"generation"`
	Checkpoint string `db:"table_name"`
	Newest     int    `db:"newest"` // generation of the asked version
}

// lockView keeps others from switching or filling the view while the transaction lasts, and says what serves.
func lockView(ctx context.Context, tx pgx.Tx, p Projection) (servingTable, error) {
	err := tx.QueryRow(ctx, sqlLockView, p.Name).Scan(new(string))
	if errors.Is(err, pgx.ErrNoRows) {
		return servingTable{}, &UnknownProjectionError{Projection: p.Name}
	}
	if err != nil {
		return servingTable{}, fmt.Errorf("lock the view: %w", err)
	}
	rows, err := tx.Query(ctx, sqlGenerations, p.Name, p.Version)
	if err != nil {
		return servingTable{}, fmt.Errorf("look up %s: %w", p.Name, err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[servingTable])
	if err != nil {
		return s, fmt.Errorf("look up %s: %w", p.Name, err)
	}
	if s.Newest == 0 {
		return s, &NoTableError{p.Name, fmt.Sprintf("there is no table of version %d: migrate first", p.Version)}
	}
	return s, nil
}
