package queries_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/queries"
)

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	early := b.append(t, "tally-a", counted{})
	b.project(t, b.tally)
	late := b.append(t, "tally-a", counted{})
	checkpoint, err := queries.Pause(t.Context(), b.pool, "tally", "ada")
	require.NoError(t, err)
	require.Equal(t, "tally_v1", checkpoint, "a view stands for its serving table")
	_, err = queries.Pause(t.Context(), b.pool, "tally_v1", "bob")
	require.NoError(t, err, "it is paused already")
	var by string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select paused_by from checkpoints where name = 'tally_v1'`).Scan(&by))
	require.Equal(t, "ada", by)

	var halted *queries.HaltedError
	require.ErrorAs(t, progress.Wait(deadline(t), "tally", late), &halted, "waiting is of no use")
	require.True(t, halted.Paused)
	require.NoError(t, progress.Wait(deadline(t), "tally", early), "what it has taken can be read")

	_, err = queries.Resume(t.Context(), b.pool, "tally_v1")
	require.NoError(t, err)
	b.project(t, b.tally)
	require.NoError(t, b.progress().Wait(deadline(t), "tally", late))

	var unknown *queries.UnknownCheckpointError
	_, err = queries.Resume(t.Context(), b.pool, "tally_v1")
	require.ErrorAs(t, err, &unknown, "it runs")
	_, err = queries.Pause(t.Context(), b.pool, "telly_v1", "ada")
	require.ErrorAs(t, err, &unknown)
	_, err = b.pool.Exec(t.Context(), `update checkpoints set lease_owner = 'retired', lease_until = 'infinity'`)
	require.NoError(t, err)
	_, err = queries.Pause(t.Context(), b.pool, "tally_v1", "ada")
	require.ErrorAs(t, err, &unknown, "nobody works on a kept table")
}

// The name of a checkpoint is its own, also when a view is called the same: nobody could pause or mend that policy otherwise.
func TestAPolicyMayBeCalledLikeAView(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.project(t, b.tally)
	_, err := b.pool.Exec(t.Context(), `insert into checkpoints (name) values ('tally')`)
	require.NoError(t, err)
	for _, name := range []string{"tally", "tally_v1"} {
		checkpoint, err := queries.Pause(t.Context(), b.pool, name, "ada")
		require.NoError(t, err)
		require.Equal(t, name, checkpoint)
	}
}
