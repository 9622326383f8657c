package outbox_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// reactor notes the events that it is given.
type reactor struct {
	mu   sync.Mutex
	seen []eventstore.Event
}

func (r *reactor) react(_ context.Context, e eventstore.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, e)
	return nil
}

func (r *reactor) positions() (all []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.seen {
		all = append(all, e.Position)
	}
	return all
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestReactorsBeginWhereTheyAreTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(10, 1) // 3, 6 and 9 are noise
	wants := map[outbox.From][]int64{
		"":                   {1, 2, 4, 5, 7, 8, 10, 11, 12},
		outbox.FromBeginning: {1, 2, 4, 5, 7, 8, 10, 11, 12},
		outbox.FromAfter(4):  {5, 7, 8, 10, 11, 12},
		outbox.FromAfter(0):  {1, 2, 4, 5, 7, 8, 10, 11, 12},
		outbox.FromNow:       {11, 12},
		"after 10":           {11, 12},
	}
	reactors := map[outbox.From]*reactor{}
	cfg := outbox.ConsumerConfig{TTL: never, Logger: quiet(), Standby: 5 * time.Millisecond} // who loses its lease reacts again
	for from := range wants {
		r := &reactor{}
		reactors[from] = r
		sub := outbox.Subscription{Name: "policy " + string(from), Types: []string{"test.added"}, React: r.react, From: from}
		c := outbox.NewConsumer(b.pool, b.store, nil, sub, cfg)
		if err := c.Prepare(b.ctx); err != nil { // so that what is appended below comes after now
			t.Fatal(err)
		}
		b.run(c.Run)
	}
	early := outbox.Subscription{Name: "early", React: (&reactor{}).react, From: outbox.FromAfter(100)}
	if err := outbox.NewConsumer(b.pool, b.store, nil, early, cfg).Prepare(b.ctx); err == nil {
		t.Error("it begins where the log is not yet")
	}
	b.add(2, 1)
	for from, want := range wants {
		until(b.ctx, t, "the last event, from "+string(from), func() bool { return len(reactors[from].positions()) >= len(want) })
		if got := reactors[from].positions(); !slices.Equal(got, want) {
			t.Errorf("from %q: reacted to %v, want %v", from, got, want)
		}
	}
}

func TestAReactorGoesOnFromItsCheckpointWhateverFromSays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(4, 1)
	r := &reactor{}
	_, at := sums("")
	sub := outbox.Subscription{
		Name: "policy", Types: []string{"test.added"}, React: r.react, From: outbox.FromAfter(2), Committed: at.advance,
	}
	cfg := outbox.ConsumerConfig{TTL: never, Logger: quiet(), Standby: 5 * time.Millisecond, Owner: "one"}
	stop := b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
	at.reach(b.ctx, t, 4) // or the last event would come again
	stop()
	var log logged
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	for _, from := range []outbox.From{outbox.FromAfter(2), outbox.FromBeginning} {
		if strings.Contains(log.String(), "goes on from where it is") {
			t.Errorf("it complains of what is the same:\n%s", &log)
		}
		sub.From = from
		b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)()
	}
	b.add(1, 1)
	stop = b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
	until(b.ctx, t, "the new event", func() bool { return slices.Equal(r.positions(), []int64{4, 5}) })
	if !strings.Contains(log.String(), `asked=beginning begun="after 2"`) {
		t.Errorf("the log says\n%s", &log)
	}
	at.reach(b.ctx, t, 5) // as above
	stop()
	// A position that the log has not reached any more, as after a restore, is nobody's business either.
	sub.From = outbox.FromAfter(1000)
	b.add(2, 1)
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, cfg).Run)
	until(b.ctx, t, "the newest event", func() bool { return slices.Equal(r.positions(), []int64{4, 5, 6, 7}) })
}

// Events of several types come in the order of the log, and so of each stream, one after the other.
func TestAReactorSeesSeveralTypesInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(50, 3)
	r := &reactor{}
	sub := outbox.Subscription{Name: "policy", Types: []string{"test.added", "test.noise"}, React: r.react}
	b.run(outbox.NewConsumer(b.pool, b.store, nil, sub, outbox.ConsumerConfig{TTL: never, Logger: quiet()}).Run)
	until(b.ctx, t, "all events", func() bool { return len(r.positions()) == 50 })
	if got := r.positions(); !slices.IsSorted(got) {
		t.Fatalf("got %v", got)
	}
	versions := map[string]int64{}
	for _, e := range r.seen {
		if versions[e.Stream]++; e.Version != versions[e.Stream] {
			t.Fatalf("version %d of %s comes as number %d", e.Version, e.Stream, versions[e.Stream])
		}
	}
}

func TestFromThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	for _, from := range []outbox.From{"yesterday", "after", "after -1", "after x"} {
		sub := outbox.Subscription{Name: "x", React: (&reactor{}).react, From: from}
		if err := outbox.NewConsumer(nil, nil, nil, sub, outbox.ConsumerConfig{}).Run(deadline(t)); err == nil {
			t.Errorf("%q was accepted", from)
		}
	}
}
