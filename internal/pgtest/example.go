package pgtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// Example runs f with what stands for a *testing.T in an Example, which has none: Pool and URL give it a database of its
// own, and cleanups run when f returns. A failure panics, so that it does not pass for output.
func Example(name string, f func(tb testing.TB)) {
	tb := &exampleTB{name: name}
	defer func() {
		for _, cleanup := range slices.Backward(tb.cleanups) {
			cleanup()
		}
	}()
	f(tb)
}

type exampleTB struct {
	testing.TB
	name     string
	cleanups []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Name() string                 { return e.name }
func (e *exampleTB) Context() context.Context     { return context.Background() }
func (e *exampleTB) Cleanup(f func())             { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Error(args ...any)            { fmt.Println(args...) }
func (e *exampleTB) Errorf(f string, args ...any) { fmt.Printf(f+"\n", args...) }
func (e *exampleTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (e *exampleTB) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
