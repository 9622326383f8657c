package userview_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/userview"
)

func ptr[T any](v T) *T { return &v }

func registry(t *testing.T) *eventstore.Registry {
	r, err := eventstore.NewRegistry(user.Events()...)
	require.NoError(t, err)
	return r
}

func event(t require.TestingT, r *eventstore.Registry, position, version int64, stream string, p eventstore.Payload) eventstore.Event {
	typ, schema, data, err := r.Encode(p)
	require.NoError(t, err)
	return eventstore.Event{
		Position: position, Version: version, Stream: stream, Type: typ, SchemaVersion: schema, Data: data, ID: uuid.New(),
		RecordedAt: time.UnixMicro(1_700_000_000_000_000 + position/4).UTC(), Metadata: json.RawMessage(`{}`),
	}
}

func apply(t *testing.T, rt require.TestingT, pool *pgxpool.Pool, p queries.Projection, events []eventstore.Event, size int) {
	for rest := events; len(rest) > 0; rest = rest[min(size, len(rest)):] {
		require.NoError(rt, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return p.Apply(t.Context(), tx, rest[:min(size, len(rest))])
		}))
	}
}

// The table equals the fold of each stream, whatever the batches.
func TestViewEqualsReplay(t *testing.T) {
	t.Parallel()
	pool, r, view := pgtest.Pool(t), registry(t), userview.View()
	p, err := view.Projection(r)
	require.NoError(t, err)
	reader := userview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(t.Context(), "truncate user_v1")
		require.NoError(rt, err)
		var events []eventstore.Event
		byStream := map[string][]eventstore.Event{}
		for i := range rapid.IntRange(2, 25).Draw(rt, "events") {
			stream := fmt.Sprint("user-", i%2)
			var payload eventstore.Payload = user.Registered{Email: " Ada@Example.org", Name: "Ada"}
			if i > 1 {
				stream = fmt.Sprint("user-", rapid.IntRange(0, 1).Draw(rt, "user"))
				payload = rapid.SampledFrom([]eventstore.Payload{
					user.Renamed{Name: "A. Lovelace"}, user.EmailChanged{Email: "Å@Example.org "}, user.Deactivated{},
				}).Draw(rt, "event")
			}
			events = append(events, event(rt, r, int64(i+1), int64(len(byStream[stream])+1), stream, payload))
			byStream[stream] = append(byStream[stream], events[i])
		}
		apply(t, rt, pool, p, events, rapid.IntRange(1, 25).Draw(rt, "batch"))
		for stream, own := range byStream {
			want, _, err := view.Fold(r, userview.User{}, false, own...)
			require.NoError(rt, err)
			got, err := reader.Get(t.Context(), stream)
			require.NoError(rt, err)
			got.RegisteredAt, got.UpdatedAt = got.RegisteredAt.UTC(), got.UpdatedAt.UTC()
			require.Equal(rt, want, *got)
		}
	})
}

func TestUserThroughTheirLife(t *testing.T) {
	t.Parallel()
	r := registry(t)
	var events []eventstore.Event
	for i, p := range []eventstore.Payload{
		user.Registered{Email: "Ada@Example.org ", Name: "Ada"},
		user.Renamed{Name: "Ada L."},
		user.EmailChanged{Email: "L@Example.org"},
		user.Deactivated{Reason: "left"},
	} {
		events = append(events, event(t, r, int64(i+5), int64(i+1), "user-1", p))
	}
	first, _, err := userview.View().Fold(r, userview.User{}, false, events[:1]...)
	require.NoError(t, err)
	require.Equal(t, "Ada@Example.org ", first.Email, "as typed")
	require.Equal(t, userview.Active, first.Status)
	last, _, err := userview.View().Fold(r, first, true, events[1:]...)
	require.NoError(t, err)
	require.Equal(t, userview.User{
		ID: "user-1", Email: "L@Example.org", EmailKey: "l@example.org", Name: "Ada L.", Status: userview.Deactivated,
		Version: 4, Position: 8, RegisteredAt: events[0].RecordedAt, UpdatedAt: events[3].RecordedAt,
	}, last)
}

func TestListFiltersAndOrders(t *testing.T) {
	t.Parallel()
	pool, r := pgtest.Pool(t), registry(t)
	p, err := userview.View().Projection(r)
	require.NoError(t, err)
	var events []eventstore.Event
	for i := range int64(12) {
		registered := user.Registered{Email: fmt.Sprintf("U%d@Example.org", i), Name: fmt.Sprint("Name ", i%4)}
		events = append(events, event(t, r, i+1, 1, fmt.Sprintf("user-%02d", i), registered))
	}
	events = append(events, event(t, r, 13, 2, "user-03", user.Deactivated{}))
	apply(t, t, pool, p, events, 5)
	reader := userview.NewReader(queries.NewReads(pool), queries.PageConfig{})
	for ascending, descending := range map[userview.OrderBy]userview.OrderBy{
		userview.RegisteredAtAsc: userview.RegisteredAtDesc, userview.NameAsc: userview.NameDesc,
	} {
		up := list(t, reader, userview.Filter{}, ascending)
		require.Len(t, up, 12)
		keys := make([]string, len(up))
		for i, u := range up {
			keys[i] = u.RegisteredAt.UTC().Format("05.000000") + u.ID
			if ascending == userview.NameAsc {
				keys[i] = u.Name + u.ID
			}
		}
		require.IsIncreasing(t, keys)
		for i, u := range list(t, reader, userview.Filter{}, descending) {
			require.Equal(t, up[11-i].ID, u.ID)
		}
	}
	for _, c := range []struct {
		filter userview.Filter
		want   int64
	}{
		{userview.Filter{Email: ptr(" u7@EXAMPLE.org")}, 1},
		{userview.Filter{Email: ptr("u7@example")}, 0},
		{userview.Filter{Status: []userview.Status{userview.Deactivated}}, 1},
		{userview.Filter{Status: []userview.Status{userview.Active, userview.Deactivated}}, 12},
		{userview.Filter{Email: ptr("u3@example.org"), Status: []userview.Status{userview.Active}}, 0},
	} {
		n, err := reader.Count(t.Context(), c.filter)
		require.NoError(t, err)
		require.Equal(t, c.want, n)
		require.Len(t, list(t, reader, c.filter, ""), int(c.want))
	}
	many, err := reader.GetMany(t.Context(), []string{"nobody", "user-03"})
	require.NoError(t, err)
	require.Nil(t, many[0])
	require.Equal(t, userview.Deactivated, many[1].Status)
}

func list(t *testing.T, reader *userview.Reader, f userview.Filter, by userview.OrderBy) (all []userview.User) {
	args := queries.PageArgs{First: ptr(5)}
	for {
		page, err := reader.List(t.Context(), f, by, args)
		require.NoError(t, err)
		all = append(all, page.Rows...)
		if !page.HasNext {
			return all
		}
		args.After = &page.Cursors[len(page.Cursors)-1]
	}
}
