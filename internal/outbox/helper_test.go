package outbox_test

import (
	"context"
	"testing"
	"time"
)

// deadline is the one time limit of a test's waits. It ends with the test.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
