package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/migrations"
)

// patience is far more than any wait of a test takes on a busy machine.
const patience = 3 * time.Minute

// insist repeats a command under one id until it is answered.
func insist(ctx context.Context, store *eventstore.Store, repeats *atomic.Int64, stream, text string) (eventstore.Receipt, error) {
	for ; ; repeats.Add(1) {
		receipt, err := store.Append(ctx, eventstore.Request{
			Stream: stream, Expected: eventstore.Any, Events: notes(text),
			CommandID: eventstore.CommandID{Actor: "ada", ID: text},
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, eventstore.ErrClosed) {
			return receipt, err
		}
	}
}

// load appends from several callers, until it is disturbed; each reports when it has begun, and each answer is recorded.
func load(
	ctx context.Context, store *eventstore.Store, acks *acknowledged, repeats *atomic.Int64, started chan<- struct{}, disturbed <-chan struct{},
) *sync.WaitGroup {
	going := func() bool {
		select {
		case <-disturbed:
			return false
		default:
			return true
		}
	}
	var callers sync.WaitGroup
	for c := range 16 {
		callers.Go(func() {
			for i := 0; (i < 40 || going()) && ctx.Err() == nil; i++ {
				text := fmt.Sprintf("%d.%d", c, i)
				receipt, err := insist(ctx, store, repeats, fmt.Sprintf("note-%d", c%5), text)
				acks.add(text, receipt.Position(), err)
				if i == 5 {
					started <- struct{}{}
				}
			}
		})
	}
	return &callers
}

// survives disturbs a load in its middle and checks that every command had exactly one effect.
func survives(t *testing.T, pool *pgxpool.Pool, disturb func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store := open(t, pool, eventstore.Config{})
	acks := &acknowledged{byNote: map[string]int64{}}
	var repeats atomic.Int64
	started, disturbed := make(chan struct{}, 16), make(chan struct{})
	callers := load(ctx, store, acks, &repeats, started, disturbed)
	<-started
	disturb()
	close(disturbed)
	callers.Wait()
	if len(acks.failures) > 0 || len(acks.byNote) < 16*40 {
		t.Fatalf("%d acknowledged, failures %v", len(acks.byNote), acks.failures)
	}
	if repeats.Load() == 0 {
		t.Fatal("nothing was disturbed")
	}
	pool.Reset() // its idle connections are dead
	checkLog(t, store, acks)
}

func TestKilledBackendsLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	killer, err := pgxpool.New(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(killer.Close)
	survives(t, pool, func() {
		for range 5 {
			_, err := killer.Exec(context.Background(), `select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and pid <> pg_backend_pid()`)
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestACrashOfPostgresLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	pool, err := pgxpool.New(t.Context(), cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := migrations.Up(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	survives(t, pool, func() {
		if err := cluster.Stop("immediate"); err != nil {
			t.Error(err)
		}
		if err := cluster.Start(); err != nil {
			t.Error(err)
		}
	})
}

// childURL names the database to the second process of the next test.
const childURL = "EVENTSTORE_TEST_CHILD_URL"

func TestTwoProcessesShareALog(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	appendAll := func(pool *pgxpool.Pool, name string) *acknowledged {
		store := open(t, pool, eventstore.Config{})
		acks := &acknowledged{byNote: map[string]int64{}}
		var callers sync.WaitGroup
		for c := range 8 {
			callers.Go(func() {
				for i := range 50 {
					text := fmt.Sprintf("%s.%d.%d", name, c, i)
					receipt, err := store.Append(ctx, eventstore.Request{
						Stream: fmt.Sprintf("note-%d", i%4), Expected: eventstore.Any, Events: notes(text),
					})
					acks.add(text, receipt.Position(), err)
				}
			})
		}
		callers.Wait()
		if len(acks.failures) > 0 || len(acks.byNote) != 400 {
			t.Fatalf("%d acknowledged, failures %v", len(acks.byNote), acks.failures)
		}
		return acks
	}
	if url := os.Getenv(childURL); url != "" {
		pool, err := pgxpool.New(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		appendAll(pool, "child")
		return
	}
	pool := pgtest.Pool(t)
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestTwoProcessesShareALog$")
	child.Env = append(os.Environ(), childURL+"="+pgtest.URL(t))
	finished := make(chan error, 1)
	go func() {
		output, err := child.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, output)
		}
		finished <- err
	}()
	acks := appendAll(pool, "parent")
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	store := open(t, pool, eventstore.Config{})
	checkLog(t, store, acks)
	if head, err := store.Head(ctx); err != nil || head.Position != 800 {
		t.Fatalf("got %+v, %v", head, err)
	}
}
