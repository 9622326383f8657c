package graph

import (
	"fmt"
	"runtime/debug"
	"strconv"
)

// panicError is a panic caught on its way to bringing the process down.
type panicError struct {
	cause any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.cause, e.stack) }

func stack() string { return string(debug.Stack()) }

// position is how positions stand in the extensions of errors: as text, like the scalar.
func position(p int64) string { return strconv.FormatInt(p, 10) }
