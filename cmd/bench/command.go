package main

import (
	"context"
	"fmt"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// cartLines is how many different items a benchmark's cart holds, so that its events and rows keep their size.
const cartLines = 5

// command measures a whole command: load, decide, append. Hot finds the state in the cache; cold reads the cart's
// events, about coldEvents of them, before each decision.
func (b *bench) command(callers int, hot bool) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		store, err := b.open(ctx, db)
		if err != nil {
			return sample{}, err
		}
		defer store.Close(ctx)
		config := commands.Config{}
		if !hot {
			config.CacheSize = -1
		}
		handler := commands.NewHandler(store, cart.Decider(), config)
		carts := make([]string, callers)
		return run(ctx, callers, 1, b.config.Duration, func(ctx context.Context, w, n int) error {
			if n%coldEvents == 0 {
				if carts[w], err = openCart(ctx, handler); err != nil {
					return err
				}
			}
			_, err := handler.Handle(ctx, carts[w], addItem(n), commands.Call{Who: benchOwner()})
			return err
		})
	}
}

// coldEvents is the length at which a benchmark's cart is left for a new one.
const coldEvents = 40

// benchOwner owns the carts, so that the rule on who may do what is measured with the command.
func benchOwner() identity.Identity { return identity.Identity{Subject: "bench"} }

func openCart(ctx context.Context, handler *commands.Handler[cart.Command, cart.Event, cart.State]) (string, error) {
	id := cart.NewID()
	if _, err := handler.Create(ctx, id, cart.Open{OwnerID: "bench", Currency: "EUR"}, commands.Call{Who: benchOwner()}); err != nil {
		return "", fmt.Errorf("opening a cart: %w", err)
	}
	return id, nil
}

func addItem(n int) cart.AddItem {
	return cart.AddItem{
		SKU:       fmt.Sprintf("SKU-%04d", n%cartLines),
		Name:      "Flour, stone ground, one kilogramme",
		Quantity:  1,
		UnitPrice: money.Money{Amount: 249, Currency: "EUR"},
	}
}

func benchDefinitions() []eventstore.Definition {
	return append(cart.Events(), eventstore.Define[happened](1))
}
