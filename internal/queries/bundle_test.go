package queries_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
)

// The domain of these tests: tallies that are counted up, noted upon, and thrown away.
type (
	counted struct {
		By  int    `json:"by"`
		Tag string `json:"tag,omitempty"`
	}
	noted     struct{ Note string }
	thrown    struct{}
	unrelated struct{ Text string }
)

func (counted) EventType() string   { return "tally.counted" }
func (noted) EventType() string     { return "tally.noted" }
func (thrown) EventType() string    { return "tally.thrown" }
func (unrelated) EventType() string { return "other.happened" }

// tally has a column of every kind.
type tally struct {
	ID       string     `db:"id,key"`
	Count    int        `db:"count"`
	Small    int16      `db:"small"`
	Ratio    float64    `db:"ratio"`
	Odd      bool       `db:"odd"`
	Note     *string    `db:"note"`
	Tags     []string   `db:"tags"`
	At       time.Time  `db:"at"`
	NotedAt  *time.Time `db:"noted_at"`
	Version  int64      `db:"version"`
	Position int64      `db:"position,seen"`
	Scratch  int        // no column
}

const tallyTable = `
create table tally_v1 (
	id text collate "C" primary key, count bigint not null, small smallint not null, ratio double precision not null,
	odd boolean not null, note text, tags jsonb not null, at timestamptz not null, noted_at timestamptz,
	version bigint not null, position bigint not null
) with (fillfactor = 60);
create index on tally_v1 (count, id);
create view tally as select * from tally_v1;
insert into views (name, version) values ('tally', 1);`

func tallyView() queries.View[tally] {
	return queries.View[tally]{
		Name: "tally", Version: 1,
		Types:  queries.Types(counted{}, noted{}, thrown{}),
		Evolve: evolveTally,
		Gone:   func(row tally) bool { return row.Count < 0 },
	}
}

func evolveTally(row tally, e eventstore.Event, p eventstore.Payload) tally {
	row.ID, row.Version, row.Position, row.At = e.Stream, e.Version, e.Position, e.RecordedAt
	switch p := p.(type) {
	case counted:
		row.Count += p.By
		row.Small, row.Ratio, row.Odd = int16(row.Count%100), float64(row.Count)/7, row.Count%2 == 1
		if p.Tag != "" {
			row.Tags = append(row.Tags[:len(row.Tags):len(row.Tags)], p.Tag)
		}
	case noted:
		at := e.RecordedAt
		row.Note, row.NotedAt = &p.Note, &at
	case thrown:
		row.Count = -1
	}
	return row
}

// bundle is what a test of this package needs, on a database of its own.
type bundle struct {
	pool     *pgxpool.Pool
	reads    *queries.Reads
	store    *eventstore.Store
	registry *eventstore.Registry
	tally    queries.Projection
}

func registry(t testing.TB) *eventstore.Registry {
	t.Helper()
	r, err := eventstore.NewRegistry(eventstore.Define[counted](1), eventstore.Define[noted](1),
		eventstore.Define[thrown](1), eventstore.Define[unrelated](1))
	require.NoError(t, err)
	return r
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupOn(t, pgtest.Pool(t))
}

func setupOn(t testing.TB, pool *pgxpool.Pool) *bundle {
	t.Helper()
	b := &bundle{pool: pool, registry: registry(t)}
	b.reads = queries.NewReads(b.pool)
	_, err := b.pool.Exec(t.Context(), tallyTable)
	require.NoError(t, err)
	b.store, err = eventstore.Open(t.Context(), b.pool, b.registry, eventstore.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close(context.WithoutCancel(t.Context()))) })
	b.tally, err = tallyView().Projection(b.registry)
	require.NoError(t, err)
	return b
}

// deadline is the one bound on how long a test waits for anything. It is far more than anything takes on a busy machine.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// background runs a function until the test ends, and requires that it returns nil then.
func background(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func (b *bundle) append(t testing.TB, stream string, payloads ...eventstore.Payload) eventstore.Token {
	t.Helper()
	receipt, err := b.store.Append(deadline(t), eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: payloads})
	require.NoError(t, err)
	return receipt.Token
}

func (b *bundle) event(position int64, stream string, p eventstore.Payload) eventstore.Event {
	typ, version, data, err := b.registry.Encode(p)
	if err != nil {
		panic(err)
	}
	return eventstore.Event{
		Position: position, Version: position, Stream: stream, Type: typ, SchemaVersion: version, Data: data,
		RecordedAt: time.UnixMicro(1_700_000_000_000_000 + position*1000).UTC(), ID: uuid.New(), Metadata: []byte("{}"),
	}
}

// runner is a consumer of a projection as cmd/api has one, reduced to what these tests need: it applies the log and
// moves the checkpoint in one transaction, under a lease, and tries again when that is another's.
type runner struct {
	b       *bundle
	p       queries.Projection
	page    int
	moved   func(eventstore.Token)
	flushed chan struct{}
}

var errLost = errors.New("lease lost")

func (r *runner) run(ctx context.Context) error {
	for ctx.Err() == nil {
		_, next := r.b.store.Committed()
		done, err := r.step(ctx)
		if errors.Is(err, errLost) { // it may be given back, as a revert does: try again, as a consumer does
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		if done {
			select {
			case <-ctx.Done():
			case <-next:
			case <-r.flushed:
			}
		}
	}
	return nil
}

// step applies one page. Done says that there was nothing to apply.
func (r *runner) step(ctx context.Context) (done bool, err error) {
	var at eventstore.Token
	err = pgx.BeginFunc(ctx, r.b.pool, func(tx pgx.Tx) error {
		var owner *string
		if _, err := tx.Exec(ctx, `insert into checkpoints (name) values ($1) on conflict do nothing`, r.p.Checkpoint()); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `select position, lease_owner from checkpoints where name = $1 for update`, r.p.Checkpoint()).Scan(&at.Position, &owner)
		if err != nil {
			return err
		}
		if owner != nil {
			return errLost
		}
		page, err := r.b.store.ReadLog(ctx, eventstore.LogQuery{After: at.Position, Limit: r.page})
		if err != nil {
			return err
		}
		if done = len(page.Events) == 0; done {
			return nil
		}
		if err := r.p.Apply(ctx, tx, page.Events); err != nil {
			return err
		}
		head, err := r.b.store.Head(ctx)
		if err != nil {
			return err
		}
		at = eventstore.Token{LogID: head.LogID, Epoch: head.Epoch, Position: page.ScannedTo, EventID: page.Events[len(page.Events)-1].ID}
		_, err = tx.Exec(ctx, `update checkpoints set position = $2, event_id = $3, log_id = $4, log_epoch = $5 where name = $1`,
			r.p.Checkpoint(), at.Position, at.EventID, at.LogID, at.Epoch)
		return err
	})
	if err == nil && !done && r.moved != nil {
		r.moved(at)
	}
	return done, err
}

// project brings the projection up to date once.
func (b *bundle) project(t testing.TB, p queries.Projection) eventstore.Token {
	t.Helper()
	var last eventstore.Token
	r := runner{b: b, p: p, page: 100, moved: func(at eventstore.Token) { last = at }}
	for {
		done, err := r.step(deadline(t))
		require.NoError(t, err)
		if done {
			return last
		}
	}
}

// serve runs the serving generation as a server does.
func (b *bundle) serve(t testing.TB, progress *queries.Progress, p queries.Projection) (stop func()) {
	t.Helper()
	return background(t, func(ctx context.Context) error {
		return progress.Follow(ctx, p, func(ctx context.Context, p queries.Projection) error {
			r := runner{b: b, p: p, page: 50, flushed: make(chan struct{}, 1), moved: func(at eventstore.Token) {
				progress.Advance(p.Checkpoint(), at)
			}}
			defer progress.OnWait(p.Checkpoint(), func() {
				select {
				case r.flushed <- struct{}{}:
				default:
				}
			})()
			return r.run(ctx)
		})
	})
}

const selectTallies = `select id, count, small, ratio, odd, note, tags, at, noted_at, version, position, 0 as scratch from `

// rows reads a table or view, by id.
func (b *bundle) rows(t testing.TB, table string) map[string]tally {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), selectTallies+table)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[tally])
	require.NoError(t, err)
	byID := make(map[string]tally, len(all))
	for _, row := range all {
		byID[row.ID] = inUTC(row)
	}
	return byID
}

func inUTC(row tally) tally {
	row.At = row.At.UTC()
	if row.NotedAt != nil {
		at := row.NotedAt.UTC()
		row.NotedAt = &at
	}
	if len(row.Tags) == 0 {
		row.Tags = nil
	}
	return row
}

// replay folds the whole log without touching a table.
func (b *bundle) replay(t testing.TB, until int64) map[string]tally {
	t.Helper()
	byStream := map[string][]eventstore.Event{}
	for e, err := range b.store.Log(t.Context(), eventstore.LogQuery{Until: until}) {
		require.NoError(t, err)
		byStream[e.Stream] = append(byStream[e.Stream], e)
	}
	return b.folded(t, byStream)
}

func (b *bundle) folded(t require.TestingT, byStream map[string][]eventstore.Event) map[string]tally {
	rows := map[string]tally{}
	for stream, events := range byStream {
		row, exists, err := tallyView().Fold(b.registry, tally{}, false, events...)
		require.NoError(t, err)
		if exists {
			rows[stream] = inUTC(row)
		}
	}
	return rows
}

func streamName(i int) string { return fmt.Sprintf("tally-%03d", i) }
