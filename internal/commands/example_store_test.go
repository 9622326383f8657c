package commands_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func withExampleStore(run func(context.Context, *eventstore.Store) error) {
	pgtest.Example("ExampleHandler", func(tb testing.TB) {
		if err := run(tb.Context(), openStore(tb, pgtest.Pool(tb))); err != nil {
			fmt.Println(err)
		}
	})
}
