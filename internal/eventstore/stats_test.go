package eventstore_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func TestStatsCountWhatWasWrittenAndRefused(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	request := eventstore.Request{
		Stream: "note-1", Events: notes("a", "b"), CommandID: eventstore.CommandID{Actor: "ada", ID: "1"},
	}
	for range 2 { // the second is a repeat, which writes nothing
		if _, err := store.Append(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("c")}); err == nil {
		t.Fatal("the stream is there already")
	}
	_, err := store.AppendIn(t.Context(), func(pgx.Tx) (eventstore.Request, error) {
		return eventstore.Request{Stream: "note-2", Events: notes("d")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := store.Stats(), (eventstore.Stats{Batches: 4, Events: 3, Conflicts: 1}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}
