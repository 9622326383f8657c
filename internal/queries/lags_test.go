package queries_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/queries"
)

// lags are those of what the test made: the example's own views are not begun here.
func (b *bundle) lags(t testing.TB) map[string]queries.Lag {
	t.Helper()
	all, err := b.progress().Lags(t.Context())
	require.NoError(t, err)
	require.True(t, slices.IsSortedFunc(all, func(a, b queries.Lag) int {
		if a.Name != b.Name {
			return map[bool]int{true: -1, false: 1}[a.Name < b.Name]
		}
		return a.Shard - b.Shard
	}))
	named := map[string]queries.Lag{}
	for _, l := range all {
		if l.Shards > 1 {
			l.Name += "/" + string(rune('0'+l.Shard))
		}
		named[l.Name] = l
	}
	return named
}

func (b *bundle) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// Each state that a checkpoint can be in, as its row has it.
func TestLagsTellWhatEachCheckpointDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	never := b.lags(t)["tally_v1"]
	require.Equal(t, queries.Lag{
		Name: "tally_v1", Shards: 1, Kind: queries.LagView, View: "tally", State: queries.LagUnowned, Reason: "it was never begun",
	}, never)
	b.append(t, "tally-a", counted{}, counted{}, counted{})
	b.exec(t, `insert into checkpoints (name, shard, shards, position, lease_owner, lease_until, halted_at, halt_reason, paused_at, paused_by) values
		('tally_v1', 0, 1, 1, 'me', clock_timestamp() + interval '1 hour', null, null, null, null),
		('tally_v1_2', 0, 1, 3, 'retired', 'infinity', null, null, null, null),
		('tally_v1_3', 0, 1, 0, 'filling', 'infinity', null, null, null, null),
		('tally_v1_3.fill', 0, 1, 2, 'rebuild x', clock_timestamp() + interval '1 hour', null, null, null, null),
		('tally_v1_4', 0, 1, 0, 'filling', 'infinity', null, null, null, null),
		('tally_v1_4.fill', 0, 1, 2, 'rebuild y', clock_timestamp() - interval '1 hour', null, null, null, null),
		('tally_v2', 0, 1, 2, null, '-infinity', null, null, null, null),
		('relay_nats', 0, 1, 3, null, '-infinity', null, null, clock_timestamp(), 'ada'),
		('relaying', 0, 1, 3, 'gone', clock_timestamp() - interval '1 second', null, null, null, null),
		('policy', 0, 2, 0, null, '-infinity', clock_timestamp(), 'event 1 is odd', null, null)`)
	got := b.lags(t)
	state := func(name string, kind queries.LagKind, state queries.LagState, owner, reason string, behind int64) {
		t.Helper()
		l, found := got[name]
		require.True(t, found, name)
		require.Equal(t, []any{kind, state, owner, reason, behind}, []any{l.Kind, l.State, l.Owner, l.Reason, l.EventsBehind}, name)
		require.EqualValues(t, 3, l.Head)
		require.Equal(t, 3-behind, l.Position)
		require.Equal(t, state == queries.LagHalted || state == queries.LagUnowned, l.NeedsHelp(), name)
	}
	state("tally_v1", queries.LagView, queries.LagWorking, "me", "", 2)
	state("tally_v1_2", queries.LagView, queries.LagRetired, "", "its table does not serve", 0)
	state("tally_v1_3.fill", queries.LagView, queries.LagRebuilding, "rebuild x", "", 1)
	state("tally_v1_4.fill", queries.LagView, queries.LagRetired, "", "its table is half filled, and no rebuild is at work on it", 1)
	require.NotContains(t, got, "tally_v1_3", "its workers are told of")
	state("tally_v2", queries.LagView, queries.LagRetired, "", "its table does not serve", 1)
	state("relay_nats", queries.LagRelay, queries.LagPaused, "", "paused by ada", 0)
	state("relaying", queries.LagPolicy, queries.LagUnowned, "", "nobody works on it", 0)
	state("policy/0", queries.LagPolicy, queries.LagHalted, "", "event 1 is odd", 3)
	state("policy/1", queries.LagPolicy, queries.LagUnowned, "", "its row is missing: rebuild the view", 3)
}

// The age is that of the oldest event that a checkpoint has not taken, by the database's clock, and 0 at the head.
func TestLagsAreInMillisecondsToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{})
	b.append(t, "tally-a", counted{})
	b.exec(t, `alter table events disable trigger all`)
	b.exec(t, `update events set recorded_at = clock_timestamp() - interval '1 hour' * (3 - position)`)
	for position, hours := range []int64{2, 1, 0} {
		b.exec(t, `insert into checkpoints (name, position) values ('tally_v1', $1) on conflict (name, shard) do update set position = $1`, position)
		got := b.lags(t)["tally_v1"].MillisecondsBehind
		require.GreaterOrEqual(t, got, hours*3_600_000)
		require.Less(t, got, hours*3_600_000+3_600_000)
		if hours == 0 {
			require.Zero(t, got)
		}
	}
}
