package queries_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

const tallyShards = 3

// sharded is a tally of three shards, whose checkpoint rows stand at 0.
func (b *bundle) sharded(t testing.TB) queries.Projection {
	t.Helper()
	view := tallyView()
	view.Shards = tallyShards
	p, err := view.Projection(b.registry)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `insert into checkpoints (name, shard, shards) select 'tally_v1', n, 3 from generate_series(0, 2) n`)
	require.NoError(t, err)
	return p
}

// ofShard is a stream of a shard.
func ofShard(shard int) string {
	for i := 0; ; i++ {
		if eventstore.Shard(streamName(i), tallyShards) == shard {
			return streamName(i)
		}
	}
}

// take brings one shard up to a position, in one transaction as a consumer does.
func (b *bundle) take(t testing.TB, p queries.Projection, shard int, to eventstore.Token) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		var from int64
		err := tx.QueryRow(t.Context(), `select position from checkpoints where name = $1 and shard = $2`, p.Checkpoint(), shard).Scan(&from)
		if err != nil {
			return err
		}
		page, err := b.store.ReadLog(t.Context(), eventstore.LogQuery{After: from, Until: to.Position, Shard: shard, Shards: p.Shards})
		if err != nil {
			return err
		}
		if err := p.Apply(t.Context(), tx, page.Events); err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), `update checkpoints set position = $3, event_id = $4, log_id = $5, log_epoch = $6
			where name = $1 and shard = $2`, p.Checkpoint(), shard, to.Position, to.EventID, to.LogID, to.Epoch)
		return err
	}))
}

// A view has come as far as the least of its shards: for whoever waits, for whoever asks, and when a row is missing.
func TestAViewIsAsFarAsItsSlowestShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.sharded(t)
	elsewhere := b.progress()
	first := b.append(t, ofShard(0), counted{By: 1})
	second := b.append(t, ofShard(1), counted{By: 2})
	at := func() int64 {
		found, err := elsewhere.Freshness(t.Context(), "tally")
		require.NoError(t, err)
		return found[0].At.Position
	}
	b.take(t, p, 0, second)
	b.take(t, p, 1, second)
	var behind *queries.BehindError
	require.ErrorAs(t, elsewhere.Wait(soon(t), "tally", first), &behind, "shard 2 has taken nothing")
	require.EqualValues(t, 0, behind.Position)
	b.take(t, p, 2, first)
	require.NoError(t, elsewhere.Wait(deadline(t), "tally", first))
	require.EqualValues(t, 1, at())
	require.ErrorAs(t, elsewhere.Wait(soon(t), "tally", second), &behind)
	require.EqualValues(t, 1, behind.Position)
	waiting := make(chan error, 1)
	go func() { waiting <- elsewhere.Wait(deadline(t), "tally", second) }()
	b.take(t, p, 2, second)
	require.NoError(t, <-waiting)
	require.EqualValues(t, 2, at())
	require.Equal(t, b.replay(t, 0), b.rows(t, "tally"))

	_, err := b.pool.Exec(t.Context(), `delete from checkpoints where shard = 1`)
	require.NoError(t, err)
	require.EqualValues(t, 0, at(), "a row is missing")
	require.ErrorAs(t, b.progress().Wait(soon(t), "tally", first), &behind)
	_, err = b.pool.Exec(t.Context(), `delete from checkpoints where shard > 0`)
	require.NoError(t, err)
	require.EqualValues(t, 0, at(), "the row that is left says that there must be three")
	found, err := elsewhere.Freshness(t.Context(), "tally")
	require.NoError(t, err)
	require.Positive(t, found[0].Behind)
}

// Shards that run in this process answer from memory once all have told; one alone does not.
func TestShardsAnswerFromMemory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.sharded(t)
	progress := b.progress()
	token := b.append(t, ofShard(0), counted{})
	hurried := make(chan int, 10)
	for shard := range tallyShards {
		remove := progress.OnWait(p.Checkpoint(), func() { hurried <- shard })
		defer remove()
	}
	_, err := progress.Freshness(deadline(t), "tally") // learns which checkpoint serves
	require.NoError(t, err)
	waiting := make(chan error, 1)
	go func() { waiting <- progress.Wait(deadline(t), "tally", token) }()
	for shard := range tallyShards {
		require.Equal(t, shard, <-hurried, "each shard's consumer hurries")
	}
	for shard := range tallyShards {
		require.Empty(t, waiting, "shard %d has not told yet", shard)
		b.take(t, p, shard, token) // a look-up finds the same
		progress.AdvanceShard(p.Checkpoint(), shard, tallyShards, token)
	}
	require.NoError(t, <-waiting)
	b.pool.Close()
	require.NoError(t, progress.Wait(t.Context(), "tally", token), "there is no database any more")
}

// A shard that is halted is named to whoever waits for more than it has taken; others wait for the rest of the shards.
func TestAHaltedShardIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.sharded(t)
	progress := b.progress()
	first := b.append(t, ofShard(0), counted{})
	second := b.append(t, ofShard(0), counted{})
	for _, shard := range []int{0, 1} {
		b.take(t, p, shard, first)
	}
	_, err := b.pool.Exec(t.Context(), `update checkpoints set halted_at = now(), halt_reason = 'event 2 is odd' where shard = 1`)
	require.NoError(t, err)
	var halted *queries.HaltedError
	require.ErrorAs(t, progress.Wait(deadline(t), "tally", second), &halted)
	require.Equal(t, queries.HaltedError{Projection: "tally", Shard: 1, Shards: 3, Position: 1, Reason: "event 2 is odd"}, *halted)
	require.ErrorContains(t, halted, "halted in shard 1 of 3 at position 1")
	waiting := make(chan error, 1)
	go func() { waiting <- progress.Wait(deadline(t), "tally", first) }()
	b.take(t, p, 2, first)
	require.NoError(t, <-waiting, "the halted shard has taken that")
	found, err := progress.Freshness(t.Context(), "tally")
	require.NoError(t, err)
	require.True(t, found[0].Halted)
}

// While shards stand apart with something of the view between them, what it shows is like at no position of the log: the
// point of its last change is then another for each way in which they stand.
func TestLastChangeTellsShardsApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.sharded(t)
	progress := b.progress()
	feed := queries.NewFeed(b.store, queries.NewTail(b.store, queries.TailConfig{}), progress, p)
	seen := map[eventstore.Token]bool{}
	changed := func(isNew bool) eventstore.Token {
		t.Helper()
		found, err := progress.Freshness(t.Context(), "tally")
		require.NoError(t, err)
		token, err := feed.LastChange(t.Context(), found[0])
		require.NoError(t, err)
		require.Equal(t, isNew, !seen[token], "%+v", token)
		seen[token] = true
		return token
	}
	zero := b.append(t, ofShard(0), counted{})
	for shard := range tallyShards {
		b.take(t, p, shard, zero)
	}
	require.Equal(t, zero, changed(true))
	noise := b.append(t, ofShard(1), unrelated{})
	b.take(t, p, 0, noise)
	require.Equal(t, zero, changed(false), "nothing of the view lies between the shards")
	one := b.append(t, ofShard(1), counted{})
	two := b.append(t, ofShard(2), counted{})
	b.take(t, p, 2, two)
	changed(true) // shows two and not one
	changed(false)
	b.take(t, p, 0, two)
	changed(true) // shows the same, which need not be known
	b.take(t, p, 1, one)
	changed(true)
	b.take(t, p, 1, two)
	require.Equal(t, two, changed(true))
}

// A change is told when all shards include what was in the log before it, so that a subscriber who goes on after it misses
// nothing.
func TestTheFeedWaitsForAllShards(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := b.sharded(t)
	progress := b.progress()
	tail := queries.NewTail(b.store, queries.TailConfig{})
	feed := queries.NewFeed(b.store, tail, progress, p)
	background(t, tail.Run)
	background(t, feed.Run)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	changes, err := feed.Watch(ctx, "tally", ofShard(2))
	require.NoError(t, err)
	<-changes // the first comes in any case
	b.append(t, ofShard(0), counted{})
	token := b.append(t, ofShard(2), counted{})
	b.take(t, p, 2, token)
	b.take(t, p, 1, token)
	progress.AdvanceShard(p.Checkpoint(), 2, tallyShards, token)
	require.Error(t, progress.Wait(soon(t), "tally", token))
	require.Empty(t, changes, "shard 0 has not come so far")
	b.take(t, p, 0, token)
	require.EqualValues(t, token.Position, (<-changes).Position)
}
