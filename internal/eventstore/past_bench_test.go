package eventstore_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// BenchmarkPositionAt finds random times in logs of different lengths: ten times the log is three or four looks more.
func BenchmarkPositionAt(b *testing.B) {
	for _, length := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			pool := pgtest.Pool(b)
			store := open(b, pool, eventstore.Config{})
			begin := time.Now().Add(-time.Duration(length) * time.Millisecond)
			_, err := pool.Exec(b.Context(), `insert into events
				select n, n, $1::timestamptz + n * interval '1 ms', gen_random_uuid(), 'note-1', 'note.taken', 1, '{"text": "x"}', '{}'
				from generate_series(1, $2::int) n`, begin, length)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				n := 1 + rand.N(length-1)
				got, err := store.PositionAt(b.Context(), begin.Add(time.Duration(n)*time.Millisecond))
				if err != nil || got < int64(n)-1 || got > int64(n) { // the database cuts off what is below a microsecond
					b.Fatal(n, got, err)
				}
			}
		})
	}
}
