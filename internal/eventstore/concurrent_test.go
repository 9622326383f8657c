package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// acknowledged collects what appends were answered.
type acknowledged struct {
	mu       sync.Mutex
	byNote   map[string]int64 // text to position
	refused  int
	failures []error
}

func (a *acknowledged) add(text string, position int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var conflict *eventstore.ConflictError
	switch {
	case err == nil:
		a.byNote[text] = position
	case errors.As(err, &conflict):
		a.refused++
	default:
		a.failures = append(a.failures, err)
	}
}

// checkLog reads everything and finds holes, and acknowledged events that are not there exactly once.
func checkLog(t *testing.T, store *eventstore.Store, acks *acknowledged) {
	t.Helper()
	position, versions, seen := int64(0), map[string]int64{}, map[string]int64{}
	recorded := time.Time{}
	for event, err := range store.Log(context.Background(), eventstore.LogQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		position++
		versions[event.Stream]++
		if event.Position != position || event.Version != versions[event.Stream] {
			t.Fatalf("hole: event %d, version %d of %s, want %d and %d",
				event.Position, event.Version, event.Stream, position, versions[event.Stream])
		}
		if event.RecordedAt.Before(recorded) {
			t.Fatalf("time goes back at %d", position)
		}
		recorded = event.RecordedAt
		payload, err := store.Registry().Decode(event)
		if err != nil {
			t.Fatal(err)
		}
		text := payload.(noted).Text
		if at, twice := seen[text]; twice {
			t.Fatalf("%s is there twice: %d and %d", text, at, position)
		}
		seen[text] = position
	}
	for text, at := range acks.byNote {
		if seen[text] != at {
			t.Fatalf("%s was acknowledged at %d and is at %d", text, at, seen[text])
		}
	}
}

func TestManyAppendersAndAReaderThatFollows(t *testing.T) {
	t.Parallel()
	appendAndFollow(t, open(t, pgtest.Pool(t), eventstore.Config{}))
}

func appendAndFollow(t *testing.T, store *eventstore.Store) {
	t.Helper()
	const appenders, each = 64, 25
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	acks := &acknowledged{byNote: map[string]int64{}}
	var writers sync.WaitGroup
	written := make(chan struct{})
	for a := range appenders {
		writers.Go(func() {
			version := map[string]int64{}
			for i := range each {
				stream, text := fmt.Sprintf("note-%d", (a+i)%8), fmt.Sprintf("%d.%d", a, i)
				expected := eventstore.Any
				if i%2 == 0 {
					expected = eventstore.Exact(version[stream])
				}
				receipt, err := store.Append(ctx, eventstore.Request{Stream: stream, Expected: expected, Events: notes(text)})
				var conflict *eventstore.ConflictError
				if errors.As(err, &conflict) {
					version[stream] = conflict.Actual
				} else {
					version[stream] = receipt.Version
				}
				acks.add(text, receipt.Position(), err)
			}
		})
	}
	go func() {
		writers.Wait()
		close(written)
	}()
	follow(ctx, t, store, written)
	if len(acks.failures) > 0 || len(acks.byNote)+acks.refused != appenders*each || acks.refused == 0 {
		t.Fatalf("%d acknowledged, %d refused, failures %v", len(acks.byNote), acks.refused, acks.failures)
	}
	checkLog(t, store, acks)
}

// follow reads the tail until the writers are done and everything was seen, in order and without a hole.
func follow(ctx context.Context, t *testing.T, store *eventstore.Store, written <-chan struct{}) {
	t.Helper()
	position := int64(0)
	for {
		done := false
		select {
		case <-written:
			done = true
		default:
		}
		_, next := store.Committed()
		page, err := store.ReadLog(ctx, eventstore.LogQuery{After: position})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range page.Events {
			if position++; event.Position != position {
				t.Fatalf("the reader saw %d where %d belongs", event.Position, position)
			}
		}
		if position < page.Head {
			continue
		}
		if done {
			return
		}
		select {
		case <-next:
		case <-written:
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

func TestALongTransactionElsewhereStopsNobody(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "insert into claims (key, stream) values ('elsewhere', 'x')"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a")}); err != nil {
		t.Fatal(err)
	}
	page, err := store.ReadLog(t.Context(), eventstore.LogQuery{})
	if err != nil || len(page.Events) != 1 {
		t.Fatalf("got %+v, %v", page, err)
	}
}
