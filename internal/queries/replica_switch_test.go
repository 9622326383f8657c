package queries_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// A switch that the standby replays between the proof and the rows does not make the rows those of another table than the
// proof is of: in its snapshot that may not have come so far.
func TestASwitchOnAReplicaMakesNoAnswerOlderThanItsToken(t *testing.T) {
	t.Parallel()
	r := replicate(t, nil)
	r.count(t, "tally-1")
	r.rebuild(t, r.tally, queries.RebuildConfig{})
	token := r.count(t, "tally-1") // which the new table lacks until it is switched to
	// A reading that looks up the view when the switch was replayed, or waits for the reading.
	r.primary.Exec(`create function late(wanted text, replayed pg_lsn) returns setof tally_v1 language plpgsql as $$
		begin
			perform set_config('application_name', 'late', true);
			while pg_last_wal_replay_lsn() < replayed
				and not exists (select from pg_locks where relation = 'tally'::regclass and mode = 'AccessExclusiveLock' and not granted) loop
				perform pg_sleep(0.005);
			end loop;
			return query execute 'select * from tally where id = $1' using wanted;
		end $$`)
	r.offer(t, queries.ReplicasConfig{MaxLag: time.Hour, Every: often})
	r.standby.CatchUp(r.primary)
	old, err := r.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead}) // keeps what a reading on the standby may see
	require.NoError(t, err)
	defer func() { require.NoError(t, old.Rollback(context.WithoutCancel(t.Context()))) }()
	_, err = old.Exec(t.Context(), `select from views`)
	require.NoError(t, err)
	r.standby.Exec(`select pg_wal_replay_pause()`)
	_, err = queries.Switch(deadline(t), r.pool, r.store, r.tally, 2, queries.RebuildConfig{})
	require.NoError(t, err)
	var switched string
	r.primary.QueryRow(`select pg_current_wal_flush_lsn()::text`, &switched)
	type answer struct {
		row     *tally
		replica bool
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		got := answer{replica: true}
		ctx := r.replicas.Offer(deadline(t), queries.Offer{
			View: "tally", Tokens: []eventstore.Token{token}, Else: func(context.Context) error { got.replica = false; return nil },
		})
		got.row, got.err = queries.One[tally](ctx, r.reads, "read tally", selectTallies+`late($1, '`+switched+`')`, "tally-1")
		answered <- got
	}()
	reading := 0
	for ctx := deadline(t); reading == 0; {
		r.standby.QueryRow(`select count(*) from pg_stat_activity where application_name = 'late'`, &reading)
		require.NoError(t, ctx.Err())
	}
	r.standby.Exec(`select pg_wal_replay_resume()`)
	got := <-answered
	require.NoError(t, got.err)
	require.True(t, got.replica)
	require.NotNil(t, got.row)
	require.Equal(t, token.Position, got.row.Position)
	r.standby.CatchUp(r.primary)
	require.True(t, r.read(t, "tally-1", token).replica, "the switch is replayed, and the new table is proven")
}
