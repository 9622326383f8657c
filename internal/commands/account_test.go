package commands_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// The write model of these tests: an account that cannot be overdrawn, and may carry a name that no other has.

type command interface{ CommandType() string }

type (
	deposit  struct{ Amount int }
	withdraw struct{ Amount int }
	settle   struct{} // succeeds without events when the balance is zero
	name     struct{ Name string }
)

func (deposit) CommandType() string  { return "account.deposit" }
func (withdraw) CommandType() string { return "account.withdraw" }
func (settle) CommandType() string   { return "account.settle" }
func (name) CommandType() string     { return "account.name" }

type event interface{ EventType() string }

type (
	deposited struct{ Amount int }
	withdrawn struct{ Amount int }
	named     struct{ Name string }
	foreign   struct{} // registered, and none of the account's
)

func (deposited) EventType() string { return "account.deposited" }
func (withdrawn) EventType() string { return "account.withdrawn" }
func (named) EventType() string     { return "account.named" }
func (foreign) EventType() string   { return "foreign.happened" }
func (deposited) isAccountEvent()   {}
func (withdrawn) isAccountEvent()   {}
func (named) isAccountEvent()       {}

type accountEvent interface {
	event
	isAccountEvent()
}

type handler = commands.Handler[command, accountEvent, int]

const codeOverdrawn, codeNameTaken = "OVERDRAWN", "NAME_TAKEN"

func account() commands.Decider[command, accountEvent, int] {
	return commands.Decider[command, accountEvent, int]{
		Category: "account",
		Initial:  func(string) int { return 0 },
		Decide:   decide,
		Evolve: func(balance int, e accountEvent) int {
			switch e := e.(type) {
			case deposited:
				return balance + e.Amount
			case withdrawn:
				return balance - e.Amount
			}
			return balance
		},
		Effects: func(_ int, events []accountEvent) commands.Effects {
			var effects commands.Effects
			for _, e := range events {
				if e, ok := e.(named); ok {
					effects.Claim = append(effects.Claim, commands.Claim{
						Key: "account.name:" + e.Name, Taken: &commands.Rejection{Code: codeNameTaken, Message: "taken", Field: "name"},
					})
				}
			}
			return effects
		},
	}
}

func decide(balance int, cmd command) ([]accountEvent, error) {
	overdrawn := &commands.Rejection{Code: codeOverdrawn, Message: "there is not so much in the account"}
	switch c := cmd.(type) {
	case deposit:
		return []accountEvent{deposited(c)}, nil
	case withdraw:
		if c.Amount > balance {
			return nil, overdrawn
		}
		return []accountEvent{withdrawn(c)}, nil
	case settle:
		if balance > 0 {
			return nil, overdrawn
		}
		return nil, nil
	case name:
		return []accountEvent{named(c)}, nil
	}
	return nil, overdrawn
}

func openStore(t testing.TB, pool *pgxpool.Pool) *eventstore.Store {
	t.Helper()
	registry, err := eventstore.NewRegistry(eventstore.Define[deposited](1), eventstore.Define[withdrawn](1),
		eventstore.Define[named](1), eventstore.Define[foreign](1))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(context.Background(), pool, registry, eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := store.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return store
}

// open is a process: a store and a handler of its own.
func open(t testing.TB, pool *pgxpool.Pool, cfg commands.Config) (*handler, *eventstore.Store) {
	t.Helper()
	store := openStore(t, pool)
	return commands.NewHandler(store, account(), cfg), store
}

func openOne(t testing.TB) (*handler, *eventstore.Store) {
	t.Helper()
	return open(t, pgtest.Pool(t), commands.Config{})
}

func mustHandle(t testing.TB, h *handler, stream string, cmd command, call commands.Call) eventstore.Receipt {
	t.Helper()
	receipt, err := h.Handle(context.Background(), stream, cmd, call)
	if err != nil {
		t.Fatalf("%s: %v", cmd.CommandType(), err)
	}
	return receipt
}

func newAccount() string { return eventstore.StreamID("account") }

func version(v int64) *int64 { return &v }

// balance folds the stream from the log, past every handler's memory, and checks that it was never overdrawn.
func balance(t testing.TB, store *eventstore.Store, stream string) (sum int, events int64) {
	t.Helper()
	for e, err := range store.Stream(context.Background(), stream, 0) {
		if err != nil {
			t.Fatal(err)
		}
		payload, err := store.Registry().Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		if sum = account().Evolve(sum, payload.(accountEvent)); sum < 0 {
			t.Fatalf("%s is overdrawn at version %d", stream, e.Version)
		}
		if events++; e.Version != events {
			t.Fatalf("%s: version %d comes as number %d", stream, e.Version, events)
		}
	}
	return sum, events
}
