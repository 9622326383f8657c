package commands_test

import (
	"context"
	"errors"
	"testing"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/pgtest"
)

var (
	ada   = identity.Identity{Subject: "ada"}
	eve   = identity.Identity{Subject: "eve"}
	clerk = identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}
)

// guarded lets ada work on accounts that are not rich, and staff on all.
func guarded() commands.Decider[command, accountEvent, int] {
	decider := account()
	decider.May = func(balance int, _ command, who identity.Identity) error {
		if who.Has(identity.Staff) || (who.Is("ada") && balance < 100) {
			return nil
		}
		return commands.Forbidden("not yours")
	}
	return decider
}

func wantForbidden(t *testing.T, receipt eventstore.Receipt, err error) {
	t.Helper()
	if _, ok := errors.AsType[*commands.ForbiddenError](err); !ok {
		t.Fatalf("got %+v, %v, want it forbidden", receipt, err)
	}
}

func TestForbiddenTellsNothingOfTheStream(t *testing.T) {
	t.Parallel()
	h := commands.NewHandler(openStore(t, pgtest.Pool(t)), guarded(), commands.Config{})
	there := newAccount()
	mustHandle(t, h, there, deposit{Amount: 5}, commands.Call{Who: ada})
	for name, stream := range map[string]string{"there": there, "not there": newAccount(), "of another kind": "cart-1", "none": "\xff"} {
		for _, call := range []commands.Call{
			{Who: eve},
			{}, // nobody
			{Who: eve, CommandID: "c-1"},
			{Who: eve, ExpectedVersion: version(7)}, // not a conflict, which would tell the version
		} {
			receipt, err := h.Handle(t.Context(), stream, withdraw{Amount: 9}, call)
			wantForbidden(t, receipt, err)
			if err.Error() != "not yours" {
				t.Errorf("%s: %v", name, err)
			}
			receipt, err = h.Create(t.Context(), stream, withdraw{Amount: 9}, call)
			wantForbidden(t, receipt, err)
		}
	}
	_, err := h.Handle(t.Context(), there, withdraw{Amount: 9}, commands.Call{Who: ada})
	wantCode(t, err, codeOverdrawn)
}

func TestWhoMayIsJudgedOnTheStateThatIsDecidedOn(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	one := commands.NewHandler(openStore(t, pool), guarded(), commands.Config{})
	other := commands.NewHandler(openStore(t, pool), guarded(), commands.Config{})
	stream := newAccount()
	mustHandle(t, one, stream, deposit{Amount: 50}, commands.Call{Who: ada})
	// The first process keeps a state on which ada may go on; the log is past it.
	mustHandle(t, other, stream, deposit{Amount: 50}, commands.Call{Who: clerk})
	receipt, err := one.Handle(t.Context(), stream, deposit{Amount: 1}, commands.Call{Who: ada})
	wantForbidden(t, receipt, err)
	// And the other way: what is forbidden on a kept state is judged again on the newest.
	mustHandle(t, other, stream, withdraw{Amount: 50}, commands.Call{Who: clerk})
	mustHandle(t, one, stream, deposit{Amount: 1}, commands.Call{Who: ada})
}

func TestARepeatedCommandGetsItsReceiptWhenItIsForbiddenByNow(t *testing.T) {
	t.Parallel()
	h := commands.NewHandler(openStore(t, pgtest.Pool(t)), guarded(), commands.Config{})
	stream, call := newAccount(), commands.Call{Who: ada, CommandID: "c-1"}
	first := mustHandle(t, h, stream, deposit{Amount: 100}, call)
	again := mustHandle(t, h, stream, deposit{Amount: 100}, call)
	if !again.Duplicate || again.Token != first.Token {
		t.Fatalf("got %+v, want the receipt %+v", again, first)
	}
	receipt, err := h.Handle(context.Background(), stream, deposit{Amount: 100}, commands.Call{Who: eve, CommandID: "c-1"})
	wantForbidden(t, receipt, err)
}
