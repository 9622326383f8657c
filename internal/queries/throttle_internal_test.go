package queries

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func TestThrottleDecides(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	l := limits{walRate: 100 * mib, liveLag: time.Second}
	for _, c := range []struct {
		name   string
		limits limits
		share  float64
		seen   sample
		next   float64
		why    string
	}{
		{"nothing suffers", l, 1, sample{walRate: 99 * mib, liveLag: time.Second}, 1, ""},
		{"it recovers slowly", l, 0.5, sample{}, 0.57, ""},
		{"never above all", l, 0.99, sample{}, 1, ""},
		{"a little too much WAL", l, 1, sample{walRate: 125 * mib}, 0.8, "125 MiB of WAL per second, over 100"},
		{"far too much WAL", l, 1, sample{walRate: 1000 * mib}, 0.5, "1000 MiB of WAL per second, over 100"},
		{"live lag", l, 0.5, sample{liveLag: 1500 * time.Millisecond}, 0.25, "live projections are 1.5s behind, over 1s"},
		{"never nothing", l, leastShare, sample{liveLag: time.Hour}, leastShare, "live projections are 1h0m0s behind, over 1s"},
		{"the worse of both", l, 1, sample{walRate: 125 * mib, liveLag: 2 * time.Second}, 0.5, "live projections are 2s behind, over 1s"},
		{"no limits", limits{walRate: -1, liveLag: -1}, 1, sample{walRate: 1e12, liveLag: time.Hour}, 1, ""},
	} {
		next, why := c.limits.decide(c.share, c.seen)
		require.InDelta(t, c.next, next, 0.0001, c.name)
		require.Equal(t, c.why, why, c.name)
	}
}

type lived struct{ N int }

func (lived) EventType() string { return "life.lived" }

// A fill beside a live projection that does not keep up slows down and says why.
func TestFillSlowsDownWhenLiveProjectionsLag(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	registry, err := eventstore.NewRegistry(eventstore.Define[lived](1))
	require.NoError(t, err)
	store, err := eventstore.Open(t.Context(), pool, registry, eventstore.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	_, err = pool.Exec(t.Context(), `
		create table life_v1 (id text collate "C" primary key, n bigint not null);
		create view life as select * from life_v1;
		insert into views (name, version) values ('life', 1);
		insert into checkpoints (name, lease_owner, lease_until) values ('life_v1', 'a server', now() + interval '1 hour')`)
	require.NoError(t, err)
	type life struct {
		ID string `db:"id,key"`
		N  int    `db:"n"`
	}
	p, err := View[life]{Name: "life", Version: 1, Types: Types(lived{}), Evolve: func(row life, e eventstore.Event, _ eventstore.Payload) life {
		return life{ID: e.Stream, N: row.N + 1}
	}}.Projection(registry)
	require.NoError(t, err)
	for range 40 {
		_, err = store.Append(t.Context(), eventstore.Request{Stream: "life-1", Expected: eventstore.Any, Events: []eventstore.Payload{lived{}, lived{}}})
		require.NoError(t, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	enough := errors.New("it says why")
	said, done := context.WithCancelCause(ctx)
	defer done(nil)
	r := newRebuild(pool, store, RebuildConfig{MaxLiveLag: time.Nanosecond, Progress: func(p RebuildProgress) {
		if p.Throttled != "" {
			done(enough)
		}
	}})
	ended := make(chan struct{})
	go func() { defer close(ended); r.watch(said) }()
	for said.Err() == nil {
		r.tell(RebuildProgress{})
		r.pace.rest(said, time.Millisecond)
	}
	<-ended
	require.ErrorIs(t, context.Cause(said), enough)
	require.Contains(t, r.pace.why(), "live projections are")
	require.Less(t, r.pace.share, 1.0)

	filled, err := Rebuild(ctx, pool, store, p, RebuildConfig{Batch: 10, MaxLiveLag: time.Nanosecond})
	require.NoError(t, err, "slowed or not, it comes to its end")
	require.EqualValues(t, 80, filled.Events)
}

// What the cluster writes is measured, and progress says that it is why a fill slows down.
func TestTooMuchWALSlowsAFill(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	var told RebuildProgress
	r := newRebuild(pool, nil, RebuildConfig{MaxWALRate: 1, MaxLiveLag: -1, Progress: func(p RebuildProgress) { told = p }})
	watching, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.watch(watching) }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !strings.Contains(told.Throttled, "WAL") {
		_, err := pool.Exec(ctx, `insert into skipped_events values (gen_random_uuid(), 1, gen_random_uuid(), '', '', '', '')`)
		require.NoError(t, err)
		r.tell(RebuildProgress{})
	}
	stop()
	<-ended
	require.Less(t, r.pace.share, 1.0)
}
