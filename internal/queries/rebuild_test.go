package queries_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
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

// rebuild fills a table, and nothing may go wrong with that.
func (b *bundle) rebuild(t testing.TB, p queries.Projection, cfg queries.RebuildConfig) queries.Filled {
	t.Helper()
	filled, err := queries.Rebuild(deadline(t), b.pool, b.store, p, cfg)
	require.NoError(t, err)
	return filled
}

// checkpoints are how far each is, by name; that of several shards is the hindmost.
func (b *bundle) checkpoints(t testing.TB) map[string]int64 {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), `select name, min(position) from checkpoints group by name`)
	require.NoError(t, err)
	found := map[string]int64{}
	var name string
	var position int64
	_, err = pgx.ForEachRow(rows, []any{&name, &position}, func() error { found[name] = position; return nil })
	require.NoError(t, err)
	return found
}

// states are what the view's tables are, by name.
func (b *bundle) states(t testing.TB) map[string]string {
	t.Helper()
	tables, err := queries.ListTables(t.Context(), b.pool)
	require.NoError(t, err)
	states := map[string]string{}
	for _, table := range tables {
		if table.View == "tally" {
			states[table.Name] = table.State
		}
	}
	return states
}

func (b *bundle) drop(t testing.TB, table string) error {
	t.Helper()
	_, err := queries.Drop(deadline(t), b.pool, table)
	return err
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
	var last queries.RebuildProgress
	filled := b.rebuild(t, b.tally, queries.RebuildConfig{Workers: 3, Progress: func(p queries.RebuildProgress) { last = p }})
	require.Equal(t, queries.Filled{View: "tally", Checkpoint: "tally_v1_2", Position: 61, Events: 30, Workers: 3}, filled)
	require.EqualValues(t, 61, last.Head)
	require.Equal(t, "tally_v1", b.servingTable(t), "nothing is switched unless asked for")
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally_v1_2"))
	require.Equal(t, map[string]int64{"tally_v1": 61, "tally_v1_2": 61}, b.checkpoints(t))

	b.append(t, "tally-000", counted{By: 1})
	b.project(t, b.tally)
	switched, err := queries.Switch(deadline(t), b.pool, b.store, b.tally, 0, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1", switched.Replaced)
	require.EqualValues(t, 1, switched.Events, "the switch brings the rest over")
	require.Equal(t, "tally_v1_2", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))

	b.append(t, "tally-000", counted{By: 1})
	b.project(t, b.tally.At(2))
	require.Equal(t, "tally_v1_3", b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true}).Checkpoint)
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
	require.Equal(t, []string{"tally_v1", "tally_v1_2", "tally_v1_3"}, b.tables(t), "all are kept until they are dropped by name")
}

// What serves after a rebuild is made as what served before: indexes, storage options, and who may use it.
func TestRebuiltTableIsMadeLikeTheServingOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	role := "reader_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	for _, sql := range []string{
		`create unique index on tally_v1 (id desc) where count > 0`,
		`create index on tally_v1 using gin (tags)`,
		`create role ` + role, `grant select, update on tally_v1 to ` + role,
	} {
		_, err := b.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := b.pool.Exec(context.WithoutCancel(t.Context()), `drop owned by `+role+`; drop role `+role)
		require.NoError(t, err)
	})
	made := func(table string) (how []string) {
		rows, err := b.pool.Query(t.Context(), `
			select regexp_replace(indexdef, '^(CREATE (?:UNIQUE )?INDEX) .* USING', '\1') from pg_indexes where tablename = $1
			union all select option from pg_class, unnest(reloptions) option where relname = $1
			union all select grantee || ' may ' || privilege_type from information_schema.table_privileges
			where table_name = $1 and grantee = $2 order by 1`, table, role)
		require.NoError(t, err)
		how, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return how
	}
	b.append(t, "tally-a", counted{By: 1})
	b.project(t, b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{})
	require.Len(t, made("tally_v1"), 7)
	require.Equal(t, made("tally_v1"), made("tally_v1_2"))
}

// Events arrive and readers wait for them while views are rebuilt and rolled back under a running server.
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
				row, err := queries.One[tally](t.Context(), b.reads, "read tally", sqlTally, "tally-w"+streamName(w))
				require.NoError(t, err)
				require.NotNil(t, row)
				require.GreaterOrEqual(t, row.Count, n, "no reader goes back behind what it has waited for")
			}
		})
	}
	b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true, Workers: 2})
	b.rebuild(t, b.tally, queries.RebuildConfig{Workers: 2})
	_, err := queries.Switch(deadline(t), b.pool, b.store, b.tally, 3, queries.RebuildConfig{})
	require.NoError(t, err)
	back, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1_2", back.Checkpoint)
	stop()
	writers.Wait()
	last := b.append(t, "tally-000", counted{By: 1})
	require.NoError(t, progress.Wait(deadline(t), "tally", last))
	require.Equal(t, "tally_v1_2", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))

	forth, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1_3", forth.Checkpoint, "a second rollback takes back the first")
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}

// picky is the view as code that cannot handle notes has it.
func (b *bundle) picky(t testing.TB, policy queries.OnFailure) queries.Projection {
	t.Helper()
	view := tallyView()
	view.OnFailure = policy
	view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
		if _, isNote := p.(noted); isNote {
			panic("no notes")
		}
		return evolveTally(row, e, p)
	}
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	return p
}

// A fill that comes to an event it cannot apply names it, keeps what it has, and goes on when the code is mended.
func TestRebuildStopsAtPoisonAndGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 20 {
		b.append(t, streamName(i%5), counted{By: 1})
	}
	poison := b.append(t, "tally-bad", noted{Note: "x"})
	b.append(t, "tally-bad", counted{By: 1})
	b.project(t, b.tally)
	before := b.rows(t, "tally")
	_, err := queries.Rebuild(deadline(t), b.pool, b.store, b.picky(t, queries.Halt), queries.RebuildConfig{Workers: 2, Switch: true})
	var stopped *queries.PoisonError
	require.ErrorAs(t, err, &stopped)
	require.ErrorContains(t, err, "no notes")
	require.Equal(t, poison.Position, stopped.Position)
	require.Equal(t, "tally-bad", stopped.Stream)
	require.Equal(t, "tally.noted", stopped.Type)
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.Equal(t, before, b.rows(t, "tally"))
	require.Contains(t, b.checkpoints(t), "tally_v1_2.fill")

	_, err = queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	var none *queries.NoTableError
	require.ErrorAs(t, err, &none, "nothing was replaced")
	filled, err := queries.Rebuild(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{Workers: 1})
	require.NoError(t, err)
	require.Equal(t, b.replay(t, 0), b.rows(t, filled.Checkpoint))
}

// A view that parks or skips is rebuilt past the same bad events, and the new table's checkpoint says what waits.
func TestRebuildHonoursWhatTheViewSaysOfFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 20 {
		b.append(t, streamName(i%5), counted{By: 1})
	}
	b.append(t, streamName(3), noted{Note: "x"})
	b.append(t, streamName(3), counted{By: 7})
	b.append(t, streamName(4), counted{By: 1})
	b.project(t, b.tally)
	for _, policy := range []queries.OnFailure{queries.Park, queries.Skip} {
		p := b.picky(t, policy)
		filled := b.rebuild(t, p, queries.RebuildConfig{Workers: 2})
		rows := b.rows(t, filled.Checkpoint)
		require.Equal(t, 5, rows[streamName(4)].Count)
		var parked, skipped int
		require.NoError(t, b.pool.QueryRow(t.Context(), `select parked,
			(select count(*) from skipped_events where checkpoint = name and position = 21 and reason like '%no notes%')
			from checkpoints where name = $1`, filled.Checkpoint).Scan(&parked, &skipped))
		if policy == queries.Skip {
			require.Equal(t, 12, rows[streamName(3)].Count, "all but the note, and what came after the first rebuild")
			require.Equal(t, []int{0, 1}, []int{parked, skipped})
		} else {
			require.Equal(t, 4, rows[streamName(3)].Count, "later events wait with it")
			require.Equal(t, []int{1, 0}, []int{parked, skipped})
			b.append(t, streamName(3), counted{By: 1})
			b.project(t, b.tally)
			_, err := queries.Switch(deadline(t), b.pool, b.store, p, 0, queries.RebuildConfig{})
			require.NoError(t, err)
			require.Equal(t, 4, b.rows(t, "tally")[streamName(3)].Count)
			_, err = queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
			require.NoError(t, err)
		}
		require.NoError(t, b.drop(t, filled.Checkpoint))
		var left int
		require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from parked_streams where checkpoint = $1`, filled.Checkpoint).Scan(&left))
		require.Zero(t, left)
	}
}

func TestRebuildOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var none *queries.NoTableError
	_, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.ErrorAs(t, err, &none, "there is nothing to go back to")
	_, err = queries.Switch(deadline(t), b.pool, b.store, b.tally, 0, queries.RebuildConfig{})
	require.ErrorAs(t, err, &none)
	_, err = queries.Switch(deadline(t), b.pool, b.store, b.tally, 7, queries.RebuildConfig{})
	require.ErrorContains(t, err, "tally_v1_7")
	var unknown *queries.UnknownProjectionError
	p := b.tally
	p.Name = "telly"
	_, err = queries.Rebuild(deadline(t), b.pool, b.store, p, queries.RebuildConfig{})
	require.ErrorAs(t, err, &unknown)
	p.Name, p.Version = "tally", 9
	_, err = queries.Rebuild(deadline(t), b.pool, b.store, p, queries.RebuildConfig{})
	require.ErrorContains(t, err, "migrate first")
	require.Equal(t, "tally_v1_2", b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true}).Checkpoint, "an empty log is no hindrance")
}

func TestRebuildOneAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 1})
	var others []error
	b.rebuild(t, b.tally, queries.RebuildConfig{Progress: func(queries.RebuildProgress) {
		_, err := queries.Rebuild(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
		others = append(others, err)
		_, err = queries.Switch(deadline(t), b.pool, b.store, b.tally, 2, queries.RebuildConfig{})
		others = append(others, err)
		var used *queries.InUseError
		require.ErrorAs(t, b.drop(t, "tally_v1_2"), &used)
	}})
	require.NotEmpty(t, others)
	for _, err := range others {
		var busy *queries.RebuildingError
		require.ErrorAs(t, err, &busy)
		require.Equal(t, "tally_v1_2", busy.Checkpoint)
	}
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally_v1_2"))
}

// A fill that is stopped at any batch goes on where each worker was, with as many workers as it had, and applies no event
// twice: counts would show it.
func TestRebuildGoesOnAfterAnInterruption(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 200 {
		b.append(t, streamName(i%13), counted{By: i, Tag: "x"}, unrelated{})
	}
	b.project(t, b.tally)
	var interruptions, applied int
	for {
		ctx, stop := context.WithCancel(deadline(t))
		batches := 0
		filled, err := queries.Rebuild(ctx, b.pool, b.store, b.tally, queries.RebuildConfig{
			Workers: 2 + interruptions, Batch: 16,
			Progress: func(queries.RebuildProgress) {
				if batches++; batches == 3 {
					stop()
				}
			},
		})
		stop()
		applied += int(filled.Events)
		if err == nil {
			require.True(t, filled.Resumed)
			require.Equal(t, 2, filled.Workers, "as many as it began with")
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		interruptions++
		require.Equal(t, queries.TableHalfFilled, b.states(t)["tally_v1_2"])
	}
	require.Greater(t, interruptions, 2)
	require.LessOrEqual(t, applied, 200, "a batch whose commit was interrupted is not counted, and may be there")
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally_v1_2"))
	require.Equal(t, []string{"tally_v1", "tally_v1_2"}, b.tables(t))
}

// A process that was killed leaves its leases behind, and a server's consumer must not take the half full table meanwhile.
func TestRebuildThatLostItsLeaseWritesNothingMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 100 {
		b.append(t, streamName(i%13), counted{By: i})
	}
	b.project(t, b.tally)
	took := false
	_, err := queries.Rebuild(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{Workers: 1, Batch: 8, Progress: func(queries.RebuildProgress) {
		if took {
			return
		}
		took = true // as if this process had slept for longer than the lease
		for renewed := true; renewed; {
			_, err := b.pool.Exec(t.Context(), `update checkpoints set lease_until = now() - interval '1 s' where name = 'tally_v1_2.fill'`)
			require.NoError(t, err)
			_, err = queries.Rebuild(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
			if renewed = errors.As(err, new(*queries.RebuildingError)); !renewed { // it is awake, and may be quicker
				require.NoError(t, err)
			}
		}
	}})
	var lost *queries.RebuildingError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally_v1_2"))
	require.Equal(t, map[string]int64{"tally_v1": 100, "tally_v1_2": 100}, b.checkpoints(t))
}

// A rebuild can change how many shards a table has.
func TestRebuildChangesShards(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 50 {
		b.append(t, streamName(i%13), counted{By: i})
	}
	b.project(t, b.tally)
	sharded := b.tally
	sharded.Shards = 3
	b.rebuild(t, sharded, queries.RebuildConfig{Switch: true, Workers: 2})
	var rows, shards, free int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*), max(shards), count(*) filter (where lease_owner is null)
		from checkpoints where name = 'tally_v1_2' and position = 50`).Scan(&rows, &shards, &free))
	require.Equal(t, []int{3, 3, 3}, []int{rows, shards, free})

	// The shards do not stand at one position when the table is replaced; the way back takes each from where it is.
	for shard := range 3 {
		_, err := b.pool.Exec(t.Context(), `update checkpoints set position = $1 where name = 'tally_v1_2' and shard = $2`, 50-shard, shard)
		require.NoError(t, err)
	}
	_, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.EqualValues(t, 50, b.checkpoints(t)["tally_v1"])
}

func TestDrop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 1})
	b.project(t, b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true})
	var used *queries.InUseError
	require.ErrorAs(t, b.drop(t, "tally_v1_2"), &used, "it serves")
	var none *queries.NoTableError
	for _, name := range []string{"tally", "tally_v1_9", "events", "cart_v1; drop table events"} {
		require.ErrorAs(t, b.drop(t, name), &none, name)
	}
	require.Equal(t, map[string]string{"tally_v1": queries.TableKept, "tally_v1_2": queries.TableServing}, b.states(t))
	require.NoError(t, b.drop(t, "tally_v1"))
	require.Equal(t, []string{"tally_v1_2"}, b.tables(t))
	require.NotContains(t, b.checkpoints(t), "tally_v1")
	_, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.ErrorAs(t, err, &none)
}

// A new shape: its migration made the table, the rebuild fills it and switches; the old program's projection goes back.
func TestRebuildOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 3})
	b.append(t, "tally-b", counted{By: 4})
	b.project(t, b.tally)
	v2 := b.doubled(t)
	b.project(t, v2) // a server of the new program has begun
	b.append(t, "tally-c", counted{By: 5})
	_, err := b.pool.Exec(t.Context(), `update checkpoints set lease_owner = 'server', lease_until = now() + interval '1 h' where name = 'tally_v2'`)
	require.NoError(t, err)
	filled := b.rebuild(t, v2, queries.RebuildConfig{})
	require.Equal(t, queries.Filled{View: "tally", Checkpoint: "tally_v2", Position: 3, Events: 1, Workers: filled.Workers}, filled)
	require.Equal(t, "tally_v1", b.servingTable(t))
	b.project(t, v2) // it is the servers' again

	_, err = queries.Switch(deadline(t), b.pool, b.store, v2, 0, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v2", b.servingTable(t))
	var sum int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select sum(twice) from tally`).Scan(&sum))
	require.Equal(t, 24, sum)
	_, err = queries.Rollback(deadline(t), b.pool, b.store, v2, queries.RebuildConfig{})
	require.ErrorContains(t, err, "roll back by the program that has it")

	b.append(t, "tally-a", counted{By: 1})
	b.project(t, v2)
	_, err = queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}

// doubled is a second version of the view, with its table.
func (b *bundle) doubled(t testing.TB) queries.Projection {
	t.Helper()
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
	return v2
}
