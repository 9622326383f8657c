package commands_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// BenchmarkHandle carries out commands from 64 goroutines, each on a stream of its own that has 20 to 40 events. A new
// stream for every 20 commands is part of the time.
func BenchmarkHandle(b *testing.B) {
	for name, cfg := range map[string]commands.Config{"hot": {}, "cold": {CacheSize: -1}} {
		b.Run(name, func(b *testing.B) {
			h, store := open(b, pgtest.Pool(b), cfg)
			events := make([]eventstore.Payload, 20)
			for i := range events {
				events[i] = deposited{Amount: 1}
			}
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var stream string
				for i := 0; pb.Next(); i++ {
					if i%20 == 0 {
						stream = newAccount()
						request := eventstore.Request{Stream: stream, Events: events}
						if _, err := store.Append(context.Background(), request); err != nil {
							b.Error(err)
						}
					}
					if _, err := h.Handle(context.Background(), stream, deposit{Amount: 1}, commands.Call{}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkOneStream carries out commands of 16 goroutines on one stream: in one process, where they queue, and as if
// each were a process of its own, where they meet at the log.
func BenchmarkOneStream(b *testing.B) {
	for name, processes := range map[string]int{"queued": 1, "colliding": 16} {
		b.Run(name, func(b *testing.B) {
			store := openStore(b, pgtest.Pool(b))
			handlers := make([]*handler, processes)
			for i := range handlers {
				handlers[i] = commands.NewHandler(store, account(), commands.Config{Attempts: 1000})
			}
			stream := newAccount()
			var next atomic.Int64
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				h := handlers[int(next.Add(1))%processes]
				for pb.Next() {
					if _, err := h.Handle(context.Background(), stream, deposit{Amount: 1}, commands.Call{}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
