package queries_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// park writes what an owner in another process does when it parks a stream, and comes to a position.
func (b *bundle) park(t *testing.T, stream string, position int64, at eventstore.Token) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `
		with parked as (
			insert into parked_streams (checkpoint, stream, position, event_id, type, types, reason)
			values ('tally_v1', $1, $2, gen_random_uuid(), 'tally.counted', '{}', 'secret')
		)
		insert into checkpoints (name, position, event_id, log_id, log_epoch, parked, parked_changes, parked_moved)
		values ('tally_v1', $3, $4, $5, $6, 1, 1, $3)
		on conflict (name, shard) do update set position = excluded.position, event_id = excluded.event_id, log_id = excluded.log_id,
			parked = checkpoints.parked + 1, parked_changes = checkpoints.parked_changes + 1, parked_moved = excluded.position`,
		stream, position, at.Position, at.EventID, at.LogID, at.Epoch)
	require.NoError(t, err)
}

func (b *bundle) unpark(t *testing.T) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `
		with gone as (delete from parked_streams)
		update checkpoints set parked = 0, parked_changes = parked_changes + 1 where name = 'tally_v1'`)
	require.NoError(t, err)
}

// Who waits for a position of another process's projection knows then which objects lack events up to it.
func TestAWaitBringsWhatIsParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	remote := b.progress()
	token := b.append(t, "tally-a", counted{By: 1})
	require.False(t, remote.AnyDegraded())
	edition := remote.Edition("tally")
	b.park(t, "tally-a", token.Position, token)
	require.NoError(t, remote.Wait(deadline(t), "tally", token))
	why := remote.Degraded("tally", "tally-a")
	require.NotNil(t, why)
	require.Equal(t, token.Position, why.Position)
	require.NotContains(t, why.Message(), "secret")
	require.Nil(t, remote.Degraded("tally", "tally-b"))
	require.NotEqual(t, edition, remote.Edition("tally"), "what was read before is no answer now")
	require.Equal(t, token.Position, remote.ParkedMoved("tally"))
	fresh, err := remote.Freshness(deadline(t), "tally")
	require.NoError(t, err)
	require.Equal(t, 1, fresh[0].Parked)

	b.unpark(t)
	again, err := remote.Freshness(deadline(t), "tally")
	require.NoError(t, err)
	require.Greater(t, again[0].ParkedChanges, fresh[0].ParkedChanges)
	require.Nil(t, remote.Degraded("tally", "tally-a"))
	require.False(t, remote.AnyDegraded())
}

// When a table gets fewer shards, what waits is known of those that are left alone.
func TestWhatWaitedInAShardThatIsNoMoreIsForgotten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	remote := b.progress()
	token := b.append(t, "tally-a", counted{By: 1})
	b.park(t, "tally-a", token.Position, token)
	exec := func(sql string) {
		t.Helper()
		_, err := b.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	exec(`update parked_streams set shard = 1`)
	exec(`update checkpoints set shards = 2, parked = 0`)
	exec(`insert into checkpoints (name, shard, shards, position, event_id, log_id, log_epoch, parked, parked_changes)
		select name, 1, 2, position, event_id, log_id, log_epoch, 1, 1 from checkpoints`)
	require.NoError(t, remote.Wait(deadline(t), "tally", token))
	require.NotNil(t, remote.Degraded("tally", "tally-a"))
	exec(`delete from checkpoints where shard = 1`)
	exec(`update parked_streams set shard = 0`)
	exec(`update checkpoints set shards = 1, parked = 1, parked_changes = 7`)
	_, err := remote.Freshness(deadline(t), "tally")
	require.NoError(t, err)
	require.NotNil(t, remote.Degraded("tally", "tally-a"))
	b.unpark(t)
	_, err = remote.Freshness(deadline(t), "tally")
	require.NoError(t, err)
	require.False(t, remote.AnyDegraded())
}

// Nobody need wait where a view is followed.
func TestFollowingBringsWhatIsParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := queries.NewProgress(b.pool, b.store, queries.ProgressConfig{FollowPoll: 5 * time.Millisecond})
	b.serve(t, progress, b.tally)
	token := b.append(t, "tally-a", counted{By: 1})
	require.NoError(t, progress.Wait(deadline(t), "tally", token))
	b.park(t, "tally-a", token.Position, token)
	require.Eventually(t, func() bool { return progress.Degraded("tally", "tally-a") != nil }, 2*time.Minute, time.Millisecond)
	b.unpark(t)
	require.Eventually(t, func() bool { return !progress.AnyDegraded() }, 2*time.Minute, time.Millisecond)
}

// Those who follow a view are told of a key that is parked though no event comes.
func TestParkingIsAChange(t *testing.T) {
	t.Parallel()
	l := setupLive(t)
	token := l.append(t, "tally-a", counted{By: 1})
	l.progress.Advance("tally_v1", l.project(t, l.bundle.tally))
	require.NoError(t, l.progress.Wait(deadline(t), "tally", token))
	watched, err := l.feed.Watch(deadline(t), "tally", "tally-a")
	require.NoError(t, err)
	<-watched // the first comes in any case
	changes, err := l.feed.Changes(deadline(t), "tally", token)
	require.NoError(t, err)
	told := make(chan queries.Changes)
	go func() {
		for c := range changes {
			told <- c
		}
	}()
	parked := queries.ParkedStreams{Changes: 1, Moved: token.Position, Streams: []queries.ParkedStream{{Stream: "tally-a", Position: 2}}}
	// The subscription may begin after the first of these: each differs from the one before.
	for begun := false; !begun; parked.Changes++ {
		parked.Streams[0].Position++
		l.progress.Parked("tally_v1", 0, parked)
		select {
		case c := <-told:
			require.Equal(t, []string{"tally-a"}, c.Keys)
			require.Equal(t, token.Position, c.Position)
			begun = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	require.Equal(t, "tally-a", (<-watched).Key)
	parked.Streams = nil
	l.progress.Parked("tally_v1", 0, parked)
	require.Equal(t, []string{"tally-a"}, (<-told).Keys)
	next := l.append(t, "tally-b", counted{By: 1})
	l.progress.Advance("tally_v1", l.project(t, l.bundle.tally))
	c := <-told
	for ; c.Position < next.Position; c = <-told { // of those that the beginning took
		require.Equal(t, []string{"tally-a"}, c.Keys)
	}
	require.Contains(t, c.Keys, "tally-b", "events come as ever")
	require.Equal(t, next.Position, c.Position)
}

// A rebuild does with a bad event what the view says, and leaves a stream waiting as a consumer does.
func TestARebuildParksAndSkips(t *testing.T) {
	t.Parallel()
	for _, policy := range []queries.OnFailure{queries.Halt, queries.Park, queries.Skip} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			view := tallyView()
			view.OnFailure = policy
			evolve := view.Evolve
			view.Evolve = func(row tally, e eventstore.Event, p eventstore.Payload) tally {
				if e.Position == 2 {
					panic("bad")
				}
				return evolve(row, e, p)
			}
			p, err := view.Projection(b.registry)
			require.NoError(t, err)
			b.append(t, "tally-a", counted{By: 1}, counted{By: 10}, counted{By: 100})
			b.append(t, "tally-b", counted{By: 7})
			_, err = queries.Rebuild(deadline(t), b.pool, b.store, p, queries.RebuildConfig{Workers: 2, Switch: true})
			if policy == queries.Halt {
				var poison *queries.PoisonError
				require.ErrorAs(t, err, &poison)
				return
			}
			require.NoError(t, err)
			rows := b.rows(t, "tally")
			require.Equal(t, 7, rows["tally-b"].Count)
			want := map[queries.OnFailure]int{queries.Park: 1, queries.Skip: 101}[policy]
			require.Equal(t, want, rows["tally-a"].Count)
			progress := b.progress()
			_, err = progress.Freshness(deadline(t), "tally")
			require.NoError(t, err)
			require.Equal(t, policy == queries.Park, progress.Degraded("tally", "tally-a") != nil)
			var parked, skipped int
			require.NoError(t, b.pool.QueryRow(t.Context(), `select (select count(*) from parked_streams where checkpoint = 'tally_v1_2' and position = 2),
				(select count(*) from skipped_events where checkpoint = 'tally_v1_2' and position = 2)`).Scan(&parked, &skipped))
			require.Equal(t, []int{1, 0}[map[queries.OnFailure]int{queries.Park: 0, queries.Skip: 1}[policy]], parked)
			require.Equal(t, 1-parked, skipped)
		})
	}
}
