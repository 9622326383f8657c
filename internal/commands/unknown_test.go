package commands_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// sqlWaiting is who stands before the log's lock.
const sqlWaiting = `from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`

// meanwhile holds the log's lock in tx and calls then, which is to give it back, when the append that do makes stands before
// it. It returns what do does.
func meanwhile(t *testing.T, pool *pgxpool.Pool, then func(ctx context.Context, tx pgx.Tx) error, do func() error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "select from log for update"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- do() }()
	for found := 0; found == 0; {
		if err := pool.QueryRow(ctx, "select count(*) "+sqlWaiting).Scan(&found); err != nil {
			t.Fatal(err)
		}
	}
	if err := then(ctx, tx); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		t.Fatal(ctx.Err())
		return nil
	}
}

// cutOff calls waiting when the append that do makes stands before the log's lock, and kills that connection, so that the
// answer of the append never arrives.
func cutOff(t *testing.T, pool *pgxpool.Pool, waiting func(), do func() error) error {
	t.Helper()
	return meanwhile(t, pool, func(ctx context.Context, tx pgx.Tx) error {
		waiting()
		if _, err := pool.Exec(ctx, "select pg_terminate_backend(pid) "+sqlWaiting); err != nil {
			return err
		}
		return tx.Rollback(ctx)
	}, do)
}

func TestLostAnswerIsFoundByTheCommandID(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, store := open(t, pool, commands.Config{})
	stream := newAccount()
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	call := commands.Call{CommandID: "c-1"}
	var receipt eventstore.Receipt
	err := cutOff(t, pool, func() {}, func() (err error) {
		receipt, err = h.Handle(t.Context(), stream, withdraw{Amount: 1}, call)
		return err
	})
	if err != nil || receipt.Version != 2 {
		t.Fatalf("got %+v, %v", receipt, err)
	}
	if got := mustHandle(t, h, stream, withdraw{Amount: 1}, call); got.Token != receipt.Token || !got.Duplicate {
		t.Fatalf("got %+v, want %+v", got, receipt)
	}
	if left, events := balance(t, store, stream); left != 0 || events != 2 {
		t.Fatalf("%d left, %d events", left, events)
	}
}

func TestLostAnswerWithoutCommandIDIsUnknownAndNotRepeated(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, store := open(t, pool, commands.Config{})
	stream := newAccount()
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	err := cutOff(t, pool, func() {}, func() error {
		_, err := h.Handle(t.Context(), stream, deposit{Amount: 10}, commands.Call{})
		return err
	})
	if _, ok := errors.AsType[*eventstore.UnknownOutcomeError](err); !ok {
		t.Fatalf("got %v", err)
	}
	_, before := balance(t, store, stream)
	if before > 2 {
		t.Fatalf("%d events", before)
	}
	if got := mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{}); got.Version != before+1 {
		t.Fatalf("got %+v after %d events", got, before)
	}
}

// The client's time is up while the answer is on its way: he learns that it is unknown, and finds it later by the id.
func TestLostAnswerAtTheEndOfTheContext(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, store := open(t, pool, commands.Config{})
	stream := newAccount()
	call := commands.Call{CommandID: "c-1"}
	ctx, cancel := context.WithCancel(t.Context())
	err := cutOff(t, pool, cancel, func() error {
		_, err := h.Handle(ctx, stream, deposit{Amount: 1}, call)
		return err
	})
	if _, ok := errors.AsType[*eventstore.UnknownOutcomeError](err); !ok {
		t.Fatalf("got %v", err)
	}
	mustHandle(t, h, stream, deposit{Amount: 1}, call)
	if left, events := balance(t, store, stream); left != 1 || events != 1 {
		t.Fatalf("%d left, %d events", left, events)
	}
}
