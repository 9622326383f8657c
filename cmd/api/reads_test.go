package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
)

func openTestReads(t *testing.T, pool *pgxpool.Pool, size int, timeout time.Duration) *pgxpool.Pool {
	t.Helper()
	reads, err := openReads(t.Context(), pool.Config(), size, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reads.Close)
	return reads
}

func setting(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var text string
	if err := pool.QueryRow(t.Context(), `show statement_timeout`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestOnlyReadsHaveAStatementTimeout(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	for timeout, want := range map[time.Duration]string{0: "0", 1500 * time.Millisecond: "1500ms", 10 * time.Second: "10s"} {
		if got := setting(t, openTestReads(t, pool, 1, timeout)); got != want {
			t.Errorf("%v: the reads have %s, want %s", timeout, got, want)
		}
	}
	if got := setting(t, pool); got != "0" {
		t.Errorf("the others have %s", got)
	}
}

// A pooler tells a client other ids than those of the processes behind it, whose sessions others use next.
func TestASessionBehindAPoolerIsLeftAlone(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for id, want := range map[uint32]string{conn.Conn().PgConn().PID() + 1: "0", conn.Conn().PgConn().PID(): "1234ms"} {
		var got string
		if _, err := conn.Exec(t.Context(), `reset statement_timeout`); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), sqlStatementTimeout, "1234", int64(id)); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), `show statement_timeout`).Scan(&got); err != nil || got != want {
			t.Errorf("with id %d of %d: %s, %v", id, conn.Conn().PgConn().PID(), got, err)
		}
	}
}

// More reads than there are connections are given up, by Postgres or by their callers. All connections are good after
// that, and no statement goes on.
func TestReadsThatAreGivenUpLeaveThePoolWhole(t *testing.T) {
	t.Parallel()
	const size = 3
	pool := pgtest.Pool(t)
	reads := openTestReads(t, pool, size, 100*time.Millisecond)
	for range 2 * size {
		_, err := reads.Exec(t.Context(), `select pg_sleep(600)`)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "57014" {
			t.Fatalf("got %v", err)
		}
	}
	unbounded := openTestReads(t, pool, size, 0)
	for range 2 * size {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		// The request to cancel it may come before it has begun; then it goes on to its own end, which is why reads have a timeout.
		if _, err := unbounded.Exec(ctx, `select pg_sleep(10)`); err == nil {
			t.Fatal("a read outlived its caller")
		}
		cancel()
	}
	until(t, "no statement that goes on", func() bool {
		var n int
		err := pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and state = 'active' and query like '%pg_sleep(%' and pid <> pg_backend_pid()`).Scan(&n)
		return err == nil && n == 0
	})
	for _, p := range []*pgxpool.Pool{reads, unbounded} {
		for range 2 * size {
			if _, err := p.Exec(t.Context(), `select 1`); err != nil {
				t.Error(err)
			}
		}
		until(t, "all connections to be given back", func() bool { return p.Stat().AcquiredConns() == 0 })
	}
}

// Reads that hang take nothing away from commands, and end with a code.
func TestReadsThatHangStopNoCommand(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{Limits: Limits{StatementTimeout: 200 * time.Millisecond}})
	cart := s.open(t)
	read := func() (problem string) {
		var got struct{ Cart *struct{ ID string } }
		problem = post(t.Context(), s.url, `query($id: ID!) { cart(id: $id) { id } }`, map[string]any{"id": cart}, &got)
		if problem == "" && (got.Cart == nil || got.Cart.ID != cart) {
			problem = "it is not there"
		}
		return problem
	}
	until(t, "the cart to be read", func() bool { return read() == "" }) // on a busy machine good reads may take too long
	blocker, err := s.app.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blocker.Rollback(context.Background()) }()
	if _, err := blocker.Exec(t.Context(), `lock table cart_v1 in access exclusive mode`); err != nil {
		t.Fatal(err)
	}
	if problem := read(); !contains(problem, `"TIMEOUT"`) {
		t.Errorf("a read that hangs is answered by %s", problem)
	}
	s.open(t)
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the cart to be read after that", func() bool { return read() == "" })
}
