package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func ExampleStore() {
	pgtest.Example("ExampleStore", func(tb testing.TB) {
		ctx := context.Background()
		store := open(tb, pgtest.Pool(tb), eventstore.Config{})

		receipt, err := store.Append(ctx, eventstore.Request{
			Stream: "note-1", Expected: eventstore.NoStream, Events: notes("buy milk", "call Ada"),
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("version", receipt.Version, "position", receipt.Position())

		_, err = store.Append(ctx, eventstore.Request{Stream: "note-1", Expected: eventstore.Exact(1), Events: notes("too late")})
		var conflict *eventstore.ConflictError
		fmt.Println(errors.As(err, &conflict), err)

		for event, err := range store.Log(ctx, eventstore.LogQuery{}) {
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println(event.Position, event.Type, string(event.Data))
		}
	})
	// Output:
	// version 2 position 2
	// true stream note-1 is at version 2, expected 1
	// 1 note.taken {"text": "buy milk"}
	// 2 note.taken {"text": "call Ada"}
}
