package eventstore_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func connected(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func appended(t *testing.T, store *eventstore.Store, stream string, text ...string) eventstore.Token {
	t.Helper()
	receipt, err := store.Append(t.Context(), eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: notes(text...)})
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Token
}

// raises is how often the epoch was raised.
func raises(s *pgtest.Server) (n int) {
	s.QueryRow(`select count(*) from epochs`, &n)
	return n
}

func isDiverged(err error) bool {
	_, diverged := errors.AsType[*eventstore.DivergedError](err)
	return diverged
}

// A standby that missed the newest events takes the place of its primary while two processes go on.
func TestAPromotedStandbyHasAnEpochOfItsOwn(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	standby := primary.Standby(nil)
	url := pgtest.Failover(t, standby, primary)
	store, other := open(t, connected(t, url), eventstore.Config{}), open(t, connected(t, url), eventstore.Config{})
	kept := appended(t, store, "note-1", "a", "b")
	standby.CatchUp(primary)
	standby.Detach()
	lost := appended(t, store, "note-1", "c", "d")
	lostMark, keptMark := store.Mark(lost.Position), store.Mark(kept.Position)
	before, raised := store.Epoch()
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	standby.Promote()

	// Both were decided on what they had read before; of what follows it, the one must not become a version 5 without 3 and 4.
	var both sync.WaitGroup
	for _, s := range []*eventstore.Store{store, other} {
		both.Go(func() {
			stale := eventstore.Request{Stream: "note-1", Expected: eventstore.Exact(2), Events: notes("x"), Epoch: before}
			_, err := s.Append(t.Context(), stale)
			for unknown := (*eventstore.UnknownOutcomeError)(nil); errors.As(err, &unknown); {
				_, err = s.Append(t.Context(), stale) // the connection broke; nothing was there to write to
			}
			if history, ok := errors.AsType[*eventstore.HistoryError](err); !ok || history.Epoch <= before {
				t.Errorf("an append that was decided on another history: %v", err)
			}
		})
	}
	both.Wait()
	<-raised
	if n := raises(standby); n != 1 {
		t.Errorf("the epoch was raised %d times", n)
	}
	again := appended(t, store, "note-1", "e", "f", "g")
	if again.Position != kept.Position+3 || again.Epoch <= before {
		t.Errorf("the log goes on at %+v", again)
	}
	for name, err := range map[string]error{
		"the token of what was kept": store.CheckToken(t.Context(), kept), "its mark": store.CheckMark(t.Context(), keptMark),
		"a new token": other.CheckToken(t.Context(), again), "a new mark": other.CheckMark(t.Context(), store.Mark(again.Position)),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := store.ReadLog(t.Context(), eventstore.LogQuery{After: lost.Position, Seen: lost.EventID})
	for name, err := range map[string]error{
		"the token of what was lost": store.CheckToken(t.Context(), lost), "its mark": store.CheckMark(t.Context(), lostMark),
		"a reading that goes on from it": err,
	} {
		if !isDiverged(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that starts now finds all as it is.
	open(t, connected(t, url), eventstore.Config{})
	if n := raises(standby); n != 1 {
		t.Errorf("the epoch was raised %d times", n)
	}
}

// A dump in another cluster has all events of then; a restore to a point in time has those until there. Two restores of
// the same backup come to different epochs.
func TestRestoresHaveEpochsOfTheirOwn(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	store := open(t, primary.Pool(), eventstore.Config{})
	first := appended(t, store, "note-1", "a")
	backup := primary.Backup()
	kept := appended(t, store, "note-1", "b")
	primary.Mark("here")
	later := appended(t, store, "note-1", "c")
	mark := store.Mark(later.Position)
	if n := raises(primary); n != 0 {
		t.Fatalf("a fresh log's epoch was raised %d times", n)
	}

	restored := primary.Restore(backup, map[string]string{"recovery_target_name": "here"})
	there := open(t, restored.Pool(), eventstore.Config{})
	loaded := pgtest.Empty(t)
	loaded.Load(primary.Dump())
	elsewhere := open(t, loaded.Pool(), eventstore.Config{})
	for name, c := range map[string]struct {
		store  *eventstore.Store
		server *pgtest.Server
		holds  bool
	}{"restored": {there, restored, false}, "loaded": {elsewhere, loaded, true}} {
		if n := raises(c.server); n != 1 {
			t.Errorf("%s: the epoch was raised %d times", name, n)
		}
		again := appended(t, c.store, "note-2", "new")
		for i, token := range []eventstore.Token{first, kept, again} {
			if err := c.store.CheckToken(t.Context(), token); err != nil {
				t.Errorf("%s: token %d: %v", name, i, err)
			}
		}
		if err := c.store.CheckToken(t.Context(), later); isDiverged(err) == c.holds {
			t.Errorf("%s: the token of what came later: %v", name, err)
		}
		if err := c.store.CheckMark(t.Context(), mark); isDiverged(err) == c.holds {
			t.Errorf("%s: the mark of what came later: %v", name, err)
		}
	}
	if raises(primary) != 0 {
		t.Error("the primary was touched")
	}

	// What was seen under the epoch of the first restore is not in the second, though that goes further.
	seen := there.Mark(appended(t, there, "note-2", "only here").Position)
	backup = primary.Backup()
	if further := appended(t, store, "note-1", "more", "and", "more"); further.Position <= seen.Position {
		t.Fatalf("the first restore came to %d, and the second only to %d", seen.Position, further.Position)
	}
	primary.Mark("further")
	second := open(t, primary.Restore(backup, map[string]string{"recovery_target_name": "further"}).Pool(), eventstore.Config{})
	if now := second.Mark(0).Epoch; now <= seen.Epoch {
		t.Fatalf("the second restore has the epoch %d, the first %d", now, seen.Epoch)
	}
	if err := second.CheckMark(t.Context(), seen); !isDiverged(err) {
		t.Errorf("%s, a mark of the first restore, in the second: %v", seen, err)
	}
	if err := second.CheckMark(t.Context(), mark); err != nil {
		t.Errorf("a mark of before both: %v", err)
	}
}

func TestMarksSayWhatTheyStandFor(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	at := store.Mark(appended(t, store, "note-1", "a").Position)
	if again, err := eventstore.ParseMark(at.String()); err != nil || again != at {
		t.Errorf("%s is read as %+v: %v", at, again, err)
	}
	if bare, err := eventstore.ParseMark("7"); err != nil || bare != (eventstore.Mark{Position: 7}) {
		t.Errorf("a bare position is read as %+v: %v", bare, err)
	}
	for _, text := range []string{"", "-1", "+1", "01", "1.", "1.1", "1.0.12345678", "1.01.12345678", "1.1.1234567", "1.-1.12345678", "a.1.12345678"} {
		if m, err := eventstore.ParseMark(text); err == nil {
			t.Errorf("%q is read as %+v", text, m)
		}
	}
	beyond, foreign, future := at, at, at
	beyond.Position++
	foreign.Log = "ffffffff"
	future.Epoch++
	if err := store.CheckMark(t.Context(), beyond); !errors.As(err, new(*eventstore.BeyondHeadError)) {
		t.Errorf("beyond the head: %v", err)
	}
	for _, m := range []eventstore.Mark{foreign, future} {
		if err := store.CheckMark(t.Context(), m); !isDiverged(err) {
			t.Errorf("%s: %v", m, err)
		}
	}
}
