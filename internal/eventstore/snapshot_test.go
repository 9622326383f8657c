package eventstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// A snapshot does not see what comes after it began.
func TestASnapshotIsOfOneMoment(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	ctx := t.Context()
	appendOne := func(expected int64, claim string) {
		t.Helper()
		request := eventstore.Request{
			Stream: "note-1", Expected: eventstore.Exact(expected), Events: notes("x"), Claim: []string{claim},
			CommandID: eventstore.CommandID{ID: claim},
		}
		if _, err := store.Append(ctx, request); err != nil {
			t.Fatal(err)
		}
	}
	appendOne(0, "a")
	err := store.Snapshot(ctx, func(s *eventstore.Snapshot) error {
		appendOne(1, "b")
		if s.Head().Position != 1 || s.Now().IsZero() {
			t.Errorf("the head is %+v at %s", s.Head(), s.Now())
		}
		n := 0
		for _, err := range s.Stream(ctx, "note-1", 0) {
			if err != nil {
				return err
			}
			n++
		}
		version, err := s.StreamVersion(ctx, "note-1")
		if err != nil || version != 1 || n != 1 {
			t.Errorf("version %d, %d events, %v", version, n, err)
		}
		_, foundA, err1 := s.FindReceipt(ctx, eventstore.CommandID{ID: "a"})
		_, foundB, err2 := s.FindReceipt(ctx, eventstore.CommandID{ID: "b"})
		if err := errors.Join(err1, err2); err != nil || !foundA || foundB {
			t.Errorf("receipts: %v, %v, %v", foundA, foundB, err)
		}
		return s.Judge(ctx, eventstore.Draft{Stream: "note-2", Claim: []string{"b"}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What a snapshot says of claims is what an append says.
func TestClaimsAreJudgedAsAnAppendJudgesThem(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	ctx := t.Context()
	for stream, keys := range map[string][]string{"note-1": {"a", "b"}, "note-2": {"c"}} {
		if _, err := store.Append(ctx, eventstore.Request{Stream: stream, Events: notes("x"), Claim: keys}); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]eventstore.Request{
		"free":         {Claim: []string{"x"}},
		"own":          {Claim: []string{"a"}},
		"taken":        {Claim: []string{"x", "c"}},
		"unheld":       {Release: []string{"a", "z"}},
		"another's":    {Release: []string{"c"}},
		"both":         {Claim: []string{"c"}, Release: []string{"z"}},
		"kept":         {Claim: []string{"c"}, Release: []string{"c"}},
		"nothing":      {},
		"given back":   {Release: []string{"b"}},
		"taken, freed": {Claim: []string{"y"}, Release: []string{"a"}},
	} {
		r.Stream, r.Expected, r.Events = "note-1", eventstore.Any, notes("x")
		draft, err := store.Draft(r)
		if err != nil {
			t.Fatal(err)
		}
		var judged error
		if err := store.Snapshot(ctx, func(s *eventstore.Snapshot) error { judged = s.Judge(ctx, draft); return nil }); err != nil {
			t.Fatal(err)
		}
		r.Also = []eventstore.StreamAppend{{Stream: "note-none", Expected: eventstore.StreamExists, Events: notes("x")}}
		_, err = store.Append(ctx, r) // is judged whole, and refused in any case: the other stream is not there
		taken, isTaken := errors.AsType[*eventstore.ClaimTakenError](judged)
		if !errors.As(err, new(*eventstore.ConflictError)) {
			t.Fatalf("%s: %v", name, err)
		}
		r.Also = nil
		_, err = store.Append(ctx, r)
		refused, isRefused := errors.AsType[*eventstore.ClaimTakenError](err)
		if isTaken != isRefused || (isTaken && *taken != *refused) || (!isRefused && err != nil) {
			t.Errorf("%s: judged %v, and then %v", name, judged, err)
		}
	}
	if _, err := store.Draft(eventstore.Request{Stream: "", Events: notes("x")}); !errors.As(err, new(*eventstore.InvalidRequestError)) {
		t.Errorf("a stream without a name is drafted: %v", err)
	}
}

func TestASnapshotEndsWithItsFunction(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	broken := errors.New("broken off")
	if err := store.Snapshot(t.Context(), func(*eventstore.Snapshot) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Snapshot(gone, func(*eventstore.Snapshot) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A time's position is that of the last event recorded by then, found by halving what a walk along the log finds too.
func TestATimeMapsToAPosition(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	ctx := t.Context()
	if position, err := store.PositionAt(ctx, time.Now().Add(-time.Hour)); err != nil || position != 0 {
		t.Fatalf("in the empty log: %d, %v", position, err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 3).Draw(rt, "events")
		if n > 0 {
			if _, err := store.Append(ctx, eventstore.Request{Stream: eventstore.StreamID("note"), Events: notes(make([]string, n)...)}); err != nil {
				rt.Fatal(err)
			}
		}
		var times []time.Time // by position
		for e, err := range store.Log(ctx, eventstore.LogQuery{}) {
			if err != nil {
				rt.Fatal(err)
			}
			times = append(times, e.RecordedAt)
		}
		if len(times) == 0 {
			return
		}
		at := times[rapid.IntRange(0, len(times)-1).Draw(rt, "event")]
		at = at.Add(time.Duration(rapid.IntRange(-2, 2).Draw(rt, "microseconds")) * time.Microsecond)
		want := int64(0)
		for i, recorded := range times {
			if !recorded.After(at) {
				want = int64(i) + 1
			}
		}
		got, err := store.PositionAt(ctx, at)
		if future, is := errors.AsType[*eventstore.FutureError](err); is && !future.Now.After(at) {
			return
		}
		if err != nil || got != want {
			rt.Fatalf("at %s: position %d, %v, want %d", at, got, err, want)
		}
	})
	_, err := store.PositionAt(ctx, time.Now().Add(time.Hour))
	if future, is := errors.AsType[*eventstore.FutureError](err); !is || future.Now.IsZero() {
		t.Errorf("in an hour: %v", err)
	}
}
