package commands_test

import (
	"testing"

	"github.com/headrace/headrace/internal/commands"
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
