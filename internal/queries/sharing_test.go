package queries_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/queries"
)

// table is where shared readings read: each row's count is the number of the reading.
type table struct{ readings atomic.Int64 }

func (x *table) read(_ context.Context, keys []string) ([]*tally, error) {
	n := x.readings.Add(1)
	rows := make([]*tally, len(keys))
	for i, key := range keys {
		if key != "none" {
			rows[i] = &tally{ID: key, Count: int(n)}
		}
	}
	return rows, nil
}

// A thousand who need a row as of the same position read it once; one who needs it as of a later one reads it again, and
// one of an earlier one does not.
func TestReadingsAreShared(t *testing.T) {
	t.Parallel()
	s, x := queries.NewSharing(queries.SharingConfig{}), &table{}
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			rows, err := queries.Shared(t.Context(), s, "tally", []string{"a", "none", "b"}, 7, 0, x.read)
			if err != nil || rows[0].ID != "a" || rows[1] != nil || rows[2].ID != "b" {
				t.Errorf("%v: %v", rows, err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, x.readings.Load())
	for _, c := range []struct {
		view     string
		position int64
		count    int
	}{{"tally", 7, 1}, {"tally", 3, 1}, {"tally", 8, 2}, {"tally", 7, 2}, {"other", 7, 3}} {
		rows, err := queries.Shared(t.Context(), s, c.view, []string{"a"}, c.position, 0, x.read)
		require.NoError(t, err)
		require.Equal(t, c.count, rows[0].Count, "%+v", c)
	}
	rows, err := queries.Shared(t.Context(), s, "tally", []string{"a", "b", "c"}, 8, 0, x.read)
	require.NoError(t, err)
	require.Equal(t, []int{2, 4, 4}, []int{rows[0].Count, rows[1].Count, rows[2].Count}, "what is missing is read at once")
}

// A reading is repeated while the database cannot be reached. One that fails answers those who wait, and nobody later;
// one that panics fails. The reader's own context does not end it for others.
func TestReadingsThatFail(t *testing.T) {
	t.Parallel()
	s, x := queries.NewSharing(queries.SharingConfig{}), &table{}
	tries := 0
	rows, err := queries.Shared(t.Context(), s, "tally", []string{"a"}, 1, 0, func(ctx context.Context, keys []string) ([]*tally, error) {
		if tries++; tries < 3 {
			return nil, io.ErrUnexpectedEOF
		}
		return x.read(ctx, keys)
	})
	require.NoError(t, err)
	require.NotNil(t, rows[0])
	require.Equal(t, 3, tries)

	broken := errors.New("broken")
	fail := func(context.Context, []string) ([]*tally, error) { return nil, broken }
	_, err = queries.Shared(t.Context(), s, "tally", []string{"b"}, 1, 0, fail)
	require.ErrorIs(t, err, broken)
	_, err = queries.Shared(t.Context(), s, "tally", []string{"b"}, 1, 0, func(context.Context, []string) ([]*tally, error) { panic("broken") })
	require.ErrorContains(t, err, "panicked")
	_, err = queries.Shared(t.Context(), s, "tally", []string{"b"}, 1, 0, x.read)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	begun, proceed := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := queries.Shared(ctx, s, "tally", []string{"c"}, 1, 0, func(ctx context.Context, keys []string) ([]*tally, error) {
			close(begun)
			<-proceed
			return x.read(ctx, keys)
		})
		first <- err
	}()
	<-begun
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	close(proceed)
	rows, err = queries.Shared(t.Context(), s, "tally", []string{"c"}, 1, 0, fail)
	require.NoError(t, err, "the first one's reading answers")
	require.NotNil(t, rows[0])
}
