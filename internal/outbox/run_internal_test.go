package outbox

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
)

func drawRun(t *rapid.T) Run {
	r := Run{
		LogID: uuid.New(), Prev: uuid.New(),
		Epoch: rapid.Int32Range(0, 1<<30).Draw(t, "epoch"),
		First: rapid.Int64Range(1, 1<<50).Draw(t, "first"),
	}
	at := time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "at"))
	for i := range rapid.IntRange(1, 20).Draw(t, "count") {
		at = at.Add(time.Duration(rapid.IntRange(0, 5_000_000).Draw(t, "step")) * time.Microsecond)
		r.Events = append(r.Events, eventstore.Event{
			Position: r.First + int64(i), Version: rapid.Int64Range(1, 1<<40).Draw(t, "version"),
			RecordedAt: at, ID: uuid.New(),
			Stream:        rapid.StringN(1, 40, 200).Draw(t, "stream"),
			Type:          rapid.SampledFrom([]string{"cart.opened", "cart.item_added", "x"}).Draw(t, "type"),
			SchemaVersion: rapid.IntRange(1, 300).Draw(t, "schema version"),
			Data:          rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"),
			Metadata:      rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "metadata"),
		})
	}
	return r
}

func TestRunSurvivesItsEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawRun(t)
		payload := EncodeRun(want)
		got, err := DecodeRun(payload)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(normal(got), normal(want)) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if h, err := messageHead(runMessage(want)); err != nil || h.last() != want.Last() {
			t.Fatalf("the head says %+v, %v", h, err)
		}

		filtered, last, err := decodeRun(payload, func(eventType string) bool { return eventType == "x" })
		if err != nil {
			t.Fatal(err)
		}
		if last != want.Events[len(want.Events)-1].ID {
			t.Fatalf("the last event is %s", last)
		}
		want.Events = slices.DeleteFunc(want.Events, func(e eventstore.Event) bool { return e.Type != "x" })
		if !reflect.DeepEqual(normal(filtered), normal(want)) {
			t.Fatalf("filtered: got %+v, want %+v", filtered, want)
		}
	})
}

// normal makes empty and nil alike.
func normal(r Run) Run {
	r.Events = append([]eventstore.Event{}, r.Events...)
	for i := range r.Events {
		r.Events[i].Data = append([]byte{}, r.Events[i].Data...)
		r.Events[i].Metadata = append([]byte{}, r.Events[i].Metadata...)
	}
	return r
}

func TestRunDamagedAnywhereIsRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		payload := EncodeRun(drawRun(t))
		damaged := bytes.Clone(payload)
		at := rapid.IntRange(0, len(payload)-1).Draw(t, "at")
		damaged[at] ^= rapid.ByteRange(1, 255).Draw(t, "bits")
		if _, err := DecodeRun(damaged); !errors.Is(err, errRun) {
			t.Fatalf("a payload with another byte at %d gave %v", at, err)
		}
		if _, err := DecodeRun(payload[:at]); !errors.Is(err, errRun) {
			t.Fatalf("the first %d bytes gave %v", at, err)
		}
	})
}

func TestMessageThatContradictsItsPayloadIsRefused(t *testing.T) {
	t.Parallel()
	run := Run{First: 5, Epoch: 1, Events: []eventstore.Event{{Position: 5, Type: "x"}}}
	for _, key := range []string{MetaFirst, MetaLast, MetaLogID, MetaEpoch} {
		msg := runMessage(run)
		msg.Metadata.Set(key, "7")
		if _, err := messageHead(msg); !errors.Is(err, errRun) {
			t.Errorf("with another %s: %v", key, err)
		}
	}
}

func TestCutRunKeepsTheLimits(t *testing.T) {
	t.Parallel()
	var events []eventstore.Event
	for i := range 1200 {
		events = append(events, eventstore.Event{Position: int64(i + 1), Data: make([]byte, 10), Type: "x"})
	}
	events[700].Data = make([]byte, 2*MaxRunBytes)
	events[701].Data = make([]byte, MaxRunBytes/2)
	events[702].Data = make([]byte, MaxRunBytes/2)
	next, runs := int64(1), 0
	for rest := events; len(rest) > 0; runs++ {
		var run []eventstore.Event
		run, rest = cutRun(rest)
		if run[0].Position != next {
			t.Fatalf("a run begins at %d, want %d", run[0].Position, next)
		}
		payload := EncodeRun(Run{First: next, Events: run})
		if len(run) > MaxRunEvents || (len(run) > 1 && len(payload) > MaxRunBytes) {
			t.Fatalf("a run of %d events and %d bytes", len(run), len(payload))
		}
		if _, err := DecodeRun(payload); err != nil {
			t.Fatal(err)
		}
		next += int64(len(run))
	}
	// 500, the 200 up to the large one, three large ones of which the last takes small ones along.
	if next != 1201 || runs != 5 {
		t.Fatalf("%d runs up to position %d", runs, next-1)
	}
}

func FuzzDecodeRun(f *testing.F) {
	f.Add(EncodeRun(Run{First: 1, Events: []eventstore.Event{{Position: 1, Type: "x", Stream: "s-1", Data: []byte("{}")}}}))
	f.Add([]byte{runFormat})
	f.Fuzz(func(t *testing.T, payload []byte) {
		run, err := DecodeRun(payload)
		if err != nil {
			if !errors.Is(err, errRun) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := DecodeRun(EncodeRun(run))
		if err != nil || !reflect.DeepEqual(normal(again), normal(run)) {
			t.Fatalf("what was decoded does not survive encoding: %v", err)
		}
	})
}
