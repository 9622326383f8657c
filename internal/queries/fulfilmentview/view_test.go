package fulfilmentview_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
)

func event(t require.TestingT, registry *eventstore.Registry, position, version int64, stream string, p eventstore.Payload) eventstore.Event {
	typ, schema, data, err := registry.Encode(p)
	require.NoError(t, err)
	return eventstore.Event{
		Position: position, Version: version, Stream: stream, Type: typ, SchemaVersion: schema, Data: data, ID: uuid.New(),
		RecordedAt: time.UnixMicro(1_700_000_000_000_000 + position/4).UTC(), Metadata: json.RawMessage(`{}`),
	}
}

func registry(t *testing.T) *eventstore.Registry {
	r, err := eventstore.NewRegistry(fulfilment.Events()...)
	require.NoError(t, err)
	return r
}

var eur = money.Money{Amount: 100, Currency: "EUR"}

// The table equals the fold of each stream, whatever the batches and whatever the order of events.
func TestViewEqualsReplay(t *testing.T) {
	t.Parallel()
	pool, r, view := pgtest.Pool(t), registry(t), fulfilmentview.View()
	p, err := view.Projection(r)
	require.NoError(t, err)
	reader := fulfilmentview.NewReader(queries.NewReads(pool))
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(t.Context(), "truncate fulfilment_v1")
		require.NoError(rt, err)
		var events []eventstore.Event
		byStream := map[string][]eventstore.Event{}
		for i := range rapid.IntRange(2, 25).Draw(rt, "events") {
			stream := fmt.Sprint("fulfilment-", i%2)
			var payload eventstore.Payload = fulfilment.Started{OwnerID: "ada", Total: eur}
			if i > 1 {
				stream = fmt.Sprint("fulfilment-", rapid.IntRange(0, 1).Draw(rt, "process"))
				payload = rapid.SampledFrom([]eventstore.Payload{
					fulfilment.PaymentRequested{Total: eur, Milliseconds: 1000},
					fulfilment.PaymentCaptured{Reference: "p"},
					fulfilment.PaymentRefused{Reason: "no"},
					fulfilment.PaymentTimedOut{},
					fulfilment.ShipmentRequested{Milliseconds: 5000},
					fulfilment.Shipped{TrackingCode: "t"},
					fulfilment.ShipmentFailed{Reason: "s"},
					fulfilment.RefundRequested{Reference: "p", Amount: eur, Reason: "r"},
					fulfilment.RefundRequested{Reference: "other", Amount: eur, Reason: "late"},
					fulfilment.Refunded{Reference: "p"},
					fulfilment.Completed{},
					fulfilment.Cancelled{Reason: "c"},
				}).Draw(rt, "event")
			}
			events = append(events, event(rt, r, int64(i+1), int64(len(byStream[stream])+1), stream, payload))
			byStream[stream] = append(byStream[stream], events[i])
		}
		size := rapid.IntRange(1, 25).Draw(rt, "batch")
		for rest := events; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			require.NoError(rt, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				return p.Apply(t.Context(), tx, rest[:min(size, len(rest))])
			}))
		}
		for stream, own := range byStream {
			want, exists, err := view.Fold(r, fulfilmentview.Fulfilment{}, false, own...)
			require.NoError(rt, err)
			require.True(rt, exists)
			got, err := reader.Get(t.Context(), stream)
			require.NoError(rt, err)
			plain(t, &want)
			plain(t, got)
			require.Equal(rt, want, *got)
		}
	})
}

// plain has all times in one zone.
func plain(t *testing.T, f *fulfilmentview.Fulfilment) {
	t.Helper()
	f.StartedAt, f.UpdatedAt = f.StartedAt.UTC(), f.UpdatedAt.UTC()
	for _, at := range []**time.Time{&f.PayBy, &f.ShipBy} {
		if *at != nil {
			utc := (**at).UTC()
			*at = &utc
		}
	}
	for i := range f.Steps {
		f.Steps[i].At = f.Steps[i].At.UTC()
	}
}
