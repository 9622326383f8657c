package queries_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// beforeTheSwitch calls something when a table is filled, and has still to serve.
func beforeTheSwitch(something func()) func(queries.RebuildProgress) {
	return func(p queries.RebuildProgress) {
		if p.Phase == queries.PhaseSwitch {
			something()
		}
	}
}

// A switch that was stopped has a whole table, which the same command takes at once, and not another one from the beginning.
func TestASwitchThatIsStoppedIsGoneOnWith(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 30 {
		b.append(t, streamName(i%7), counted{By: i})
	}
	b.project(t, b.tally)
	ctx, stop := context.WithCancel(deadline(t))
	_, err := queries.Rebuild(ctx, b.pool, b.store, b.tally, queries.RebuildConfig{Switch: true, Workers: 2, Progress: beforeTheSwitch(stop)})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.Equal(t, queries.TableHalfFilled, b.states(t)["tally_v1_2"])

	again := b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true})
	require.Equal(t, queries.Filled{
		View: "tally", Checkpoint: "tally_v1_2", Position: 30, Workers: 2, Resumed: true, Serves: true, Replaced: "tally_v1",
	}, again, "nothing is applied twice")
	require.Equal(t, []string{"tally_v1", "tally_v1_2"}, b.tables(t))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))

	ctx, stop = context.WithCancel(deadline(t))
	_, err = queries.Rollback(ctx, b.pool, b.store, b.tally, queries.RebuildConfig{Progress: beforeTheSwitch(stop)})
	require.ErrorIs(t, err, context.Canceled)
	back, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1", back.Checkpoint)
}

// An event that comes after the fill and cannot be applied is treated by the switch as the view says.
func TestASwitchHonoursWhatTheViewSaysOfFailures(t *testing.T) {
	t.Parallel()
	for _, policy := range []queries.OnFailure{queries.Halt, queries.Park, queries.Skip} {
		t.Run("on failure "+string(policy), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			for i := range 20 {
				b.append(t, streamName(i%5), counted{By: 1})
			}
			b.project(t, b.tally)
			filled, err := queries.Rebuild(deadline(t), b.pool, b.store, b.picky(t, policy), queries.RebuildConfig{
				Switch: true, Workers: 2,
				Progress: beforeTheSwitch(func() {
					b.append(t, streamName(3), noted{Note: "x"})
					b.append(t, streamName(3), counted{By: 7})
					b.append(t, streamName(4), counted{By: 1})
					b.project(t, b.tally) // so that the switch has to take them
				}),
			})
			var parked, skipped int
			require.NoError(t, b.pool.QueryRow(t.Context(), `select (select count(*) from parked_streams where checkpoint = 'tally_v1_2'),
				(select count(*) from skipped_events where checkpoint = 'tally_v1_2' and position = 21)`).Scan(&parked, &skipped))
			if policy == queries.Halt {
				var stopped *queries.PoisonError
				require.ErrorAs(t, err, &stopped)
				require.EqualValues(t, 21, stopped.Position)
				require.Equal(t, "tally_v1", b.servingTable(t))
				again := b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true})
				require.Equal(t, []any{"tally_v1_2", int64(3)}, []any{again.Checkpoint, again.Events}, "mended code goes on with the table")
				return
			}
			require.NoError(t, err)
			require.Equal(t, "tally_v1_2", b.servingTable(t))
			require.EqualValues(t, 23, filled.Position)
			rows := b.rows(t, "tally")
			require.Equal(t, 5, rows[streamName(4)].Count)
			require.Equal(t, map[queries.OnFailure]int{queries.Park: 4, queries.Skip: 11}[policy], rows[streamName(3)].Count)
			require.Equal(t, map[queries.OnFailure][]int{queries.Park: {1, 0}, queries.Skip: {0, 1}}[policy], []int{parked, skipped})
		})
	}
}

// A switch, and a rollback, that fails at its very end has changed nothing: the table that served serves, and its consumer
// goes on.
func TestASwitchThatFailsAtItsEndChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 30 {
		b.append(t, streamName(i%7), counted{By: i})
	}
	progress := b.progress()
	b.serve(t, progress, b.tally)
	_, err := b.pool.Exec(t.Context(), `
		create function fail() returns trigger language plpgsql as 'begin raise exception ''the disk is full''; end';
		create constraint trigger fail after update on views deferrable initially deferred for each row execute function fail()`)
	require.NoError(t, err)
	unchanged := func(err error, serves string) {
		t.Helper()
		require.ErrorContains(t, err, "the disk is full")
		require.Equal(t, serves, b.servingTable(t))
		require.NoError(t, progress.Wait(deadline(t), "tally", b.append(t, streamName(1), counted{By: 1})))
		require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
	}
	enable := func(how string) {
		_, err := b.pool.Exec(t.Context(), `alter table views `+how+` trigger fail`)
		require.NoError(t, err)
	}
	_, err = queries.Rebuild(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{Switch: true})
	unchanged(err, "tally_v1")
	enable("disable")
	require.Equal(t, "tally_v1_2", b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true}).Checkpoint, "the same command goes on")
	enable("enable")
	_, err = queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	unchanged(err, "tally_v1_2")
	enable("disable")
	back, err := queries.Rollback(deadline(t), b.pool, b.store, b.tally, queries.RebuildConfig{})
	require.NoError(t, err)
	require.Equal(t, "tally_v1", back.Checkpoint)
	require.NoError(t, progress.Wait(deadline(t), "tally", b.append(t, streamName(1), counted{By: 1})))
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))
}

// What waits of a table is in the shard of its stream, also when the table was begun with another number of shards: the owner
// of that one lets later events wait, and tries again when asked.
func TestParkedStreamsFollowTheNumberOfShards(t *testing.T) {
	t.Parallel()
	for _, change := range [][2]int{{1, 4}, {4, 1}, {2, 5}} {
		t.Run(fmt.Sprint(change), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			for i := range 12 {
				b.append(t, streamName(i), counted{By: 1}, noted{Note: "x"})
			}
			b.project(t, b.tally)
			p := b.picky(t, queries.Park)
			p.Shards = change[0]
			b.rebuild(t, p, queries.RebuildConfig{Switch: true, Workers: 3})
			b.divided(t, "tally_v1_2", change[0])

			ctx, stop := context.WithCancel(deadline(t))
			_, err := queries.Rebuild(ctx, b.pool, b.store, p, queries.RebuildConfig{Switch: true, Progress: beforeTheSwitch(stop)})
			require.ErrorIs(t, err, context.Canceled)
			p.Shards = change[1]
			require.True(t, b.rebuild(t, p, queries.RebuildConfig{Switch: true}).Resumed)
			b.divided(t, "tally_v1_3", change[1])

			back, err := queries.Rollback(deadline(t), b.pool, b.store, p, queries.RebuildConfig{})
			require.NoError(t, err)
			require.Equal(t, "tally_v1_2", back.Checkpoint)
			b.divided(t, "tally_v1_2", change[1])
		})
	}
}

// divided requires that twelve streams wait of a checkpoint, each in its shard, and that each shard counts its own.
func (b *bundle) divided(t testing.TB, checkpoint string, shards int) {
	t.Helper()
	want := make([]int, shards)
	for i := range 12 {
		want[eventstore.Shard(streamName(i), shards)]++
	}
	for what, sql := range map[string]string{
		"counted": `select parked from checkpoints where name = $1 order by shard`,
		"there":   `select count(p.stream)::int from checkpoints c left join parked_streams p on p.checkpoint = c.name and p.shard = c.shard where c.name = $1 group by c.shard order by c.shard`,
	} {
		rows, err := b.pool.Query(t.Context(), sql, checkpoint)
		require.NoError(t, err)
		got, err := pgx.CollectRows(rows, pgx.RowTo[int])
		require.NoError(t, err)
		require.Equal(t, want, got, what)
	}
	rows, err := b.pool.Query(t.Context(), `select stream, shard from parked_streams where checkpoint = $1`, checkpoint)
	require.NoError(t, err)
	var stream string
	var shard int
	_, err = pgx.ForEachRow(rows, []any{&stream, &shard}, func() error {
		require.Equal(t, eventstore.Shard(stream, shards), shard, stream)
		return nil
	})
	require.NoError(t, err)
}

// The only table of a new version can be emptied but not be lost: no migration would make it again.
func TestTheOnlyTableOfANewVersionIsEmptied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 3})
	b.project(t, b.tally)
	v2 := b.doubled(t)
	b.rebuild(t, v2, queries.RebuildConfig{})
	_, err := b.pool.Exec(t.Context(), `update tally_v2 set twice = 7`) // as code would that was mended since
	require.NoError(t, err)
	emptied, err := queries.Drop(deadline(t), b.pool, "tally_v2")
	require.NoError(t, err)
	require.True(t, emptied)
	require.NotContains(t, b.checkpoints(t), "tally_v2")
	filled := b.rebuild(t, v2, queries.RebuildConfig{Switch: true})
	require.Equal(t, []any{"tally_v2", int64(1)}, []any{filled.Checkpoint, filled.Events})
	var sum int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select sum(twice) from tally`).Scan(&sum))
	require.Equal(t, 6, sum)

	require.Equal(t, "tally_v2_2", b.rebuild(t, v2, queries.RebuildConfig{}).Checkpoint)
	for _, table := range []string{"tally_v2_2", "tally_v1"} { // one that a rebuild makes again, and one of an old version
		emptied, err = queries.Drop(deadline(t), b.pool, table)
		require.NoError(t, err)
		require.False(t, emptied, table)
	}
	require.Equal(t, []string{"tally_v2"}, b.tables(t))
}
