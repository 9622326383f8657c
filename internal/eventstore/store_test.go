package eventstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

type noted struct {
	Text string `json:"text"`
}

func (noted) EventType() string { return "note.taken" }

func open(t testing.TB, pool *pgxpool.Pool, cfg eventstore.Config) *eventstore.Store {
	t.Helper()
	registry, err := eventstore.NewRegistry(eventstore.Define[noted](1))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), pool, registry, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	return store
}

func notes(texts ...string) []eventstore.Payload {
	events := make([]eventstore.Payload, len(texts))
	for i, text := range texts {
		events[i] = noted{text}
	}
	return events
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	ctx := t.Context()
	first, err := store.Append(ctx, eventstore.Request{Stream: "note-1", Events: notes("a")})
	if err != nil {
		t.Fatal(err)
	}
	if first.Version != 1 || first.Position() != 1 {
		t.Fatalf("got %+v", first)
	}
	second, err := store.Append(ctx, eventstore.Request{Stream: "note-1", Expected: eventstore.Exact(1), Events: notes("b", "c")})
	if err != nil {
		t.Fatal(err)
	}
	if second.Version != 3 || second.Position() != 3 {
		t.Fatalf("got %+v", second)
	}
	_, err = store.Append(ctx, eventstore.Request{Stream: "note-1", Expected: eventstore.Exact(1), Events: notes("d")})
	var conflict *eventstore.ConflictError
	if !errors.As(err, &conflict) || conflict.Actual != 3 {
		t.Fatalf("got %v", err)
	}
	full, err := store.Append(ctx, eventstore.Request{
		Stream: "note-2", Events: notes("e", "f"), Claim: []string{"k"},
		Also:      []eventstore.StreamAppend{{Stream: "note-1", Expected: eventstore.Exact(3), Events: notes("g")}},
		CommandID: eventstore.CommandID{Actor: "me", ID: "1"},
		Messages:  []eventstore.Message{{Topic: "t", Payload: []byte(`{}`)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if full.Version != 2 || full.Position() != 6 {
		t.Fatalf("got %+v", full)
	}
	again, err := store.Append(ctx, eventstore.Request{
		Stream: "note-3", Events: notes("e"), CommandID: eventstore.CommandID{Actor: "me", ID: "1"},
	})
	if err != nil || !again.Duplicate || again.Token != full.Token {
		t.Fatalf("got %+v, %v", again, err)
	}
	_, err = store.Append(ctx, eventstore.Request{Stream: "note-4", Events: notes("e"), Claim: []string{"k"}})
	var taken *eventstore.ClaimTakenError
	if !errors.As(err, &taken) || taken.Owner != "note-2" {
		t.Fatalf("got %v", err)
	}
	if err := store.CheckToken(ctx, full.Token); err != nil {
		t.Fatal(err)
	}
	page, err := store.ReadLog(ctx, eventstore.LogQuery{})
	if err != nil || len(page.Events) != 6 || page.ScannedTo != 6 {
		t.Fatalf("got %+v, %v", page, err)
	}
}

func poolOf(t testing.TB, config *pgxpool.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
