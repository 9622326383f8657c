package eventstore_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func TestARefusedAppendInTakesTheCallersWritesBackAndLeavesNoHole(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	if _, err := pool.Exec(t.Context(), "create table mine (n int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a"), Claim: []string{"k"}}); err != nil {
		t.Fatal(err)
	}
	appendIn := func(r eventstore.Request, statements ...string) error {
		_, err := store.AppendIn(t.Context(), func(tx pgx.Tx) (eventstore.Request, error) {
			for _, sql := range append([]string{"insert into mine values (1)"}, statements...) {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					return eventstore.Request{}, err
				}
			}
			return r, nil
		})
		return err
	}
	var taken *eventstore.ClaimTakenError
	if err := appendIn(eventstore.Request{Stream: "note-2", Events: notes("b"), Claim: []string{"k"}}); !errors.As(err, &taken) {
		t.Fatalf("a taken claim: %v", err)
	}
	var conflict *eventstore.ConflictError
	if err := appendIn(eventstore.Request{Stream: "note-1", Events: notes("b")}); !errors.As(err, &conflict) || conflict.Actual != 1 {
		t.Fatalf("a stale version: %v", err)
	}
	if err := appendIn(eventstore.Request{Stream: "note-3", Events: notes("b")}, "rollback"); err == nil {
		t.Fatal("a function that ended its transaction was accepted")
	}
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from mine").Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d of the callers' writes are left, %v", n, err)
	}
	receipt, err := store.Append(t.Context(), eventstore.Request{Stream: "note-4", Events: notes("c")})
	if err != nil || receipt.Position() != 2 {
		t.Fatalf("the next position is %d, %v", receipt.Position(), err)
	}
}

func TestMessagesAreStoredWithTheEvents(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	_, err := store.Append(t.Context(), eventstore.Request{
		Stream: "note-1", Events: notes("a"),
		Messages: []eventstore.Message{{
			Topic: "letters", Key: "k", Payload: []byte(`{"to": "ada"}`), Headers: map[string]string{"h": "v"}, Delay: time.Hour,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var topic, key, to, header string
	var delay float64
	err = pool.QueryRow(t.Context(), `select topic, key, payload->>'to', headers->>'h',
		extract(epoch from available_at - created_at) from outbox`).Scan(&topic, &key, &to, &header, &delay)
	if err != nil || topic != "letters" || key != "k" || to != "ada" || header != "v" || delay != 3600 {
		t.Fatalf("got %s %s %s %s %v, %v", topic, key, to, header, delay, err)
	}
	refused := eventstore.Request{
		Stream: "note-1", Events: notes("b"), Messages: []eventstore.Message{{Topic: "letters", Payload: []byte(`{}`)}},
	}
	var conflict *eventstore.ConflictError
	if _, err := store.Append(t.Context(), refused); !errors.As(err, &conflict) {
		t.Fatalf("got %v", err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from outbox").Scan(&n); err != nil || n != 1 {
		t.Fatalf("a refused request left a message: %d, %v", n, err)
	}
}

func TestReadingFromBeyondTheHeadIsAnError(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a")}); err != nil {
		t.Fatal(err)
	}
	if page, err := store.ReadLog(t.Context(), eventstore.LogQuery{After: 1}); err != nil || len(page.Events) != 0 || page.ScannedTo != 1 {
		t.Fatalf("at the head: %+v, %v", page, err)
	}
	var beyond *eventstore.BeyondHeadError
	if _, err := store.ReadLog(t.Context(), eventstore.LogQuery{After: 2}); !errors.As(err, &beyond) || beyond.Head != 1 {
		t.Fatalf("beyond the head: %v", err)
	}
	if _, err := store.ReadLog(t.Context(), eventstore.LogQuery{After: math.MaxInt64}); !errors.As(err, &beyond) {
		t.Fatalf("far beyond the head: %v", err)
	}
}

func TestAStreamIsReadBothWays(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a", "b", "c", "d")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		query eventstore.StreamQuery
		want  []int64
	}{
		{eventstore.StreamQuery{}, []int64{1, 2, 3, 4}},
		{eventstore.StreamQuery{After: 1, Limit: 2}, []int64{2, 3}},
		{eventstore.StreamQuery{Backward: true}, []int64{4, 3, 2, 1}},
		{eventstore.StreamQuery{Backward: true, Before: 3, Limit: 1}, []int64{2}},
		{eventstore.StreamQuery{After: 4}, nil},
	} {
		events, err := store.ReadStream(t.Context(), "note-1", c.query)
		if err != nil || len(events) != len(c.want) {
			t.Fatalf("%+v: %d events, %v", c.query, len(events), err)
		}
		for i, e := range events {
			if e.Version != c.want[i] {
				t.Errorf("%+v: version %d at %d, want %d", c.query, e.Version, i, c.want[i])
			}
		}
	}
}
