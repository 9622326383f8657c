package commands_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// What a process keeps of a stream whose last events are gone neither refuses what may be, nor allows what may not.
func TestAStateIsDroppedWithItsEvents(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, store := open(t, pool, commands.Config{})
	spent, earned := newAccount(), newAccount()
	mustHandle(t, h, spent, deposit{Amount: 20}, commands.Call{})
	kept := mustHandle(t, h, earned, deposit{Amount: 1}, commands.Call{})
	mustHandle(t, h, spent, withdraw{Amount: 15}, commands.Call{})
	mustHandle(t, h, earned, deposit{Amount: 100}, commands.Call{})
	pgtest.Lose(t, pool, kept.Position())
	if err := store.Review(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustHandle(t, h, spent, withdraw{Amount: 20}, commands.Call{})
	other, _ := open(t, pool, commands.Config{})
	mustHandle(t, other, earned, deposit{Amount: 1}, commands.Call{}) // at the version again that is kept
	_, err := h.Handle(t.Context(), earned, withdraw{Amount: 50}, commands.Call{})
	wantCode(t, err, codeOverdrawn)
	for _, stream := range []string{spent, earned} {
		balance(t, store, stream)
	}
}

// While an append waits for the log, the log becomes one of another history. What a client wants is decided anew; what was to
// follow from an event is given up, since the event may be no more.
func TestWhatFollowsFromAnEventEndsWithItsHistory(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, store := open(t, pool, commands.Config{})
	stream := newAccount()
	raisedMeanwhile := func(call commands.Call) error {
		raise := func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `update log set epoch = epoch + 1`); err != nil {
				return err
			}
			return tx.Commit(ctx)
		}
		return meanwhile(t, pool, raise, func() error {
			_, err := h.Handle(t.Context(), stream, deposit{Amount: 1}, call)
			return err
		})
	}
	if err := raisedMeanwhile(commands.Call{}); err != nil {
		t.Errorf("a client's command: %v", err)
	}
	event := eventstore.Event{ID: uuid.New(), Stream: "cart-1", Metadata: []byte(`{}`)}
	event.Epoch, _ = store.Epoch()
	call := commands.React("policy", event)
	var history *eventstore.HistoryError
	if err := raisedMeanwhile(call); !errors.As(err, &history) || history.Epoch <= event.Epoch {
		t.Errorf("a policy's command: %v", err)
	}
	if _, err := h.Handle(t.Context(), stream, deposit{Amount: 1}, call); !errors.As(err, &history) {
		t.Errorf("the same once more: %v", err)
	}
	if _, err := h.Create(t.Context(), newAccount(), deposit{Amount: 1}, call); !errors.As(err, &history) {
		t.Errorf("on a new stream: %v", err)
	}
	event.Epoch, _ = store.Epoch()
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.React("policy", event)) // it is there in this history too
	if got, _ := balance(t, store, stream); got != 2 {
		t.Errorf("%d is in the account", got)
	}
}
