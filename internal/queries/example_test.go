package queries_test

import (
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

type opened struct {
	Owner string `json:"owner"`
}

type deposited struct {
	Cents int64 `json:"cents"`
}

func (opened) EventType() string    { return "account.opened" }
func (deposited) EventType() string { return "account.deposited" }

// account is a row of the view and, in this framework, the GraphQL type as well.
type account struct {
	ID       string `db:"id,key"`
	Owner    string `db:"owner"`
	Cents    int64  `db:"cents"`
	Position int64  `db:"position,seen"`
}

// A view is declared once and serves the table, a rebuild, and the state as of any moment.
func ExampleView() {
	accounts := queries.View[account]{
		Name:    "account",
		Version: 1, // the table is account_v1, made by a migration
		Types:   queries.Types(opened{}, deposited{}),
		Evolve: func(row account, e eventstore.Event, p eventstore.Payload) account {
			row.Position = e.Position
			switch p := p.(type) {
			case opened:
				row.ID, row.Owner = e.Stream, p.Owner
			case deposited:
				row.Cents += p.Cents
			}
			return row
		},
	}
	registry, err := eventstore.NewRegistry(eventstore.Define[opened](1), eventstore.Define[deposited](1))
	if err != nil {
		fmt.Println(err)
		return
	}
	projection, err := accounts.Projection(registry)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("checkpoint and table:", projection.Checkpoint())

	log := []eventstore.Event{
		{Position: 1, Version: 1, Stream: "account-7", Type: "account.opened", SchemaVersion: 1, Data: json.RawMessage(`{"owner": "ada"}`)},
		{Position: 2, Version: 2, Stream: "account-7", Type: "account.deposited", SchemaVersion: 1, Data: json.RawMessage(`{"cents": 500}`)},
		{Position: 9, Version: 3, Stream: "account-7", Type: "account.deposited", SchemaVersion: 1, Data: json.RawMessage(`{"cents": 250}`)},
	}
	for _, until := range []int{2, 3} {
		row, _, err := accounts.Fold(registry, account{}, false, log[:until]...)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("as of position %d: %s has %d cents\n", row.Position, row.Owner, row.Cents)
	}
	// Output:
	// checkpoint and table: account_v1
	// as of position 2: ada has 500 cents
	// as of position 9: ada has 750 cents
}
