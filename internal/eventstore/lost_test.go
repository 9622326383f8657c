package eventstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// blinded is a pool of a role to which Postgres does not tell its identifier and timeline, as with some hosts.
func blinded(t *testing.T) *pgxpool.Pool {
	t.Helper()
	owner := pgtest.Pool(t)
	role := "blind_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec := func(sql string) {
		if _, err := owner.Exec(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(`revoke execute on function pg_control_system() from public`)
	exec(`create role ` + role)
	t.Cleanup(func() { exec(`drop owned by ` + role); exec(`drop role ` + role) })
	exec(`grant all on all tables in schema public to ` + role)
	config := owner.Config()
	config.ConnConfig.RuntimeParams["role"] = role
	return poolOf(t, config)
}

// An older copy of the disk is put back under two processes that go on. Postgres says that it is the same, or nothing at all;
// those who saw what is gone notice.
func TestWhoSawWhatIsGoneRaisesTheEpoch(t *testing.T) {
	t.Parallel()
	for name, pool := range map[string]func(*testing.T) *pgxpool.Pool{
		"told":     func(t *testing.T) *pgxpool.Pool { return pgtest.Pool(t) },
		"not told": blinded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, quiet := pool(t), eventstore.Config{Logger: slog.New(slog.DiscardHandler)}
			store, other := open(t, pool, quiet), open(t, pool, quiet)
			kept := appended(t, store, "note-1", "a", "b")
			lost := appended(t, store, "note-1", "c", "d")
			before, raised := store.Epoch()
			if !store.Knows(lost) || other.Knows(lost) {
				t.Error("who appended an event knows it, and nobody else")
			}
			if err := other.Review(t.Context()); err != nil {
				t.Fatal(err)
			}
			pgtest.Lose(t, pgtest.Pool(t), kept.Position)
			for _, s := range []*eventstore.Store{store, other} {
				if err := s.Review(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-raised:
			default:
				t.Fatal("nobody noticed")
			}
			raises := func() (n int, reason string) {
				t.Helper()
				if err := pool.QueryRow(t.Context(), `select count(*), max(reason) from epochs`).Scan(&n, &reason); err != nil {
					t.Fatal(err)
				}
				return n, reason
			}
			if n, reason := raises(); n != 1 || !strings.Contains(reason, "events that it had are gone") {
				t.Errorf("the epoch was raised %d times: %s", n, reason)
			}
			stale := eventstore.Request{Stream: "note-1", Expected: eventstore.Exact(2), Events: notes("x"), Epoch: before}
			if _, err := store.Append(t.Context(), stale); !errors.As(err, new(*eventstore.HistoryError)) {
				t.Errorf("an append that was decided on what is gone: %v", err)
			}
			again := appended(t, other, "note-1", "e", "f", "g")
			if err := store.CheckToken(t.Context(), lost); !isDiverged(err) || store.Knows(lost) {
				t.Errorf("the token of what is gone: %v", err)
			}
			for name, token := range map[string]eventstore.Token{"kept": kept, "new": again} {
				if err := store.CheckToken(t.Context(), token); err != nil {
					t.Errorf("the token of what is %s: %v", name, err)
				}
			}
			if !store.Knows(again) || store.Knows(kept) {
				t.Error("of the present epoch it knows what it found, and of others nothing")
			}
			if err := open(t, pool, quiet).Review(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n, _ := raises(); n != 1 {
				t.Errorf("the epoch was raised %d times", n)
			}
		})
	}
}
