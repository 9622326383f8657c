package queries

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/pgtest"
)

// Every statement is understood by the migrated schema, so that a renamed column fails here and not in a rare path.
func TestStatementsPrepare(t *testing.T) {
	t.Parallel()
	conn, err := pgtest.Pool(t).Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `create table thing_v1 (id text primary key, n bigint, tags jsonb, position bigint)`)
	require.NoError(t, err)
	type thing struct {
		ID       string   `db:"id,key"`
		N        int      `db:"n"`
		Tags     []string `db:"tags"`
		Position int64    `db:"position,seen"`
	}
	shape, err := shapeOf[thing]()
	require.NoError(t, err)
	fold := shape.statements("thing_v1")
	for name, sql := range map[string]string{
		"fold load": fold.load, "fold check": fold.check, "fold upsert": fold.upsert, "fold remove": fold.remove,
		"no seq scan": sqlNoSeqScan, "prepare load": sqlPrepareLoad, "lags": sqlLags, "serving": sqlServing, "generations": sqlGenerations, "previous": sqlPrevious,
		"not serving": sqlNotServing, "half full": sqlHalfFull, "lock view": sqlLockView, "busy rebuild": sqlBusyRebuild,
		"table options": sqlTableOptions, "drop checkpoint": sqlDropCheckpoint, "serve": sqlServe, "indexes": sqlIndexes,
		"look at primary": sqlLookAtPrimary, "look at replica": sqlLookAtReplica, "replica state": sqlReplicaState,
		"begin snapshot": sqlBeginSnapshot, "end snapshot": sqlEndSnapshot, "plan freely": sqlPlanFreely,
		"async commit": sqlAsyncCommit, "lock timeout": sqlLockTimeout, "load": sqlLoad, "grants": sqlGrants,
		"parked": sqlParked, "parked changes": sqlParkedChanges,
		"checkpoint of": sqlCheckpointOf, "behind": sqlBehind, "pause": sqlPause, "resume": sqlResume, "list tables": sqlListTables,
		"mark filling": sqlMarkFilling, "lock checkpoints": sqlLockCheckpoints, "claim worker": sqlClaimWorker,
		"move worker": sqlMoveWorker, "renew fill": sqlRenewFill, "free fill": sqlFreeFill, "end fill": sqlEndFill,
		"take out": sqlTakeOut, "put in": sqlPutIn, "divide parked": sqlDivideParked, "retire": sqlRetire,
		"positions": sqlPositions, "diff columns": sqlDiffColumns, "row estimate": sqlRowEstimate,
		"parked of": sqlParkedOf, "park stream": sqlParkStream, "skip event": sqlSkipEvent, "drop parked": sqlDropParked,
		"drop skipped": sqlDropSkipped, "lock view of": sqlLockViewOf, "at work": sqlAtWork,
		"add constraint": fmt.Sprintf(sqlAddConstraint, "thing_v1", "unique (n)"),
		"create index":   fmt.Sprintf(sqlCreateIndex, "thing_v1", "btree (n)", "unique "),
		"analyze":        fmt.Sprintf(sqlAnalyze, "thing_v1"), "grant": fmt.Sprintf(sqlGrant, "thing_v1", "SELECT", "public"),
		"create like": fmt.Sprintf(sqlCreateLike, "thing_v1_2", "thing_v1"),
		"set options": fmt.Sprintf(sqlSetOptions, "thing_v1", "fillfactor=50"),
		"hold view":   fmt.Sprintf(sqlHoldView, "thing_v1"),
		"empty table": fmt.Sprintf(sqlEmptyTable, "thing_v1"),
		"drop table":  fmt.Sprintf(sqlDropTable, "thing_v1"), "replace view": fmt.Sprintf(sqlReplaceView, "thing", "thing_v1"),
	} {
		_, err := conn.Conn().Prepare(t.Context(), name, sql)
		require.NoError(t, err, name)
	}
	// Two statements in one text: sent as such, they cannot be prepared as one.
	for i, sql := range strings.Split(fmt.Sprintf(sqlRemakeView, "thing", "thing_v1"), ";") {
		_, err := conn.Conn().Prepare(t.Context(), fmt.Sprint("remake ", i), sql)
		require.NoError(t, err)
	}
}

// The migrations' views are where Progress and rebuilds look for them.
func TestMigratedViewsServe(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	rows, err := pool.Query(t.Context(), `select name, table_name from views order by name`)
	require.NoError(t, err)
	var name, table string
	var found []string
	for rows.Next() {
		require.NoError(t, rows.Scan(&name, &table))
		require.Equal(t, name+"_v1", table)
		found = append(found, name)
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, found)
}
