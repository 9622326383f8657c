package queries_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
)

// replicated is a primary with views, and a standby of it that is offered to readers.
type replicated struct {
	*bundle
	primary, standby *pgtest.Server
	replicas         *queries.Replicas
	stop             func() // looking at the standby
}

// replicate makes a primary with a standby. Nobody is offered the standby yet.
func replicate(t testing.TB, settings map[string]string) *replicated {
	t.Helper()
	r := &replicated{primary: pgtest.Primary(t, nil)}
	r.bundle = setupOn(t, r.primary.Pool())
	r.standby = r.primary.Standby(settings)
	return r
}

// offer begins to look at the standby, and waits until it is used.
func (r *replicated) offer(t testing.TB, cfg queries.ReplicasConfig) {
	t.Helper()
	r.replicas, r.stop = offerAt(t, r.pool, r.standby.URL(), cfg)
	r.used(t, true, "")
}

func offerAt(t testing.TB, primary *pgxpool.Pool, url string, cfg queries.ReplicasConfig) (*queries.Replicas, func()) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	replicas := queries.NewReplicas(primary, []queries.Replica{{Name: "standby", Open: func(ctx context.Context) (*pgxpool.Pool, error) {
		return pgxpool.New(context.WithoutCancel(ctx), url)
	}}}, cfg)
	return replicas, background(t, replicas.Run)
}

// used waits until the standby is used or, for a reason that has these words, is not.
func (r *replicated) used(t testing.TB, want bool, reason string) {
	t.Helper()
	ctx := deadline(t)
	for {
		status := r.replicas.Status()[0]
		if status.Used == want && strings.Contains(status.Reason, reason) {
			return
		}
		require.NoError(t, ctx.Err(), "used %v: %s", status.Used, status.Reason)
		time.Sleep(time.Millisecond)
	}
}

// reading is one answer and where it came from.
type reading struct {
	row     *tally
	replica bool
	seen    queries.Freshness
}

// read reads a row that includes the tokens, as a resolver does.
func (r *replicated) read(t testing.TB, id string, tokens ...eventstore.Token) reading {
	t.Helper()
	got := reading{replica: true}
	ctx := r.replicas.Offer(deadline(t), queries.Offer{
		View: "tally", Tokens: tokens,
		Else:     func(context.Context) error { got.replica = false; return nil },
		Answered: func(f queries.Freshness) { got.seen = f },
	})
	var err error
	got.row, err = queries.One[tally](ctx, r.reads, "read tally", sqlTally, id)
	require.NoError(t, err)
	return got
}

// count appends an event and has the view take it.
func (r *replicated) count(t testing.TB, id string) eventstore.Token {
	t.Helper()
	token := r.append(t, id, counted{By: 1})
	r.project(t, r.tally)
	return token
}

const often = 10 * time.Millisecond

// What a token stands for is read from the replica when it is there, and else from the primary. What the answer says of
// itself is true.
func TestAReplicaAnswersWhatItHasAndThePrimaryTheRest(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	old := r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	r.standby.CatchUp(r.primary)

	for name, tokens := range map[string][]eventstore.Token{"without a token": nil, "with a token": {old}} {
		got := r.read(t, "tally-1", tokens...)
		require.True(t, got.replica, name)
		require.EqualValues(t, 1, got.row.Version, name)
		require.Equal(t, old.Position, got.seen.At.Position, name)
		require.True(t, got.seen.Replica)
	}

	r.standby.Exec(`select pg_wal_replay_pause()`)
	latest := r.count(t, "tally-1")
	got := r.read(t, "tally-1", old, latest)
	require.False(t, got.replica, "the replica lacks the token")
	require.EqualValues(t, 2, got.row.Version)
	ctx := deadline(t)
	for got.seen.EventsBehind() == 0 { // until a look has found that the primary has more
		got = r.read(t, "tally-1", old)
		require.True(t, got.replica)
		require.EqualValues(t, 1, got.row.Version)
		require.NoError(t, ctx.Err())
	}
	require.Equal(t, latest.Position, got.seen.Head)
	require.Positive(t, got.seen.Behind)

	// Tokens of other histories are never taken for those of this one.
	for name, spoil := range map[string]func(*eventstore.Token){
		"another event": func(t *eventstore.Token) { t.EventID = latest.EventID },
		"another epoch": func(t *eventstore.Token) { t.Epoch++ },
		"another log":   func(t *eventstore.Token) { t.LogID = latest.EventID },
	} {
		other := old
		spoil(&other)
		require.False(t, r.read(t, "tally-1", other).replica, name)
	}
	r.standby.Exec(`select pg_wal_replay_resume()`)
	r.standby.CatchUp(r.primary)
	for ctx := deadline(t); !r.read(t, "tally-1", latest).replica; { // it is tried again at the next look
		require.NoError(t, ctx.Err())
	}
	status := r.replicas.Status()[0]
	require.Positive(t, status.Reads)
	require.Positive(t, status.Passed)
}

// All shards of a view have to include a token, one that has no row yet includes nothing, and what a checkpoint has passed
// that waits with a parked stream is not in the table.
func TestAllShardsOfAReplicaCount(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	token := r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: time.Hour})
	reads := func(change string) bool {
		r.primary.Exec(change)
		r.standby.CatchUp(r.primary)
		return r.read(t, "tally-1", token).replica
	}
	require.True(t, reads(`select 1`))
	require.False(t, reads(`insert into parked_streams (checkpoint, stream, position, event_id, type, types, reason)
		select 'tally_v1', stream, position, id, type, '{}', 'for a test' from events`), "a parked stream's events are not in the table")
	require.True(t, reads(`delete from parked_streams`))
	require.False(t, reads(`update checkpoints set shards = 2 where name = 'tally_v1'`), "the second shard has no row")
}

func TestAReplicaThatIsTooFarBehindIsNotUsed(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Second, Every: often})
	r.standby.Exec(`select pg_wal_replay_pause()`)
	r.count(t, "tally-1")
	r.used(t, false, "too far behind")
	got := r.read(t, "tally-1")
	require.False(t, got.replica)
	require.EqualValues(t, 2, got.row.Version)
	r.standby.Exec(`select pg_wal_replay_resume()`)
	r.used(t, true, "")
}

func TestAReplicaThatEndsIsReplacedByThePrimaryAndComesBack(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	require.True(t, r.read(t, "tally-1").replica)

	// Somebody reads while it ends: the primary answers.
	answer := make(chan reading, 1)
	go func() {
		got := reading{replica: true}
		ctx := r.replicas.Offer(t.Context(), queries.Offer{View: "tally", Else: func(context.Context) error { got.replica = false; return nil }})
		n, err := queries.Query(ctx, r.reads, "sleep", `select case when pg_is_in_recovery() then pg_sleep(600) end is null`, nil,
			func(rows pgx.Rows) (bool, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]) })
		if err != nil || !n {
			t.Errorf("got %v, %v", n, err)
		}
		answer <- got
	}()
	sleeping := 0
	for ctx := deadline(t); sleeping == 0; {
		r.standby.QueryRow(`select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()`, &sleeping)
		require.NoError(t, ctx.Err())
	}
	require.NoError(t, r.standby.Stop("fast"))
	require.False(t, (<-answer).replica)
	require.False(t, r.read(t, "tally-1").replica)
	r.used(t, false, "")
	require.NoError(t, r.standby.Start())
	r.used(t, true, "")
	require.True(t, r.read(t, "tally-1").replica)
}

// A standby that is promoted has another history from then on. That is noticed within the snapshot of a reading, so that it
// does not depend on when it is looked at.
func TestAPromotedReplicaIsNeverReadAgain(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	token := r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: time.Hour})
	require.True(t, r.read(t, "tally-1", token).replica)
	r.standby.Promote()
	r.standby.Exec(`update tally_v1 set note = 'another history'`)
	for range 3 {
		got := r.read(t, "tally-1", token)
		require.False(t, got.replica)
		require.NotEqual(t, "another history", got.row.Note)
	}
	status := r.replicas.Status()[0]
	require.False(t, status.Used)
	require.Contains(t, status.Reason, "never read again")
	require.EqualValues(t, 1, status.Passed, "it was asked again")
	r.stop()

	// Whoever begins to look at it now does not use it either.
	replicas, _ := offerAt(t, r.pool, r.standby.URL(), queries.ReplicasConfig{Every: often})
	r.replicas = replicas
	for ctx := deadline(t); r.replicas.Status()[0].Reason != status.Reason; {
		require.NoError(t, ctx.Err())
	}
	require.False(t, r.read(t, "tally-1").replica)
}

func TestAServerThatIsNoReplicaIsRefused(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	r.count(t, "tally-1")
	r.replicas, _ = offerAt(t, r.pool, pgtest.URL(t), queries.ReplicasConfig{Every: often})
	for ctx := deadline(t); r.replicas.Status()[0].Reason != "it is no replica of this database"; {
		require.NoError(t, ctx.Err())
	}
	require.False(t, r.read(t, "tally-1").replica)

	// One whose primary is of a timeline that the log's epoch was not raised for yet.
	var timeline int
	r.primary.QueryRow(`select timeline from log`, &timeline)
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	r.primary.Exec(`update log set timeline = 99`)
	r.used(t, false, "history")
	r.primary.Exec(`update log set timeline = $1`, timeline)
	r.used(t, true, "")
	r.stop()

	// And one that is still in the history before a restore.
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	r.standby.Exec(`select pg_wal_replay_pause()`)
	r.primary.Exec(`update log set epoch = epoch + 1`)
	r.used(t, false, "history")
	require.False(t, r.read(t, "tally-1").replica)
}

// After a failover the log goes on without the events that the new primary had not received. A standby of the lost primary
// that has them is of another history, which is noticed before and after the log's epoch was raised.
func TestAfterAFailoverAStandbyOfTheLostPrimaryIsNotRead(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	lost := r.primary.Standby(nil)
	r.count(t, "tally-1")
	r.standby.CatchUp(r.primary)
	r.standby.Detach()
	r.count(t, "tally-1")
	lost.CatchUp(r.primary)
	require.NoError(t, r.primary.Kill())
	r.standby.Promote()

	pool := r.standby.Pool()
	r.reads = queries.NewReads(pool)
	refused := func(why string) {
		t.Helper()
		var stop func()
		r.replicas, stop = offerAt(t, pool, lost.URL(), queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
		defer stop()
		for ctx := deadline(t); !strings.Contains(r.replicas.Status()[0].Reason, "history"); {
			require.NoError(t, ctx.Err(), "%s: %s", why, r.replicas.Status()[0].Reason)
		}
		got := r.read(t, "tally-1")
		require.False(t, got.replica, why)
		require.EqualValues(t, 1, got.row.Version, why)
	}
	refused("the epoch is that of the lost primary")
	store, err := eventstore.Open(t.Context(), pool, r.registry, eventstore.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) })
	_, err = store.Append(deadline(t), eventstore.Request{Stream: "tally-2", Expected: eventstore.Any, Events: []eventstore.Payload{counted{By: 1}}})
	require.NoError(t, err)
	var epoch int
	r.standby.QueryRow(`select epoch from log`, &epoch)
	require.NotEqual(t, 1, epoch)
	refused("the epoch was raised")
}

// What the primary cleans up may be what a reading on the standby still sees; Postgres then gives the reading up.
func TestAReadingThatReplicationInterruptsIsAnsweredByThePrimary(t *testing.T) {
	t.Parallel()
	r := replicate(t, map[string]string{"max_standby_streaming_delay": "0"})
	r.count(t, "tally-1")
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: time.Hour}) // or replication might interrupt a look
	r.standby.CatchUp(r.primary)
	var fellBack atomic.Bool
	ended := make(chan error, 1)
	go func() {
		ctx := r.replicas.Offer(t.Context(), queries.Offer{View: "tally", Else: func(context.Context) error { fellBack.Store(true); return nil }})
		_, err := queries.Query(ctx, r.reads, "sleep", `select case when pg_is_in_recovery() then pg_sleep(600) end is null from tally_v1`, nil,
			func(rows pgx.Rows) (bool, error) { return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool]) })
		ended <- err
	}()
	sleeping := 0
	for ctx := deadline(t); sleeping == 0; {
		r.standby.QueryRow(`select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()`, &sleeping)
		require.NoError(t, ctx.Err())
	}
	r.primary.Exec(`update tally_v1 set note = 'changed'`)
	var err error
	for interrupted, patience := false, deadline(t); !interrupted; {
		r.primary.Exec(`vacuum tally_v1`) // which leaves alone what somebody on the primary may still see
		require.NoError(t, patience.Err())
		select {
		case err = <-ended:
			interrupted = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	require.NoError(t, err)
	require.True(t, fellBack.Load())
	require.True(t, r.replicas.Status()[0].Used, "the replica is not to blame")
}

// Writers read what they wrote, over a primary and a standby that lags, while the view follows: never older than the token.
func TestNobodyReadsOlderThanHisToken(t *testing.T) {
	t.Parallel()
	r := replicate(t, map[string]string{"recovery_min_apply_delay": "30ms"})
	progress := queries.NewProgress(r.pool, r.store, queries.ProgressConfig{})
	stop := r.serve(t, progress, r.tally)
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	const writers, each = 6, 40
	var all sync.WaitGroup
	var fromReplica, fromPrimary atomic.Int64
	read := func(id string, token eventstore.Token) (replica, ok bool) {
		replica = true
		ctx := r.replicas.Offer(t.Context(), queries.Offer{
			View: "tally", Tokens: []eventstore.Token{token},
			Else: func(ctx context.Context) error { replica = false; return progress.Wait(ctx, "tally", token) },
		})
		row, err := queries.One[tally](ctx, r.reads, "read tally", sqlTally, id)
		if err != nil || row == nil || row.Position < token.Position {
			t.Errorf("%s is read as %+v, %v with the token of position %d, from the replica: %v", id, row, err, token.Position, replica)
			return replica, false
		}
		if replica {
			fromReplica.Add(1)
		} else {
			fromPrimary.Add(1)
		}
		return replica, true
	}
	r.standby.Exec(`select pg_wal_replay_pause()`)
	replica, _ := read("tally-first", r.append(t, "tally-first", counted{By: 1}))
	require.False(t, replica, "the replica cannot have it")
	r.standby.Exec(`select pg_wal_replay_resume()`)
	for w := range writers {
		patience := deadline(t)
		all.Go(func() {
			id := fmt.Sprintf("tally-w%d", w)
			var tokens []eventstore.Token
			for n := range each {
				receipt, err := r.store.Append(t.Context(), eventstore.Request{Stream: id, Expected: eventstore.Any, Events: []eventstore.Payload{counted{By: 1}}})
				if err != nil {
					t.Error(err)
					return
				}
				tokens = append(tokens, receipt.Token)
				token := tokens[max(0, n-rand.IntN(5))] // one of the last that the client was given
				replica, ok := read(id, token)
				for ok && !replica && n%20 == 19 && patience.Err() == nil { // now and then it waits until the replica has it too
					replica, ok = read(id, token)
				}
				if !ok {
					return
				}
			}
		})
	}
	all.Wait()
	stop()
	t.Logf("%d readings from the replica, %d from the primary", fromReplica.Load(), fromPrimary.Load())
	require.Positive(t, fromReplica.Load())
}

// What a reading of one row costs on the primary, and on a replica with its proof.
func BenchmarkReadings(b *testing.B) {
	r := replicate(b, nil)
	token := r.count(b, "tally-1")
	r.offer(b, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	r.standby.CatchUp(r.primary)
	b.Run("primary", func(b *testing.B) {
		for range b.N {
			if _, err := queries.One[tally](b.Context(), r.reads, "read tally", sqlTally, "tally-1"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("replica", func(b *testing.B) {
		for range b.N {
			ctx := r.replicas.Offer(b.Context(), queries.Offer{
				View: "tally", Tokens: []eventstore.Token{token}, Else: func(context.Context) error { return errLost },
			})
			if _, err := queries.One[tally](ctx, r.reads, "read tally", sqlTally, "tally-1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
