package commands_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
)

// A write model is three pure functions; a Handler joins it to the log.
func ExampleHandler() {
	decider := commands.Decider[command, accountEvent, int]{
		Category: "account",
		Initial:  func(stream string) int { return 0 },
		Decide: func(balance int, cmd command) ([]accountEvent, error) {
			switch c := cmd.(type) {
			case deposit:
				return []accountEvent{deposited(c)}, nil
			case withdraw:
				if c.Amount > balance {
					return nil, &commands.Rejection{Code: "OVERDRAWN", Message: "there is not so much in the account"}
				}
				return []accountEvent{withdrawn(c)}, nil
			}
			return nil, fmt.Errorf("unknown command %s", cmd.CommandType())
		},
		Evolve: func(balance int, e accountEvent) int {
			switch e := e.(type) {
			case deposited:
				return balance + e.Amount
			case withdrawn:
				return balance - e.Amount
			}
			return balance
		},
	}

	run := func(ctx context.Context, store *eventstore.Store) error {
		accounts := commands.NewHandler(store, decider, commands.Config{})
		stream := eventstore.StreamID("account")
		if _, err := accounts.Create(ctx, stream, deposit{Amount: 10}, commands.Call{CommandID: "first"}); err != nil {
			return err
		}
		receipt, err := accounts.Handle(ctx, stream, withdraw{Amount: 4}, commands.Call{})
		if err != nil {
			return err
		}
		fmt.Println("version", receipt.Version)

		_, err = accounts.Handle(ctx, stream, withdraw{Amount: 7}, commands.Call{})
		if rejection, ok := errors.AsType[*commands.Rejection](err); ok {
			fmt.Println(rejection.Code)
			return nil
		}
		return err
	}
	withExampleStore(run)
	// Output:
	// version 2
	// OVERDRAWN
}
