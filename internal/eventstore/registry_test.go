package eventstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func rename(from, to string) eventstore.Upcaster {
	return func(old json.RawMessage) (json.RawMessage, error) {
		return bytes.Replace(old, []byte(from), []byte(to), 1), nil
	}
}

func TestOldEventsAreRaisedStepByStep(t *testing.T) {
	t.Parallel()
	registry, err := eventstore.NewRegistry(eventstore.Define[noted](3, rename("words", "body"), rename("body", "text")))
	if err != nil {
		t.Fatal(err)
	}
	for version, data := range []string{`{"words":"a"}`, `{"body":"a"}`, `{"text":"a"}`} {
		got, err := registry.Decode(eventstore.Event{Type: "note.taken", SchemaVersion: version + 1, Data: []byte(data)})
		if err != nil || got != (noted{"a"}) {
			t.Errorf("version %d: got %v, %v", version+1, got, err)
		}
	}
	var unknown *eventstore.UnknownEventError
	for _, e := range []eventstore.Event{{Type: "note.lost", SchemaVersion: 1}, {Type: "note.taken", SchemaVersion: 4}} {
		if _, err := registry.Decode(e); !errors.As(err, &unknown) || unknown.Type != e.Type {
			t.Errorf("%s, version %d: got %v", e.Type, e.SchemaVersion, err)
		}
	}
	if _, err := eventstore.NewRegistry(eventstore.Define[noted](2)); err == nil {
		t.Error("a missing upcaster was not noticed")
	}
	if _, err := eventstore.NewRegistry(eventstore.Define[noted](1), eventstore.Define[noted](1)); err == nil {
		t.Error("a name that comes twice was not noticed")
	}
}

func TestReceiptsAreKeptForATimeAndGuardTheirCommand(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	ids := []eventstore.CommandID{{Actor: "ada", ID: "old"}, {Actor: "ada", ID: "new"}}
	for _, id := range ids {
		_, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Expected: eventstore.Any, Events: notes("a"), CommandID: id})
		if err != nil {
			t.Fatal(err)
		}
	}
	reused := ids[1]
	reused.Hash[0] = 1
	var other *eventstore.CommandIDReusedError
	if _, _, err := store.FindReceipt(t.Context(), reused); !errors.As(err, &other) {
		t.Errorf("got %v", err)
	}
	_, err := store.Append(t.Context(), eventstore.Request{Stream: "note-2", Events: notes("a"), CommandID: reused})
	if !errors.As(err, &other) {
		t.Errorf("got %v", err)
	}
	if _, err := pool.Exec(t.Context(), "update receipts set recorded_at = now() - interval '8 days' where command_id = 'old'"); err != nil {
		t.Fatal(err)
	}
	if n, err := store.ForgetReceipts(t.Context()); err != nil || n != 1 {
		t.Errorf("forgot %d, %v", n, err)
	}
	for i, wanted := range []bool{false, true} {
		if _, found, err := store.FindReceipt(t.Context(), ids[i]); err != nil || found != wanted {
			t.Errorf("%s: found %v, %v", ids[i].ID, found, err)
		}
	}
}

func TestAFilteredReadReportsHowFarItLooked(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a", "b", "c", "d", "e")}); err != nil {
		t.Fatal(err)
	}
	page, err := store.ReadLog(t.Context(), eventstore.LogQuery{Types: []string{"note.lost"}, Window: 3})
	if err != nil || len(page.Events) != 0 || page.ScannedTo != 3 || page.Head != 5 {
		t.Errorf("got %+v, %v", page, err)
	}
	back, err := store.ReadStream(t.Context(), "note-1", eventstore.StreamQuery{Backward: true, Before: 4, Limit: 2})
	if err != nil || len(back) != 2 || back[0].Version != 3 || back[1].Version != 2 {
		t.Errorf("got %+v, %v", back, err)
	}
	if event, found, err := store.EventAt(t.Context(), 5); err != nil || !found || event.Version != 5 {
		t.Errorf("got %+v, %v, %v", event, found, err)
	}
	if _, found, err := store.EventAt(t.Context(), 6); err != nil || found {
		t.Errorf("found %v, %v", found, err)
	}
}
