package commands

import (
	"context"
	"reflect"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

type (
	grow  struct{}
	grown struct{}
)

func (grow) CommandType() string { return "plant.grow" }
func (grown) EventType() string  { return "plant.grown" }

// A dry run leaves the states in memory alone: it adds none, changes none, and does not count as a use of one.
func TestADryRunLeavesTheCacheAlone(t *testing.T) {
	t.Parallel()
	registry, err := eventstore.NewRegistry(eventstore.Define[grown](1))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), pgtest.Pool(t), registry, eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	plant := Decider[grow, grown, int]{
		Category: "plant",
		Initial:  func(string) int { return 0 },
		Decide:   func(int, grow) ([]grown, error) { return []grown{{}}, nil },
		Evolve:   func(height int, _ grown) int { return height + 1 },
	}
	h, other := NewHandler(store, plant, Config{}), NewHandler(store, plant, Config{})
	for _, stream := range []string{"plant-a", "plant-b"} {
		if _, err := h.Handle(t.Context(), stream, grow{}, Call{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Handle(t.Context(), "plant-a", grow{}, Call{}); err != nil { // now what h keeps is old
		t.Fatal(err)
	}
	keys, values := h.cache.lru.Keys(), h.cache.lru.Values()
	for _, stream := range []string{"plant-a", "plant-b", "plant-c"} {
		dry, err := h.DryRun(t.Context(), stream, grow{}, Call{})
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int64{"plant-a": 2, "plant-b": 1}[stream]; dry.Judged != want {
			t.Errorf("%s was judged at version %d, want %d", stream, dry.Judged, want)
		}
	}
	if !reflect.DeepEqual(h.cache.lru.Keys(), keys) || !reflect.DeepEqual(h.cache.lru.Values(), values) {
		t.Errorf("the cache was %v: %+v, and is %v: %+v", keys, values, h.cache.lru.Keys(), h.cache.lru.Values())
	}
}
