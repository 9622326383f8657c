package eventstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// What is expected here was filled into tables by every version so far, so it must never change.
func TestShardsStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	counts := []int{2, 3, 4, 16, 256}
	for stream, want := range map[string][]int{
		"":       {0, 2, 2, 2, 66},
		"cart-1": {0, 0, 0, 8, 184},
		"cart-0193e1a2-7a3b-7c4d-8e5f-0123456789ab":  {1, 1, 3, 11, 251},
		"order-0193e1a2-7a3b-7c4d-8e5f-0123456789ab": {0, 0, 2, 14, 14},
		"käse-ü":  {1, 1, 1, 9, 89},
		"user-42": {1, 0, 3, 3, 163},
	} {
		for i, shards := range counts {
			if got := eventstore.Shard(stream, shards); got != want[i] {
				t.Errorf("Shard(%q, %d) is %d and was %d", stream, shards, got, want[i])
			}
		}
		if eventstore.Shard(stream, 0) != 0 || eventstore.Shard(stream, 1) != 0 {
			t.Errorf("%q is not in the only shard", stream)
		}
	}
}

func TestShardsAreEven(t *testing.T) {
	t.Parallel()
	const shards, streams = 7, 70_000
	var held [shards]int
	for range streams {
		held[eventstore.Shard(eventstore.StreamID("cart"), shards)]++
	}
	for shard, n := range held {
		if n < 9_500 || n > 10_500 { // five standard deviations
			t.Errorf("shard %d holds %d of %d streams", shard, n, streams)
		}
	}
}

// Go and Postgres put every stream into the same shard, the shards' reads together are the whole log, and a shard's read
// tells how far it looked even when it found nothing.
func TestReadsOfShardsAreTheLog(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	random := rand.New(rand.NewPCG(1, 2))
	letters := []rune("abcXYZ019-_.:/\\' %äßпр語🙂")
	const streams = 300
	var last int64
	for i := range streams {
		name := []rune(fmt.Sprintf("n%d-", i))
		for range random.IntN(30) {
			name = append(name, letters[random.IntN(len(letters))])
		}
		receipt, err := store.Append(t.Context(), eventstore.Request{Stream: string(name), Events: notes("a")})
		if err != nil {
			t.Fatal(err)
		}
		last = receipt.Position()
	}
	for _, shards := range []int{2, 5, 256} {
		var positions []int64
		for shard := range shards {
			q := eventstore.LogQuery{Shard: shard, Shards: shards, Limit: 7, Window: 50}
			if shards == 5 {
				q.Types = []string{"note.taken"}
			}
			for q.After < last {
				page, err := store.ReadLog(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if page.ScannedTo <= q.After {
					t.Fatalf("no progress after %d", q.After)
				}
				for _, e := range page.Events {
					if got := eventstore.Shard(e.Stream, shards); got != shard {
						t.Fatalf("%q is in shard %d of %d in Go, and in %d in Postgres", e.Stream, got, shards, shard)
					}
					positions = append(positions, e.Position)
				}
				q.After = page.ScannedTo
			}
		}
		slices.Sort(positions)
		if len(positions) != streams || slices.Compact(positions)[0] != 1 || len(slices.Compact(positions)) != streams {
			t.Fatalf("%d shards together read %d events of %d", shards, len(positions), streams)
		}
	}
}
