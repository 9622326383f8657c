package queries_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

func drawPayload(t *rapid.T) eventstore.Payload {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return thrown{}
	case 1:
		return noted{Note: rapid.StringMatching(`[ -~äöü]{0,12}`).Draw(t, "note")}
	case 2:
		return unrelated{}
	default:
		return counted{By: rapid.IntRange(0, 5).Draw(t, "by"), Tag: rapid.SampledFrom([]string{"", "x", `"quoted"`}).Draw(t, "tag")}
	}
}

// However a history is cut into batches, the table is what a fold from nothing gives.
func TestViewEqualsFoldUnderAnyBatching(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rapid.Check(t, func(rt *rapid.T) {
		_, err := b.pool.Exec(t.Context(), `truncate tally_v1`)
		require.NoError(rt, err)
		history := make([]eventstore.Event, rapid.IntRange(1, 40).Draw(rt, "events"))
		byStream := map[string][]eventstore.Event{}
		for i := range history {
			stream := streamName(rapid.IntRange(0, 3).Draw(rt, "stream"))
			history[i] = b.event(int64(i+1), stream, drawPayload(rt))
			byStream[stream] = append(byStream[stream], history[i])
		}
		for rest := history; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			b.apply(rt, t, rest[:n])
			rest = rest[n:]
		}
		require.Equal(rt, b.folded(rt, byStream), b.rows(t, "tally"))
	})
}

func (b *bundle) apply(rt require.TestingT, t *testing.T, events []eventstore.Event) {
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.tally.Apply(t.Context(), tx, events) })
	require.NoError(rt, err)
}

func TestViewLeavesUnchangedRowsAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	view := tallyView()
	view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
		if _, isNote := p.(noted); isNote {
			return row
		}
		return evolveTally(row, e, p)
	}
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	b.tally = p
	rowID := func() (ctid string) {
		require.NoError(t, b.pool.QueryRow(t.Context(), `select ctid::text || xmin::text from tally_v1`).Scan(&ctid))
		return ctid
	}
	b.apply(t, t, []eventstore.Event{b.event(1, "tally-a", counted{By: 2, Tag: "x"})})
	before := rowID()
	b.apply(t, t, []eventstore.Event{b.event(2, "tally-a", noted{Note: "no matter"})})
	require.Equal(t, before, rowID())
	b.apply(t, t, []eventstore.Event{b.event(3, "tally-a", counted{By: 1})})
	require.NotEqual(t, before, rowID())
}

func TestViewOfAnotherKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	view := tallyView()
	view.Key = func(eventstore.Event) string { return "tally-all" }
	view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
		row = evolveTally(row, e, p)
		row.ID = "tally-all"
		return row
	}
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	b.tally = p
	b.apply(t, t, []eventstore.Event{b.event(1, "tally-a", counted{By: 2}), b.event(2, "tally-b", counted{By: 3})})
	rows := b.rows(t, "tally")
	require.Len(t, rows, 1)
	require.Equal(t, 5, rows["tally-all"].Count)
	require.Equal(t, "tally-all", p.Key(b.event(1, "tally-a", thrown{})))
}

// What goes wrong in a view's own code is an error of the batch, names the events, and writes nothing.
func TestViewErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	damaged := b.event(7, "tally-a", counted{})
	damaged.Data = []byte(`{"by": "many"}`)
	panics, wrongKey := tallyView(), tallyView()
	panics.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally { panic("a bug") }
	wrongKey.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally { return row }
	for _, c := range []struct {
		view  queries.View[tally]
		event eventstore.Event
		says  string
	}{
		{tallyView(), damaged, "event 7"},
		{panics, b.event(8, "tally-a", counted{}), "a bug"},
		{wrongKey, b.event(9, "tally-a", counted{}), `for key "tally-a"`},
	} {
		p, err := c.view.Projection(b.registry)
		require.NoError(t, err)
		err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return p.Apply(t.Context(), tx, []eventstore.Event{b.event(1, "tally-b", noted{}), c.event}[1:])
		})
		require.ErrorContains(t, err, c.says)
		require.Empty(t, b.rows(t, "tally"))
	}
}

func TestViewDeclarationIsChecked(t *testing.T) {
	t.Parallel()
	r := registry(t)
	type noKey struct {
		ID string `db:"id"`
	}
	type twoKeys struct {
		A string `db:"a,key"`
		B string `db:"b,key"`
	}
	type numberKey struct {
		A int `db:"a,key"`
	}
	type hidden struct {
		id string `db:"id,key"`
	}
	_ = hidden{}.id
	types := []string{"tally.counted"}
	require.ErrorContains(t, declare[noKey](r, types), "no field tagged as the key")
	require.ErrorContains(t, declare[twoKeys](r, types), "needs one key")
	require.ErrorContains(t, declare[numberKey](r, types), "needs one key")
	require.ErrorContains(t, declare[hidden](r, types), "cannot be a column")
	require.ErrorContains(t, declare[int](r, types), "not a struct")
	require.ErrorContains(t, declare[tally](r, nil), "types of events")
	require.NoError(t, declare[tally](r, types))
}

func declare[R any](r *eventstore.Registry, types []string) error {
	_, err := queries.View[R]{
		Name: "x", Version: 1, Types: types,
		Evolve: func(row R, _ eventstore.Event, _ eventstore.Payload) R { return row },
	}.Projection(r)
	return err
}

// Two owners must never write one row, so only a view whose rows are its streams can have shards.
func TestOnlyAViewByStreamHasShards(t *testing.T) {
	t.Parallel()
	view := tallyView()
	view.Shards = 4
	p, err := view.Projection(registry(t))
	require.NoError(t, err)
	require.Equal(t, 4, p.Shards)
	view.Key = func(e eventstore.Event) string { return e.Type }
	_, err = view.Projection(registry(t))
	require.ErrorContains(t, err, "only a view whose key is the stream can have shards")
	view.Key, view.Shards = nil, queries.MaxShards+1
	_, err = view.Projection(registry(t))
	require.ErrorContains(t, err, "shards are 1 to 256")
}

func TestCheckpointNames(t *testing.T) {
	t.Parallel()
	p := queries.Projection{Name: "cart", Version: 3, Generation: 1}
	require.Equal(t, "cart_v3", p.Checkpoint())
	require.Equal(t, "cart_v3_2", p.At(2).Checkpoint())
	require.Equal(t, 1, p.Generation, "At changes a copy")
}

// Queued SQL: one row per event, and statements of their own, in order.
func TestQueuedProjection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.pool.Exec(t.Context(), `create table line_v1_2 (n bigint primary key, note text, by bigint)`)
	require.NoError(t, err)
	const add = `insert into {table} (n, note, by) select * from unnest($1::bigint[], $2::text[], $3::bigint[])`
	p, err := queries.NewProjection(
		b.registry, "line", 1,
		queries.On(func(e eventstore.Event, p counted, q *queries.Queue) { q.Row(add, e.Position, nil, p.By) }),
		queries.On(func(e eventstore.Event, p noted, q *queries.Queue) { q.Row(add, e.Position, &p.Note, 0) }),
		queries.On(func(e eventstore.Event, _ thrown, q *queries.Queue) {
			q.Exec(`update {table} set by = -by where n < $1`, e.Position)
		}),
	)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"tally.counted", "tally.noted", "tally.thrown"}, p.Types)
	b.tally = p.At(2)
	b.apply(t, t, []eventstore.Event{
		b.event(1, "tally-a", counted{By: 4}), b.event(2, "tally-a", noted{Note: "so"}),
		b.event(3, "tally-a", unrelated{}), b.event(4, "tally-b", thrown{}), b.event(5, "tally-b", counted{By: 6}),
	})
	rows, err := b.pool.Query(t.Context(), `select n || ':' || coalesce(note, '-') || ':' || by from line_v1_2 order by n`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"1:-:-4", "2:so:0", "5:-:6"}, got)
}

func TestQueuedProjectionErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ignore := queries.On(func(eventstore.Event, counted, *queries.Queue) {})
	_, err := queries.NewProjection(b.registry, "line", 1, ignore, ignore)
	require.ErrorContains(t, err, "two handlers")
	_, err = queries.NewProjection(b.registry, "line", 1)
	require.ErrorContains(t, err, "handlers")
	p, err := queries.NewProjection(b.registry, "line", 1,
		queries.On(func(e eventstore.Event, _ counted, q *queries.Queue) { q.Exec(`insert into {table} values (1)`) }))
	require.NoError(t, err)
	err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return p.Apply(t.Context(), tx, []eventstore.Event{b.event(1, "tally-a", counted{})})
	})
	require.ErrorContains(t, err, `"line_v1" does not exist`)
	require.False(t, errors.Is(err, pgx.ErrNoRows))
}

// Rows kept in memory are used only when the table has them so: two processes that take turns, and transactions that are
// rolled back, end in the same rows as one process that never fails.
func TestKeptRowsAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other, err := tallyView().Projection(b.registry)
	require.NoError(t, err)
	processes := []queries.Projection{b.tally, other}
	position := int64(0) // goes on over the cases: a log has one history, and a position one event
	rapid.Check(t, func(rt *rapid.T) {
		_, err := b.pool.Exec(t.Context(), `truncate tally_v1`)
		require.NoError(rt, err)
		byStream := map[string][]eventstore.Event{}
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			batch := make([]eventstore.Event, rapid.IntRange(1, 6).Draw(rt, "events"))
			for i := range batch {
				position++
				batch[i] = b.event(position, streamName(rapid.IntRange(0, 2).Draw(rt, "stream")), drawPayload(rt))
				byStream[batch[i].Stream] = append(byStream[batch[i].Stream], batch[i])
			}
			for range rapid.IntRange(0, 2).Draw(rt, "attempts that fail") {
				p := rapid.SampledFrom(processes).Draw(rt, "process")
				err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
					part := rapid.IntRange(1, len(batch)).Draw(rt, "part")
					return errors.Join(p.Apply(t.Context(), tx, batch[:part]), errRollBack)
				})
				require.EqualError(rt, err, errRollBack.Error())
			}
			b.tally = rapid.SampledFrom(processes).Draw(rt, "process")
			b.apply(rt, t, batch)
		}
		require.Equal(rt, b.folded(rt, byStream), b.rows(t, "tally"))
	})
}

var errRollBack = errors.New("roll back")
