package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// exampleTB gives an Example, which has no *testing.T, a database of its own.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Name() string                 { return "ExampleStore" }
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Errorf(f string, args ...any) { fmt.Printf(f+"\n", args...) }
func (e *exampleTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (e *exampleTB) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func ExampleStore() {
	tb := &exampleTB{}
	defer func() {
		for _, cleanup := range slices.Backward(tb.cleanups) {
			cleanup()
		}
	}()
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
	// Output:
	// version 2 position 2
	// true stream note-1 is at version 2, expected 1
	// 1 note.taken {"text": "buy milk"}
	// 2 note.taken {"text": "call Ada"}
}
