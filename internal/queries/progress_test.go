package queries_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

func (b *bundle) progress() *queries.Progress {
	return queries.NewProgress(b.pool, b.store, queries.ProgressConfig{FollowPoll: 10 * time.Millisecond})
}

// soon is a context whose deadline is meant to pass.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// Whoever waits for the token of a write reads a row that includes it.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	b.serve(t, progress, b.tally)
	remote := b.progress() // as another process has it: nobody tells it anything
	var all sync.WaitGroup
	for w := range 6 {
		all.Go(func() {
			p := progress
			if w%2 == 1 {
				p = remote
			}
			for i := range 15 {
				stream := streamName(w)
				token := b.append(t, stream, counted{By: 1})
				require.NoError(t, p.Wait(deadline(t), "tally", token))
				row, err := queries.One[tally](t.Context(), b.reads, "read tally", sqlTally, stream)
				require.NoError(t, err)
				require.GreaterOrEqual(t, row.Count, i+1)
			}
		})
	}
	all.Wait()
}

// What memory knows needs no database: here there is none any more.
func TestWaitFromMemory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	token := b.append(t, "tally-a", counted{})
	at := b.project(t, b.tally)
	require.NoError(t, progress.Wait(deadline(t), "tally", token))
	progress.Advance(b.tally.Checkpoint(), at)
	b.pool.Close()
	require.NoError(t, progress.Wait(t.Context(), "tally", token))
	require.NoError(t, progress.Wait(t.Context(), "tally", eventstore.Token{}), "the empty log is in every state")
}

// What a crash took back of a projection's last commits is not included any more, whoever committed it, and although memory
// had it.
func TestWhatACrashTookBackIsNotIncluded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.append(t, "tally-a", counted{})
	token := b.append(t, "tally-a", counted{})
	at := b.project(t, b.tally)
	owner, remote := b.progress(), b.progress()
	owner.Advance("tally_v1", at)
	for name, progress := range map[string]*queries.Progress{"owner": owner, "remote": remote} {
		background(t, func(ctx context.Context) error {
			return progress.Follow(ctx, b.tally, func(ctx context.Context, _ queries.Projection) error { <-ctx.Done(); return nil })
		})
		require.NoError(t, progress.Wait(deadline(t), "tally", token), name)
	}
	_, err := b.pool.Exec(t.Context(), `update checkpoints set position = 1, event_id = (select id from events where position = 1)`)
	require.NoError(t, err)
	for name, progress := range map[string]*queries.Progress{"owner": owner, "remote": remote} {
		var behind *queries.BehindError
		for ctx := deadline(t); !errors.As(progress.Wait(soon(t), "tally", token), &behind); {
			require.NoError(t, ctx.Err(), name)
		}
	}
	b.project(t, b.tally)
	require.NoError(t, owner.Wait(deadline(t), "tally", token))
	require.NoError(t, remote.Wait(deadline(t), "tally", token))
}

// A checkpoint that was never written is not reached, and an error says how far behind the view is.
func TestWaitBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	b.append(t, "tally-a", counted{})
	token := b.append(t, "tally-a", counted{})
	b.append(t, "tally-a", counted{})
	err := progress.Wait(soon(t), "tally", token)
	var behind *queries.BehindError
	require.ErrorAs(t, err, &behind)
	require.Equal(t, "tally", behind.Projection)
	require.EqualValues(t, 0, behind.Position)
	require.EqualValues(t, 2, behind.Wanted)
	require.EqualValues(t, 3, behind.Head)

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, progress.Wait(cancelled, "tally", token), context.Canceled)
}

func TestWaitHalted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	early := b.append(t, "tally-a", counted{})
	b.project(t, b.tally)
	late := b.append(t, "tally-a", counted{})
	_, err := b.pool.Exec(t.Context(), `update checkpoints set halted_at = now(), halt_reason = 'event 2 is odd'`)
	require.NoError(t, err)
	err = progress.Wait(deadline(t), "tally", late)
	var halted *queries.HaltedError
	require.ErrorAs(t, err, &halted)
	require.Equal(t, queries.HaltedError{Projection: "tally", Position: 1, Reason: "event 2 is odd"}, *halted)
	require.NoError(t, progress.Wait(deadline(t), "tally", early), "what it has taken can be read")
}

func TestWaitForWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	good := b.append(t, "tally-a", counted{})
	at := b.project(t, b.tally)
	for _, known := range []bool{false, true} {
		if known {
			require.NoError(t, progress.Wait(deadline(t), "tally", good))
			progress.Advance(b.tally.Checkpoint(), at)
		}
		var diverged *eventstore.DivergedError
		foreign := good
		foreign.LogID = uuid.New()
		require.ErrorAs(t, progress.Wait(deadline(t), "tally", foreign), &diverged)
		newer := good
		newer.Epoch++
		require.ErrorAs(t, progress.Wait(deadline(t), "tally", newer), &diverged)
		var beyond *eventstore.BeyondHeadError
		ahead := good
		ahead.Position = 99
		require.ErrorAs(t, progress.Wait(deadline(t), "tally", ahead), &beyond)
	}
	var unknown *queries.UnknownProjectionError
	require.ErrorAs(t, progress.Wait(deadline(t), "telly", good), &unknown)
}

// Waiters are bounded, are answered up to where the projection has come, and make its consumer hurry.
func TestWaitersAreBoundedAndHurryTheConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := queries.NewProgress(b.pool, b.store, queries.ProgressConfig{MaxWaiters: 2})
	first := b.append(t, "tally-a", counted{})
	second := b.append(t, "tally-a", counted{})
	hurried := make(chan struct{}, 10)
	remove := progress.OnWait(b.tally.Checkpoint(), func() { hurried <- struct{}{} })
	_, err := progress.Freshness(deadline(t), "tally") // learns which checkpoint serves
	require.NoError(t, err)
	outcomes := make(chan error, 2)
	for _, token := range []eventstore.Token{first, second} {
		go func() { outcomes <- progress.Wait(deadline(t), "tally", token) }()
		<-hurried
	}
	var busy *queries.WaitersError
	require.ErrorAs(t, progress.Wait(deadline(t), "tally", second), &busy)
	require.Equal(t, 2, busy.Waiting)
	progress.Advance(b.tally.Checkpoint(), first)
	require.NoError(t, <-outcomes)
	progress.Advance(b.tally.Checkpoint(), second)
	require.NoError(t, <-outcomes)
	remove()
	require.Empty(t, hurried)
}

// Follow ends with what it runs, whether that failed or not.
func TestFollowEndsWithItsRunner(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := b.progress()
	err := progress.Follow(deadline(t), b.tally, func(_ context.Context, p queries.Projection) error {
		require.Equal(t, "tally_v1", p.Checkpoint())
		return context.DeadlineExceeded
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, progress.Follow(deadline(t), b.tally, func(context.Context, queries.Projection) error { return nil }))
	var unknown *queries.UnknownProjectionError
	require.ErrorAs(t, progress.Follow(deadline(t), queries.Projection{Name: "telly"}, nil), &unknown)
}

// told is a log that only says that there was something.
type told chan struct{}

func (c told) Write(line []byte) (int, error) {
	select {
	case c <- struct{}{}:
	default:
	}
	return len(line), nil
}

// A database that fails just when a projection begins, as one with too many connections does, does not end it for good.
func TestFollowOutlivesFailuresOfTheDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	failed := make(told, 1)
	progress := queries.NewProgress(b.pool, b.store, queries.ProgressConfig{Logger: slog.New(slog.NewTextHandler(failed, nil))})
	_, err := b.pool.Exec(t.Context(), `alter table views rename to views_away`)
	require.NoError(t, err)
	running := make(chan string, 1)
	stop := background(t, func(ctx context.Context) error {
		return progress.Follow(ctx, b.tally, func(ctx context.Context, p queries.Projection) error {
			running <- p.Checkpoint()
			<-ctx.Done()
			return nil
		})
	})
	for range 2 {
		select {
		case <-failed:
		case <-deadline(t).Done():
			t.Fatal("nothing failed")
		}
	}
	_, err = b.pool.Exec(t.Context(), `alter table views_away rename to views`)
	require.NoError(t, err)
	select {
	case checkpoint := <-running:
		require.Equal(t, "tally_v1", checkpoint)
	case <-deadline(t).Done():
		t.Fatal("it does not run")
	}
	stop()
}

// A server goes over to another generation as soon as a waiting caller finds that it serves, and not at its next tick.
func TestFollowGoesOverWhenSomebodyWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	progress := queries.NewProgress(b.pool, b.store, queries.ProgressConfig{FollowPoll: time.Hour})
	running := make(chan string, 10)
	background(t, func(ctx context.Context) error {
		return progress.Follow(ctx, b.tally, func(ctx context.Context, p queries.Projection) error {
			running <- p.Checkpoint()
			r := runner{b: b, p: p, page: 50, moved: func(at eventstore.Token) { progress.Advance(p.Checkpoint(), at) }}
			return r.run(ctx)
		})
	})
	require.Equal(t, "tally_v1", <-running)
	require.NoError(t, progress.Wait(deadline(t), "tally", b.append(t, "tally-a", counted{By: 1})))
	b.rebuild(t, b.tally, queries.RebuildConfig{Switch: true})
	require.NoError(t, progress.Wait(deadline(t), "tally", b.append(t, "tally-a", counted{By: 1})))
	require.Equal(t, "tally_v1_2", <-running)
}
