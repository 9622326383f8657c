package transport

import (
	"context"
	"errors"
	"testing"
	"time"
)

type nameKey struct{}

func TestTimeoutsEndAsThoseOfContextDo(t *testing.T) {
	t.Parallel()
	parent, end := context.WithCancel(context.WithValue(t.Context(), nameKey{}, "ada"))
	for name, c := range map[string]struct {
		make func() *timeout
		want error
	}{
		"open":      {func() *timeout { return withTimeout(parent, time.Hour) }, nil},
		"passed":    {func() *timeout { return withTimeout(parent, -time.Second) }, context.DeadlineExceeded},
		"cancelled": {func() *timeout { c := withTimeout(parent, time.Hour); c.cancel(); return c }, context.Canceled},
		"parent's deadline": {func() *timeout {
			earlier, cancel := context.WithDeadline(parent, time.Now().Add(-time.Second))
			t.Cleanup(cancel)
			return withTimeout(earlier, time.Hour)
		}, context.DeadlineExceeded},
	} {
		for _, asked := range []bool{false, true} { // whether the timer was started
			ctx := c.make()
			if asked {
				ctx.Done()
			}
			if err := ctx.Err(); !errors.Is(err, c.want) {
				t.Errorf("%s, timer %t: %v", name, asked, err)
			}
			if ctx.Value(nameKey{}) != "ada" {
				t.Errorf("%s, timer %t: the parent's value is lost", name, asked)
			}
			ctx.cancel()
		}
	}
	child, cancel := context.WithCancel(withTimeout(parent, time.Hour))
	defer cancel()
	end()
	<-child.Done() // a derived context ends with the parent of the timeout
}

func TestATimeoutWakesWhoWaits(t *testing.T) {
	t.Parallel()
	ctx := withTimeout(t.Context(), time.Millisecond)
	defer ctx.cancel()
	derived, cancel := context.WithCancel(ctx)
	defer cancel()
	<-derived.Done()
	if !errors.Is(context.Cause(derived), context.DeadlineExceeded) {
		t.Errorf("it ended with %v", context.Cause(derived))
	}
	if deadline, ok := ctx.Deadline(); !ok || deadline.After(time.Now()) {
		t.Errorf("the deadline is %v, %t", deadline, ok)
	}
}

func TestATimeoutThatWasCancelledBeforeAnybodyWaited(t *testing.T) {
	t.Parallel()
	ctx := withTimeout(t.Context(), time.Hour)
	ctx.cancel()
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("it ended with %v", ctx.Err())
	}
}
