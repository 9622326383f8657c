package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/headrace/headrace/internal/eventstore"
)

// happened is an event of about 300 bytes of JSON.
type happened struct {
	ID      string `json:"id"`
	Text    string `json:"text"`
	Count   int    `json:"count"`
	Comment string `json:"comment"`
}

func (happened) EventType() string { return "bench.happened" }

var (
	benchEvent = happened{
		ID:      "0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c10",
		Text:    strings.Repeat("water over the wheel ", 6),
		Count:   42,
		Comment: strings.Repeat("grain to flour ", 6),
	}
	// benchMeta comes to about 150 bytes of JSON.
	benchMeta = eventstore.Metadata{
		Actor:         "user-0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c11",
		CorrelationID: "0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12",
		CausationID:   "0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c13",
	}
	benchData     = mustJSON(benchEvent)
	benchMetadata = mustJSON(benchMeta)
)

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// streamLength is how many appends a caller makes to one stream before it begins the next.
const streamLength = 10

// append measures Store.Append: callers with streams of their own, each append with its exact expected version, and with
// a command id of its own or none.
func (b *bench) append(callers, events int, idempotent bool) func(context.Context) (sample, error) {
	payloads := make([]eventstore.Payload, events)
	for i := range payloads {
		payloads[i] = benchEvent
	}
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		store, err := b.open(ctx, db)
		if err != nil {
			return sample{}, err
		}
		defer store.Close(ctx)
		streams := make([]string, callers)
		return run(ctx, callers, events, b.config.Duration, func(ctx context.Context, w, n int) error {
			if n%streamLength == 0 {
				streams[w] = eventstore.StreamID("bench")
			}
			var id eventstore.CommandID
			if idempotent {
				id = eventstore.CommandID{Actor: "bench", ID: fmt.Sprintf("%d-%d", w, n)}
			}
			_, err := store.Append(ctx, eventstore.Request{
				CommandID: id,
				Stream:    streams[w],
				Expected:  eventstore.Exact(int64(n % streamLength * events)),
				Events:    payloads,
				Metadata:  benchMeta,
			})
			return err
		})
	}
}

func (b *bench) open(ctx context.Context, db *database) (*eventstore.Store, error) {
	registry, err := eventstore.NewRegistry(benchDefinitions()...)
	if err != nil {
		return nil, fmt.Errorf("building the registry: %w", err)
	}
	store, err := eventstore.Open(ctx, db.pool, registry, eventstore.Config{})
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return store, nil
}
