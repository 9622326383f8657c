package queries_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// A view shows the same as long as the point of its last change is the same, also when its checkpoint moves on over events
// that are not its own, and for a process that begins to look in the middle.
func TestLastChangeStaysWhileTheViewDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	newFeed := func() *queries.Feed {
		return queries.NewFeed(b.store, queries.NewTail(b.store, queries.TailConfig{}), progress, b.tally)
	}
	feed := newFeed()
	last := func(f *queries.Feed) eventstore.Token {
		t.Helper()
		b.project(t, b.tally)
		at, err := progress.Freshness(t.Context(), "tally")
		require.NoError(t, err)
		changed, err := f.LastChange(t.Context(), at[0])
		require.NoError(t, err)
		require.LessOrEqual(t, changed.Position, at[0].At.Position)
		return changed
	}
	first := b.append(t, "tally-a", counted{})
	require.Equal(t, first, last(feed))
	for range 3 {
		b.append(t, "other-a", unrelated{})
		require.Equal(t, first, last(feed), "events of others")
	}
	late := newFeed()
	from := last(late)
	require.Greater(t, from.Position, first.Position, "who did not look before cannot know")
	second := b.append(t, "tally-a", counted{})
	b.append(t, "other-a", unrelated{})
	require.Equal(t, second, last(feed))
	require.Equal(t, second, last(late), "and agrees from the next change on")
	for range 6 {
		many := make([]eventstore.Payload, 1000)
		for i := range many {
			many[i] = unrelated{}
		}
		b.append(t, "other-a", many...)
	}
	require.Greater(t, last(feed).Position, second.Position, "what lies too far back is not looked for")
	_, err := feed.LastChange(t.Context(), queries.Freshness{Projection: "nothing"})
	var unknown *queries.UnknownProjectionError
	require.ErrorAs(t, err, &unknown)
}
