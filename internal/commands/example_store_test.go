package commands_test

import (
	"context"
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
func (e *exampleTB) Name() string                 { return "ExampleHandler" }
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Errorf(f string, args ...any) { fmt.Printf(f+"\n", args...) }
func (e *exampleTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (e *exampleTB) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func withExampleStore(run func(context.Context, *eventstore.Store) error) {
	tb := &exampleTB{}
	defer func() {
		for _, cleanup := range slices.Backward(tb.cleanups) {
			cleanup()
		}
	}()
	if err := run(tb.Context(), openStore(tb, pgtest.Pool(tb))); err != nil {
		fmt.Println(err)
	}
}
