package queries_test

import (
	"cmp"
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/queries"
)

const (
	sqlTallies      = `select id, count, small, ratio, odd, note, tags, at, noted_at, version, position, 0 as scratch from tally`
	sqlTally        = sqlTallies + ` where id = $1`
	sqlTalliesByID  = sqlTallies + ` where id = any($1)`
	sqlCountTallies = `select count(*) from tally`
)

func tallyOrders() []queries.Order[tally] {
	byCount := func(row tally) []any { return []any{int64(row.Count), row.ID} }
	byTime := func(row tally) []any { return []any{row.At, row.ID} }
	return []queries.Order[tally]{
		{Name: "COUNT_ASC", Columns: []string{"count", "id"}, Key: byCount},
		{Name: "COUNT_DESC", Columns: []string{"count", "id"}, Desc: true, Key: byCount},
		{Name: "AT_ASC", Columns: []string{"at", "id"}, Key: byTime},
		{Name: "AT_DESC", Columns: []string{"at", "id"}, Desc: true, Key: byTime},
	}
}

func ptr[T any](v T) *T { return &v }

// insertTallies makes n rows, many of which tie in what they are sorted by.
func (b *bundle) insertTallies(t testing.TB, n int) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `
insert into tally_v1 (id, count, small, ratio, odd, tags, at, version, position)
select 'tally-' || lpad(i::text, 3, '0'), i % 4, 0, 0, i % 2 = 1, '[]', to_timestamp(1700000000 + (i * 7) % 5 + 0.000123), 1, i
from generate_series(1, $1::int) i`, n)
	require.NoError(t, err)
}

// Walking all pages forward, backward, or reading the whole list at once gives the same rows, whatever the page size.
func TestPagesCoverTheListOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertTallies(t, 37)
	cfg := queries.PageConfig{Max: 50}
	rapid.Check(t, func(rt *rapid.T) {
		order := rapid.SampledFrom(tallyOrders()).Draw(rt, "order")
		size := rapid.IntRange(1, 12).Draw(rt, "size")
		odd := rapid.Bool().Draw(rt, "odd")
		where := func() queries.Where {
			var w queries.Where
			if odd {
				w.And("odd = $%d", true)
			}
			return w
		}
		list := func(args queries.PageArgs) queries.Slice[tally] {
			slice, err := queries.List(t.Context(), b.reads, cfg, sqlTallies, where(), order, args)
			require.NoError(rt, err)
			require.Len(rt, slice.Cursors, len(slice.Rows))
			return slice
		}
		whole := list(queries.PageArgs{First: ptr(50)})
		require.True(rt, slices.IsSortedFunc(whole.Rows, compareBy(order)))
		require.False(rt, whole.HasNext || whole.HasPrevious)

		forward, page := []tally{}, list(queries.PageArgs{First: &size})
		for forward = append(forward, page.Rows...); page.HasNext; forward = append(forward, page.Rows...) {
			page = list(queries.PageArgs{First: &size, After: &page.Cursors[len(page.Cursors)-1]})
			require.True(rt, page.HasPrevious)
		}
		require.Equal(rt, whole.Rows, forward)

		page = list(queries.PageArgs{Last: &size})
		backward := slices.Clone(page.Rows)
		for page.HasPrevious {
			page = list(queries.PageArgs{Last: &size, Before: &page.Cursors[0]})
			require.True(rt, page.HasNext)
			backward = append(slices.Clone(page.Rows), backward...)
		}
		require.Equal(rt, whole.Rows, backward)

		i, j := rapid.IntRange(0, len(whole.Rows)-1).Draw(rt, "i"), rapid.IntRange(0, len(whole.Rows)-1).Draw(rt, "j")
		i, j = min(i, j), max(i, j)
		between := list(queries.PageArgs{First: ptr(50), After: &whole.Cursors[i], Before: &whole.Cursors[j]})
		require.ElementsMatch(rt, whole.Rows[min(i+1, j):j], between.Rows)
	})
}

func compareBy(order queries.Order[tally]) func(a, b tally) int {
	return func(a, b tally) int {
		c := cmp.Compare(a.Count, b.Count)
		if order.Columns[0] == "at" {
			c = a.At.Compare(b.At)
		}
		c = cmp.Or(c, cmp.Compare(a.ID, b.ID))
		if order.Desc {
			return -c
		}
		return c
	}
}

func TestPageArguments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertTallies(t, 30)
	order, other := tallyOrders()[0], tallyOrders()[2]
	list := func(cfg queries.PageConfig, args queries.PageArgs) (queries.Slice[tally], error) {
		return queries.List(t.Context(), b.reads, cfg, sqlTallies, queries.Where{}, order, args)
	}
	page, err := list(queries.PageConfig{}, queries.PageArgs{})
	require.NoError(t, err)
	require.Len(t, page.Rows, 20, "the default")
	none, err := list(queries.PageConfig{}, queries.PageArgs{First: ptr(0)})
	require.NoError(t, err)
	require.Empty(t, none.Rows)
	require.True(t, none.HasNext)
	small, err := list(queries.PageConfig{Max: 7}, queries.PageArgs{})
	require.NoError(t, err)
	require.Len(t, small.Rows, 7, "a default is never over the limit")

	foreign, err := queries.List(t.Context(), b.reads, queries.PageConfig{}, sqlTallies, queries.Where{}, other, queries.PageArgs{})
	require.NoError(t, err)
	good := page.Cursors[3]
	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	flipped := slices.Clone(raw)
	flipped[len(flipped)/2] ^= 1
	for _, c := range []struct {
		args     queries.PageArgs
		argument string
	}{
		{queries.PageArgs{First: ptr(1), Last: ptr(1)}, "last"},
		{queries.PageArgs{First: ptr(-1)}, "first"},
		{queries.PageArgs{Last: ptr(-1)}, "last"},
		{queries.PageArgs{First: ptr(101)}, "first"},
		{queries.PageArgs{Last: ptr(101)}, "last"},
		{queries.PageArgs{After: ptr("")}, "after"},
		{queries.PageArgs{After: ptr("no cursor!")}, "after"},
		{queries.PageArgs{Before: ptr(good[:len(good)-2])}, "before"},
		{queries.PageArgs{After: ptr(base64.RawURLEncoding.EncodeToString(flipped))}, "after"},
		{queries.PageArgs{After: &foreign.Cursors[0]}, "after"},
	} {
		_, err := list(queries.PageConfig{}, c.args)
		var argument *queries.ArgumentError
		require.ErrorAs(t, err, &argument)
		require.Equal(t, c.argument, argument.Argument, err)
	}
	_, err = queries.FindOrder(tallyOrders(), "SIDEWAYS")
	require.ErrorContains(t, err, `orderBy "SIDEWAYS"`)
	first, err := queries.FindOrder(tallyOrders(), "")
	require.NoError(t, err)
	require.Equal(t, "COUNT_ASC", first.Name)
}

// No text that a client can send makes Postgres refuse a statement.
func TestUnstorableTextFindsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertTallies(t, 3)
	for _, text := range []string{"tally-\x00", "\xff", ""} {
		one, err := queries.One[tally](t.Context(), b.reads, "read tally", sqlTally, text)
		require.NoError(t, err)
		require.Nil(t, one)
		var where queries.Where
		where.And("id = $%d", text)
		where.AndAnyOf("note", []string{text, "x"})
		page, err := queries.List(t.Context(), b.reads, queries.PageConfig{}, sqlTallies, where, tallyOrders()[0], queries.PageArgs{})
		require.NoError(t, err)
		require.Empty(t, page.Rows)
	}
	many, err := queries.Many(t.Context(), b.reads, "read tallies", sqlTalliesByID,
		[]string{"tally-002", "\x00", "tally-002", "tally-9"}, func(row *tally) string { return row.ID })
	require.NoError(t, err)
	require.Equal(t, "tally-002", many[0].ID)
	require.Same(t, many[0], many[2])
	require.Nil(t, many[1])
	require.Nil(t, many[3])
}

func TestCountAndSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertTallies(t, 9)
	var odd queries.Where
	odd.And("odd = $%d", true)
	n, err := queries.Count(t.Context(), b.reads, sqlCountTallies, odd)
	require.NoError(t, err)
	require.EqualValues(t, 5, n)
	rows, err := queries.Since[tally](t.Context(), b.reads, sqlTallies, odd, "position", 3, 2)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.EqualValues(t, 5, rows[0].Position)
	require.EqualValues(t, 7, rows[1].Position)
}

// Times in cursors keep what Postgres keeps: microseconds.
func TestRowTimesAreWhole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insertTallies(t, 1)
	one, err := queries.One[tally](t.Context(), b.reads, "read tally", sqlTally, "tally-001")
	require.NoError(t, err)
	require.Equal(t, one.At, one.At.Truncate(time.Microsecond))
}
