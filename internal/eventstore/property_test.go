package eventstore_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// model is what the log should hold.
type model struct {
	versions map[string]int64
	texts    []string // by position
	claims   map[string]string
	receipts map[string]eventstore.Receipt
}

func meets(expected eventstore.ExpectedVersion, version int64) bool {
	switch expected {
	case eventstore.Any:
		return true
	case eventstore.StreamExists:
		return version > 0
	}
	return int64(expected) == version
}

// verdict judges as the store must: a known command id first, then versions, then claims.
func (m *model) verdict(r eventstore.Request) string {
	if _, known := m.receipts[r.CommandID.ID]; known {
		return "known"
	}
	parts := append([]eventstore.StreamAppend{{Stream: r.Stream, Expected: r.Expected}}, r.Also...)
	for _, part := range parts {
		if !meets(part.Expected, m.versions[part.Stream]) {
			return "conflict"
		}
	}
	both := len(r.Claim) == 1 && len(r.Release) == 1 && r.Claim[0] == r.Release[0]
	for _, key := range r.Claim {
		if owner := m.claims[key]; !both && owner != "" && owner != r.Stream {
			return "taken"
		}
	}
	for _, key := range r.Release {
		if !both && m.claims[key] != r.Stream {
			return "taken"
		}
	}
	return "accepted"
}

func (m *model) apply(r eventstore.Request, receipt eventstore.Receipt) {
	parts := append([]eventstore.StreamAppend{{Stream: r.Stream, Events: r.Events}}, r.Also...)
	for _, part := range parts {
		for _, event := range part.Events {
			m.texts = append(m.texts, part.Stream+" "+event.(noted).Text)
			m.versions[part.Stream]++
		}
	}
	if len(r.Claim) == 1 && len(r.Release) == 1 && r.Claim[0] == r.Release[0] {
		r.Claim, r.Release = nil, nil
	}
	for _, key := range r.Claim {
		m.claims[key] = r.Stream
	}
	for _, key := range r.Release {
		delete(m.claims, key)
	}
	if r.CommandID.ID != "" {
		m.receipts[r.CommandID.ID] = receipt
	}
}

func TestTheLogIsWhatAModelSays(t *testing.T) {
	t.Parallel()
	checkAgainstModel(t, open(t, pgtest.Pool(t), eventstore.Config{}))
}

// checkAgainstModel appends what is drawn, and compares each verdict and the whole log with the model's.
func checkAgainstModel(t *testing.T, store *eventstore.Store) {
	t.Helper()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		head, err := store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := &model{versions: map[string]int64{}, claims: map[string]string{}, receipts: map[string]eventstore.Receipt{}}
		for i := range rapid.IntRange(1, 12).Draw(t, "requests") {
			r := drawRequest(t, round, i)
			wanted := m.verdict(r)
			receipt, err := store.Append(t.Context(), r)
			if got := outcome(receipt, err); got != wanted {
				t.Fatalf("request %+v: got %s (%v), want %s", r, got, err, wanted)
			}
			switch wanted {
			case "accepted":
				m.apply(r, receipt)
				if receipt.Version != m.versions[r.Stream] || receipt.Position() != head.Position+int64(len(m.texts)) {
					t.Fatalf("got %+v for %+v", receipt, r)
				}
			case "known":
				receipt.Duplicate = false
				if receipt != m.receipts[r.CommandID.ID] {
					t.Fatalf("got %+v, want %+v", receipt, m.receipts[r.CommandID.ID])
				}
			}
		}
		var texts []string
		for event, err := range store.Log(t.Context(), eventstore.LogQuery{After: head.Position, Limit: 5}) {
			if err != nil {
				t.Fatal(err)
			}
			payload, err := store.Registry().Decode(event)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, event.Stream+" "+payload.(noted).Text)
		}
		if fmt.Sprint(texts) != fmt.Sprint(m.texts) {
			t.Fatalf("the log holds %v, want %v", texts, m.texts)
		}
	})
}

func drawRequest(t *rapid.T, round, i int) eventstore.Request {
	stream := func(label string) string {
		return fmt.Sprintf("note-%d-%d", round, rapid.IntRange(0, 2).Draw(t, label))
	}
	expected := func(label string) eventstore.ExpectedVersion {
		return eventstore.ExpectedVersion(rapid.SampledFrom([]int64{-2, -2, -1, 0, 0, 1, 2, 3}).Draw(t, label))
	}
	events := func(label string) []eventstore.Payload {
		return notes([]string{fmt.Sprint(i), "é", "c"}[:rapid.IntRange(1, 3).Draw(t, label)]...)
	}
	keys := func(label string) []string {
		if n := rapid.IntRange(0, 4).Draw(t, label); n < 2 {
			return []string{fmt.Sprintf("key-%d-%d", round, n)}
		}
		return nil
	}
	r := eventstore.Request{Stream: stream("stream"), Expected: expected("expected"), Events: events("events")}
	if rapid.Bool().Draw(t, "plain") {
		return r
	}
	r.Claim, r.Release = keys("claim"), keys("release")
	if other := stream("also"); other != r.Stream {
		r.Also = []eventstore.StreamAppend{{Stream: other, Expected: expected("alsoExpected"), Events: events("alsoEvents")}}
	}
	if n := rapid.IntRange(0, 5).Draw(t, "commandID"); n < 3 {
		r.CommandID = eventstore.CommandID{Actor: "ada", ID: fmt.Sprintf("%d-%d", round, n)}
	}
	return r
}

func outcome(receipt eventstore.Receipt, err error) string {
	var conflict *eventstore.ConflictError
	var taken *eventstore.ClaimTakenError
	switch {
	case err == nil && receipt.Duplicate:
		return "known"
	case err == nil:
		return "accepted"
	case errors.As(err, &conflict):
		return "conflict"
	case errors.As(err, &taken):
		return "taken"
	}
	return "failed"
}
