package queries_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
)

// An older copy of the disk was put back while nothing ran, and the log has grown beyond it again, in the same epoch: nobody
// can know that, and still nobody takes the token of what is gone for one of what is there.
func TestWaitForWhatIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kept := b.append(t, "tally-a", counted{By: 1})
	lost := b.append(t, "tally-a", counted{By: 2})
	require.NoError(t, b.store.Close(t.Context()))
	pgtest.Lose(t, b.pool, kept.Position)

	store, err := eventstore.Open(t.Context(), b.pool, b.registry, eventstore.Config{})
	require.NoError(t, err)
	b.store = store
	b.append(t, "tally-a", counted{By: 3})
	last := b.append(t, "tally-a", counted{By: 4})
	require.Equal(t, lost.Epoch, last.Epoch)
	progress := queries.NewProgress(b.pool, store, queries.ProgressConfig{})
	at := b.project(t, b.tally)
	require.NoError(t, progress.Wait(deadline(t), "tally", last))
	progress.Advance(b.tally.Checkpoint(), at)
	for range 2 { // from memory too
		require.NoError(t, progress.Wait(deadline(t), "tally", kept))
		require.NoError(t, progress.Wait(deadline(t), "tally", last))
		require.ErrorAs(t, progress.Wait(deadline(t), "tally", lost), new(*eventstore.DivergedError))
	}
	require.NoError(t, store.Close(t.Context()))
}
