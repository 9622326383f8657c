package queries_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// other is the view with a fold that thinks otherwise: thrown tallies stay, noted ones go, and stream 2 counts double.
func (b *bundle) other(t testing.TB) queries.Projection {
	t.Helper()
	view := tallyView()
	view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
		switch p.(type) {
		case thrown:
			row.Version, row.Position = e.Version, e.Position
			return row
		case noted:
			row = evolveTally(row, e, p)
			row.Count = -1
			return row
		}
		if row = evolveTally(row, e, p); e.Stream == streamName(2) {
			row.Count += p.(counted).By
		}
		return row
	}
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	return p
}

func TestDiff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 300 {
		b.append(t, streamName(i), counted{By: 3, Tag: strings.Repeat("x", 500)})
	}
	b.append(t, streamName(7), noted{Note: "gone in the new table"})
	b.append(t, streamName(8), unrelated{})
	b.append(t, streamName(8), thrown{})
	b.append(t, streamName(2), counted{By: 1})
	b.project(t, b.tally)
	other := b.other(t)
	b.rebuild(t, other, queries.RebuildConfig{})
	b.append(t, streamName(2), counted{By: 2})
	last := b.project(t, b.tally) // the serving one is ahead, and the comparison brings the other to it
	b.append(t, streamName(3), noted{Note: "nobody has taken this yet"})

	for _, chunk := range []int{7, 5000} {
		found, err := queries.Diff(deadline(t), b.pool, b.store, other, 0, queries.DiffConfig{Chunk: chunk})
		require.NoError(t, err)
		require.Equal(t, last.Position, found.Position)
		require.EqualValues(t, []int64{300, 1, 1, 1}, []int64{found.Rows, found.Added, found.Missing, found.Changed})
		require.Equal(t, map[string]int64{"count": 1, "small": 1, "ratio": 1}, found.Columns)
		require.True(t, found.Differs())
		require.Len(t, found.Samples, 3)
		byKind := map[string]queries.RowDiff{}
		for _, s := range found.Samples {
			byKind[s.Kind] = s
		}
		old, next := "6", "12"
		changed := byKind["changed"]
		require.Equal(t, []string{streamName(2)}, changed.Key)
		require.Len(t, changed.Columns, 3, "those that are alike are not shown")
		require.Equal(t, queries.ColumnDiff{Name: "count", Old: &old, New: &next}, changed.Columns[0])
		require.Equal(t, []queries.CauseEvent{
			{Position: 305, Stream: streamName(2), Version: 3, Type: "tally.counted"},
			{Position: 304, Stream: streamName(2), Version: 2, Type: "tally.counted"},
			{Position: 3, Stream: streamName(2), Version: 1, Type: "tally.counted"},
		}, changed.Events)
		require.Equal(t, []string{streamName(8)}, byKind["added"].Key)
		require.Equal(t, "tally.thrown", byKind["added"].Events[0].Type, "those of other types are not the view's")
		require.Equal(t, "tally.counted", byKind["added"].Events[1].Type)
		require.Equal(t, []string{streamName(7)}, byKind["missing"].Key)
		for _, c := range byKind["missing"].Columns {
			require.Nil(t, c.New)
			require.LessOrEqual(t, len(*or(c.Old, new(string))), 200, "values are cut")
		}
	}
	require.Equal(t, "tally_v1", b.servingTable(t))
	require.EqualValues(t, map[string]int64{"tally_v1": 305, "tally_v1_2": 304}, b.checkpoints(t), "the rest was taken in the snapshot alone")
}

func or(s, otherwise *string) *string {
	if s == nil {
		return otherwise
	}
	return s
}

func TestDiffOfEqualTables(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 50 {
		b.append(t, streamName(i%9), counted{By: i, Tag: "x"})
	}
	b.project(t, b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{})
	found, err := queries.Diff(deadline(t), b.pool, b.store, b.tally, 2, queries.DiffConfig{Chunk: 2})
	require.NoError(t, err)
	require.False(t, found.Differs())
	require.EqualValues(t, 9, found.Rows)
	var none *queries.NoTableError
	_, err = queries.Diff(deadline(t), b.pool, b.store, b.tally, 5, queries.DiffConfig{})
	require.ErrorAs(t, err, &none)
}

// An event that came after the table was filled and that its code cannot apply is no hindrance, if the view says what is to
// become of it.
func TestDiffHonoursWhatTheViewSaysOfFailures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 20 {
		b.append(t, streamName(i%5), counted{By: 1})
	}
	b.project(t, b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{})
	b.append(t, streamName(3), noted{Note: "x"})
	b.append(t, streamName(3), counted{By: 1})
	b.append(t, streamName(4), counted{By: 1})
	b.project(t, b.tally)
	for policy, columns := range map[queries.OnFailure][]string{queries.Park: {"count", "note"}, queries.Skip: {"note"}} {
		found, err := queries.Diff(deadline(t), b.pool, b.store, b.picky(t, policy), 0, queries.DiffConfig{})
		require.NoError(t, err)
		require.EqualValues(t, []int64{5, 0, 0, 1}, []int64{found.Rows, found.Added, found.Missing, found.Changed})
		for _, column := range []string{"count", "note"} {
			require.Equal(t, slices.Contains(columns, column), found.Columns[column] == 1, "%s: %v", policy, found.Columns)
		}
		var recorded int
		require.NoError(t, b.pool.QueryRow(t.Context(), `
			select (select count(*) from parked_streams) + (select count(*) from skipped_events)`).Scan(&recorded))
		require.Zero(t, recorded, "it was within the snapshot alone")
	}
	_, err := queries.Diff(deadline(t), b.pool, b.store, b.picky(t, queries.Halt), 0, queries.DiffConfig{})
	var stopped *queries.PoisonError
	require.ErrorAs(t, err, &stopped)
	require.EqualValues(t, 21, stopped.Position)
}

// Under load the two tables are compared at one position, so that equal folds never differ.
func TestDiffUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 60 {
		b.append(t, streamName(i%9), counted{By: i})
	}
	b.serve(t, b.progress(), b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{})
	ctx, stop := context.WithCancel(deadline(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			b.append(t, streamName(n%9), counted{By: n})
		}
	}()
	for range 5 {
		found, err := queries.Diff(deadline(t), b.pool, b.store, b.tally, 0, queries.DiffConfig{Chunk: 4})
		require.NoError(t, err)
		require.False(t, found.Differs(), fmt.Sprint(found.Samples))
	}
	stop()
	<-done
}

// The shards of the serving table are where they are: each stream is compared at its shard's position.
func TestDiffWithShards(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 60 {
		b.append(t, streamName(i%20), counted{By: 1})
	}
	b.project(t, b.tally)
	b.rebuild(t, b.tally, queries.RebuildConfig{})
	for i := range 20 {
		b.append(t, streamName(i), counted{By: 1})
	}
	// Shard 1 of two has taken all, and shard 0 nothing since.
	for i := range 20 {
		if eventstore.Shard(streamName(i), 2) == 1 {
			_, err := b.pool.Exec(t.Context(), `update tally_v1 set count = count + 1, position = $2, version = version + 1,
				small = small + 1, odd = not odd, ratio = (count + 1)::float8 / 7, at = (select recorded_at from events where position = $2)
				where id = $1`, streamName(i), 61+i)
			require.NoError(t, err)
		}
	}
	_, err := b.pool.Exec(t.Context(), `update checkpoints set shards = 2 where name = 'tally_v1'`)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `insert into checkpoints (name, shard, shards, position, event_id, log_id, log_epoch)
		select name, 1, 2, 80, (select id from events where position = 80), log_id, log_epoch from checkpoints where name = 'tally_v1'`)
	require.NoError(t, err)
	found, err := queries.Diff(deadline(t), b.pool, b.store, b.tally, 0, queries.DiffConfig{})
	require.NoError(t, err)
	require.False(t, found.Differs(), fmt.Sprint(found.Samples))
	require.EqualValues(t, 80, found.Position)
}

// Versions of other shapes are compared by what both have.
func TestDiffOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{By: 3})
	b.append(t, "tally-b", counted{By: 4})
	b.project(t, b.tally)
	v2 := b.doubled(t)
	found, err := queries.Diff(deadline(t), b.pool, b.store, v2, 0, queries.DiffConfig{})
	require.NoError(t, err)
	require.False(t, found.Differs())
	require.Equal(t, []string{"twice"}, found.OnlyTable)
	require.Contains(t, found.OnlyServing, "count")
}
