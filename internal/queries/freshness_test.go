package queries_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// Nobody tells this process what another one's projection does: it is looked up, each time.
func TestFreshnessOfAProjectionElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	elsewhere := b.progress()
	b.append(t, "tally-a", counted{})
	one := func() queries.Freshness {
		t.Helper()
		found, err := elsewhere.Freshness(t.Context(), "tally")
		require.NoError(t, err)
		return found[0]
	}
	never := one()
	require.EqualValues(t, 0, never.At.Position)
	require.EqualValues(t, 1, never.Head)
	require.EqualValues(t, 1, never.EventsBehind())
	require.Positive(t, never.Behind)
	at := b.project(t, b.tally)
	now := one()
	require.Equal(t, at, now.At)
	require.Zero(t, now.EventsBehind())
	require.Zero(t, now.Behind)
	require.Equal(t, b.tally.Checkpoint(), now.Checkpoint)
	b.append(t, "tally-a", counted{})
	require.EqualValues(t, 1, one().EventsBehind(), "what this process appended, and no projection took")
	// What memory believes of a projection that runs here is not asked.
	here := b.progress()
	wrong := at
	wrong.Position += 100
	here.Advance(b.tally.Checkpoint(), wrong)
	found, err := here.Freshness(t.Context(), "tally", "tally")
	require.NoError(t, err)
	require.Equal(t, at, found[0].At)
	require.Equal(t, found[0], found[1])
	_, err = here.Freshness(t.Context(), "tally", "nothing")
	var unknown *queries.UnknownProjectionError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, "nothing", unknown.Projection)
	b.pool.Close()
	_, err = here.Freshness(t.Context(), "tally")
	require.Error(t, err, "it never answers from before")
}

// Many who ask at once share look-ups, and none of them gets an answer from before it asked.
func TestFreshnessIsNeverFromBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for range 20 {
				token, err := b.store.Append(t.Context(), eventstore.Request{
					Stream: streamName(w), Expected: eventstore.Any, Events: []eventstore.Payload{counted{}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				found, err := progress.Freshness(t.Context(), "tally")
				if err != nil || found[0].Head < token.Position() {
					t.Errorf("head of %+v after position %d was written, %v", found, token.Position(), err)
				}
			}
		})
	}
	all.Wait()
}
