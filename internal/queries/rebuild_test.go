package queries_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

func (b *bundle) tables(t testing.TB) []string {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), `select tablename from pg_tables where tablename ~ '^tally_v' order by 1`)
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

func (b *bundle) servingTable(t testing.TB) (table string) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), `select table_name from views where name = 'tally'`).Scan(&table))
	return table
}

// spoil makes the serving table wrong, as a bug in an earlier Evolve would have.
func (b *bundle) spoil(t testing.TB) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `update tally_v1 set note = 'wrong'`)
	require.NoError(t, err)
}

func TestRebuildWithoutServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 30 {
		b.append(t, streamName(i%7), counted{By: i, Tag: "x"}, unrelated{})
	}
	b.append(t, "other-1", unrelated{})
	b.project(t, b.tally)
	b.spoil(t)
	var done, head int64
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, func(d, h int64) { done, head = d, h }))
	require.EqualValues(t, 61, done)
	require.EqualValues(t, 61, head)
	require.Equal(t, "tally_v1_2", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
	require.Equal(t, []string{"tally_v1", "tally_v1_2"}, b.tables(t), "the replaced table stays")

	var fill string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select reloptions[1] from pg_class where relname = 'tally_v1_2'`).Scan(&fill))
	require.Equal(t, "fillfactor=60", fill)

	b.append(t, "tally-000", counted{By: 1})
	b.project(t, b.tally.At(2))
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, nil))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
	require.Equal(t, []string{"tally_v1_2", "tally_v1_3"}, b.tables(t), "the one before the replaced is dropped")
}

// Events arrive and readers wait for them while views are rebuilt and reverted under a running server.
func TestRebuildBesideServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 40 {
		b.append(t, streamName(i%7), counted{By: i, Tag: "x"})
	}
	progress := b.progress()
	b.serve(t, progress, b.tally)
	require.NoError(t, progress.Wait(deadline(t), "tally", b.append(t, "tally-000", counted{By: 1})))
	b.spoil(t)
	ctx, stop := context.WithCancel(deadline(t))
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				token := b.append(t, "tally-w"+streamName(w), counted{By: 1})
				require.NoError(t, progress.Wait(deadline(t), "tally", token))
				row, err := queries.One[tally](t.Context(), b.pool, "read tally", sqlTally, "tally-w"+streamName(w))
				require.NoError(t, err)
				require.NotNil(t, row)
				require.GreaterOrEqual(t, row.Count, n, "no reader goes back behind what it has waited for")
			}
		})
	}
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, nil))
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, nil))
	require.NoError(t, queries.Revert(deadline(t), b.pool, b.store, b.tally, nil))
	stop()
	writers.Wait()
	last := b.append(t, "tally-000", counted{By: 1})
	require.NoError(t, progress.Wait(deadline(t), "tally", last))
	require.Equal(t, "tally_v1_2", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}

// A rebuild that fails leaves what was.
func TestRebuildFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 1}, noted{Note: "x"})
	b.project(t, b.tally)
	view := tallyView()
	view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
		if _, isNote := p.(noted); isNote {
			panic("no notes")
		}
		return evolveTally(row, e, p)
	}
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	require.ErrorContains(t, queries.Rebuild(deadline(t), b.pool, b.store, p, nil), "no notes")
	require.Equal(t, []string{"tally_v1"}, b.tables(t))
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.Error(t, queries.Revert(deadline(t), b.pool, b.store, b.tally, nil), "there is nothing to go back to")

	var unknown *queries.UnknownProjectionError
	p.Name = "telly"
	require.ErrorAs(t, queries.Rebuild(deadline(t), b.pool, b.store, p, nil), &unknown)
	p.Name, p.Version = "tally", 9
	require.ErrorContains(t, queries.Rebuild(deadline(t), b.pool, b.store, p, nil), "migrate first")
}

func TestRebuildOneAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 1})
	var second error
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, func(int64, int64) {
		second = errors.Join(second, queries.Rebuild(deadline(t), b.pool, b.store, b.tally, nil))
	}))
	var busy *queries.RebuildingError
	require.ErrorAs(t, second, &busy)
	require.Equal(t, "tally_v1_2", busy.Checkpoint)
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}

// A new shape: its migration made the table, the rebuild fills it and switches; the old program's projection goes back.
func TestRebuildOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 3})
	b.append(t, "tally-b", counted{By: 4})
	b.project(t, b.tally)
	_, err := b.pool.Exec(t.Context(), `create table tally_v2 (id text collate "C" primary key, twice bigint not null)`)
	require.NoError(t, err)
	type doubled struct {
		ID    string `db:"id,key"`
		Twice int64  `db:"twice"`
	}
	v2, err := queries.View[doubled]{
		Name: "tally", Version: 2, Types: queries.Types(counted{}),
		Evolve: func(row doubled, e eventstore.Event, p eventstore.Payload) doubled {
			return doubled{ID: e.Stream, Twice: row.Twice + 2*int64(p.(counted).By)}
		},
	}.Projection(b.registry)
	require.NoError(t, err)
	require.NoError(t, queries.Rebuild(deadline(t), b.pool, b.store, v2, nil))
	require.Equal(t, "tally_v2", b.servingTable(t))
	var sum int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select sum(twice) from tally`).Scan(&sum))
	require.Equal(t, 14, sum)

	b.append(t, "tally-a", counted{By: 1})
	b.project(t, v2)
	require.NoError(t, queries.Revert(deadline(t), b.pool, b.store, b.tally, nil))
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}
