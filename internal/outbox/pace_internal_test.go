package outbox

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
)

func TestPaceDoublesUpToItsBound(t *testing.T) {
	t.Parallel()
	p := pace{least: 10 * time.Millisecond, most: 75 * time.Millisecond}
	for range 2 {
		for i, want := range []time.Duration{10, 20, 40, 75, 75, 75} {
			if got := p.step(); got != want*time.Millisecond {
				t.Fatalf("step %d is %v, want %v", i, got, want*time.Millisecond)
			}
		}
		p.reset()
	}
	narrow := pace{least: time.Second, most: time.Millisecond}
	if got := narrow.step(); got != time.Millisecond {
		t.Fatalf("the upper bound is %v, and the step %v", narrow.most, got)
	}
}

// Whoever is refused at the same moment must not come back at the same moment.
func TestWaitsDifferWithinTheirBounds(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		least, most time.Duration
		draw        func() time.Duration
	}{
		"between polls":       {time.Second / 2, 3 * time.Second / 2, func() time.Duration { return jitter(time.Second) }},
		"first attempt":       {3 * time.Second / 4, 5 * time.Second / 4, func() time.Duration { return backOff(1, time.Second, time.Hour) }},
		"fourth attempt":      {6 * time.Second, 10 * time.Second, func() time.Duration { return backOff(4, time.Second, time.Hour) }},
		"at the bound":        {45 * time.Minute, 75 * time.Minute, func() time.Duration { return backOff(13, time.Second, time.Hour) }},
		"far beyond it":       {45 * time.Minute, 75 * time.Minute, func() time.Duration { return backOff(1000, time.Second, time.Hour) }},
		"of next to nothing":  {0, 2, func() time.Duration { return jitter(1) }},
		"of nothing, no less": {0, 0, func() time.Duration { return jitter(0) }},
	} {
		seen := map[time.Duration]bool{}
		for range 1000 {
			wait := one.draw()
			if wait < one.least || wait > one.most {
				t.Fatalf("%s: %v is not between %v and %v", name, wait, one.least, one.most)
			}
			seen[wait] = true
		}
		if len(seen) < 500 && one.most > time.Millisecond {
			t.Errorf("%s: only %d different waits in 1,000", name, len(seen))
		}
	}
}

// refusing counts how often it refuses.
type refusing struct{ times int }

func (*refusing) Close() error { return nil }

func (r *refusing) Publish(string, ...*message.Message) error {
	r.times++
	return errors.New("the broker is away")
}

// A broker that is away is asked ever more seldom, and for ever.
func TestABrokerThatRefusesIsAskedEverMoreSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broker := &refusing{}
		r := NewRelay(nil, broker, RelayConfig{Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // of the bubble's clock
		defer cancel()
		if err := r.insist(ctx, 1, 1, message.NewMessage("1", nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("it gave up: %v", err)
		}
		// 10 attempts up to the bound of 10 s, and then 5 to 15 s between two of them.
		if broker.times < 240 || broker.times > 740 {
			t.Errorf("%d attempts in an hour", broker.times)
		}
	})
}

// idlePump is a pump whose table is as claim and due say; claims counts the looks at it.
func idlePump(claims *int, claim func() []int, due func() (float64, error)) *pump[int] {
	return &pump[int]{
		what: "numbers", workers: 3, pollMin: 25 * time.Millisecond, pollMax: time.Second, log: slog.New(slog.DiscardHandler),
		next: func() <-chan struct{} { return nil },
		claim: func(context.Context, int) ([]int, error) {
			*claims++
			return claim(), nil
		},
		due:    func(context.Context) (float64, error) { return due() },
		work:   func(_ context.Context, n int) int { return n },
		settle: func(context.Context, []int) error { return nil },
	}
}

func nothing() []int { return nil }

// A table is looked at ever more seldom: when it is empty, when what is due later is far away, and when what is due cannot be
// had because somebody else has it locked. Signals without anything to do hurry it by no more than its least pause allows.
func TestAnIdlePumpLooksSeldom(t *testing.T) {
	t.Parallel()
	always := make(chan struct{})
	close(always)
	for name, one := range map[string]struct {
		due  func() (float64, error)
		next <-chan struct{}
		most int // looks in a minute
	}{
		"empty":       {func() (float64, error) { return 0, pgx.ErrNoRows }, nil, 70},
		"due later":   {func() (float64, error) { return 1e12, nil }, nil, 70},
		"locked":      {func() (float64, error) { return -1, nil }, nil, 70},
		"many wakes":  {func() (float64, error) { return 0, pgx.ErrNoRows }, always, 60*40 + 5},
		"wakes, late": {func() (float64, error) { return -1, nil }, always, 60*40 + 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				claims := 0
				p := idlePump(&claims, nothing, one.due)
				p.next = func() <-chan struct{} { return one.next }
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble's clock
				defer cancel()
				p.run(ctx)
				if claims < 60 || claims > one.most {
					t.Errorf("%d looks in a minute", claims)
				}
			})
		})
	}
}

// What is due at a time is had then, however seldom the table is looked at, also when it became due just after the claim.
func TestAPumpIsThereWhenSomethingIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(30*time.Second + 300*time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		claims := 0
		p := idlePump(&claims, func() []int {
			if !time.Now().After(at) { // on the dot is too early for the claim, and not for the look at what is due
				return nil
			}
			if late := time.Since(at); late > 25*time.Millisecond {
				t.Errorf("it was had %v late", late)
			}
			cancel()
			return []int{1}
		}, func() (float64, error) { return time.Until(at).Seconds(), nil })
		p.run(ctx)
	})
}
