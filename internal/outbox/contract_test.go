package outbox_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// The public side of what was added: an even number, or nothing.
type publicSum struct {
	Half float64 `json:"half"`
}

func publicSums(name string) outbox.Mapping {
	return outbox.Public(name, func(_ outbox.Fact, p added) (publicSum, bool) {
		return publicSum{float64(p.N) / 2}, p.N%2 == 0
	})
}

func testRegistry(t testing.TB) *eventstore.Registry {
	t.Helper()
	registry, err := eventstore.NewRegistry(eventstore.Define[added](1), eventstore.Define[noise](1), eventstore.Define[text](1))
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

var testContract = outbox.ContractConfig{Source: "https://shop.example.org", Schemas: "https://shop.example.org/schemas/"}

func contractOf(t testing.TB, mappings ...outbox.Mapping) *outbox.Contract {
	t.Helper()
	c, err := outbox.NewContract(testRegistry(t), testContract, mappings...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addedEvent(data, metadata string) eventstore.Event {
	return eventstore.Event{
		Position: 1 << 40, Version: 7, RecordedAt: time.Date(2026, 2, 3, 5, 5, 6, 789000, time.FixedZone("", 3600)),
		ID: uuid.MustParse("0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12"), Stream: "sum-1", Type: "test.added", SchemaVersion: 1,
		Data: json.RawMessage(data), Metadata: json.RawMessage(metadata),
	}
}

func read(t testing.TB, msg *message.Message) event.Event {
	t.Helper()
	var e event.Event
	if err := json.Unmarshal(msg.Payload, &e); err != nil {
		t.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAPublicEventIsACloudEvent(t *testing.T) {
	t.Parallel()
	c := contractOf(t, publicSums("test.sum.halved.v1"))
	messages, err := c.Messages(addedEvent(`{"n": 4, "secret": "PRIVATE"}`, `{"actor": "PRIVATE", "roles": ["PRIVATE"], "commandId": "PRIVATE",
		"correlationId": "request", "causationId": "cause", "traceparent": "00-1", "tracestate": "a=1"}`))
	if err != nil || len(messages) != 1 {
		t.Fatalf("got %d messages, %v", len(messages), err)
	}
	msg := messages[0]
	want := `{"specversion":"1.0","id":"0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12","source":"https://shop.example.org","type":"test.sum.halved.v1",
		"subject":"sum-1","time":"2026-02-03T04:05:06.000789Z","datacontenttype":"application/json",
		"dataschema":"https://shop.example.org/schemas/test.sum.halved.v1.json","position":"1099511627776","streamversion":"7",
		"correlationid":"request","causationid":"cause","traceparent":"00-1","tracestate":"a=1","data":{"half":2}}`
	if got := compact(t, msg.Payload); got != compact(t, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, compact(t, []byte(want)))
	}
	if e := read(t, msg); e.ID() != msg.UUID || e.Subject() != "sum-1" {
		t.Errorf("it is read as %v", e)
	}
	metadata := message.Metadata{"key": "sum-1", "type": "test.sum.halved.v1", "position": "1099511627776", "content-type": "application/cloudevents+json"}
	for name, value := range metadata {
		if msg.Metadata[name] != value {
			t.Errorf("metadata %s is %q, want %q", name, msg.Metadata[name], value)
		}
	}
	if len(msg.Metadata) != len(metadata) {
		t.Errorf("there is more metadata: %v", msg.Metadata)
	}
}

// compact writes JSON with its keys in order.
func compact(t testing.TB, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestAnEventIsPrivateUnlessItIsMapped(t *testing.T) {
	t.Parallel()
	c := contractOf(t, publicSums("test.sum.halved.v1"))
	unmapped := addedEvent(`{"text": "x"}`, `{}`)
	unmapped.Type = "test.text"
	for what, e := range map[string]eventstore.Event{"no mapping": unmapped, "a mapping that says no": addedEvent(`{"n": 3}`, `{}`)} {
		if messages, err := c.Messages(e); err != nil || len(messages) != 0 {
			t.Errorf("%s: got %v, %v", what, messages, err)
		}
	}
	if got := c.Types(); !slices.Equal(got, []string{"test.added"}) {
		t.Errorf("the contract wants to see %v", got)
	}
	// What it belonged to is a note, and no reason to keep a fact back.
	if messages, err := c.Messages(addedEvent(`{"n": 2}`, `[]`)); err != nil || len(messages) != 1 {
		t.Errorf("without readable metadata: got %v, %v", messages, err)
	}
}

func TestVersionsOfOneEventHaveIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	old, renewed := publicSums("test.sum.halved.v1"), publicSums("test.sum.halved.v2")
	ids := func(c *outbox.Contract) string {
		messages, err := c.Messages(addedEvent(`{"n": 4}`, `{}`))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, msg := range messages {
			if e := read(t, msg); e.ID() != msg.UUID {
				t.Errorf("message %s carries event %s", msg.UUID, e.ID())
			}
			all = append(all, msg.UUID)
		}
		return strings.Join(all, " ")
	}
	const id = "0193c1de-7b6a-7c3e-9d51-6a0e4f2b8c12"
	if got := ids(contractOf(t, old, renewed)); got != id+" "+id+".v2" {
		t.Errorf("both: got %s", got)
	}
	if got := ids(contractOf(t, renewed)); got != id+".v2" { // the same whether the old one is still there or not
		t.Errorf("the new one alone: got %s", got)
	}
}

type (
	holdsAny     struct{ Any any }
	holdsRaw     struct{ Raw json.RawMessage }
	holdsForeign struct{ Event *eventstore.Event }
	holdsInside  struct {
		Maps []map[string]eventstore.Metadata
	}
	holdsPlain struct {
		At   time.Time
		ID   *uuid.UUID
		More map[string][]publicSum
		Raw  []byte
	}
)

func TestAContractRefusesWhatCouldLeakOrMeanTwoThings(t *testing.T) {
	t.Parallel()
	const name = "test.sum.halved.v1"
	for what, c := range map[string]struct {
		cfg      outbox.ContractConfig
		mappings []outbox.Mapping
		want     string // in the error; empty: none
	}{
		"nothing":              {testContract, nil, ""},
		"plain types":          {testContract, []outbox.Mapping{mapping[added, holdsPlain](name)}, ""},
		"no source":            {outbox.ContractConfig{Schemas: "urn:a:"}, nil, "absolute"},
		"a source in no place": {outbox.ContractConfig{Source: "shop", Schemas: "urn:a:"}, nil, "absolute"},
		"no version":           {testContract, []outbox.Mapping{publicSums("test.sum.halved")}, "version at the end"},
		"version 0":            {testContract, []outbox.Mapping{publicSums("test.sum.halved.v0")}, "version at the end"},
		"no noun":              {testContract, []outbox.Mapping{publicSums("sum.v1")}, "version at the end"},
		"capitals":             {testContract, []outbox.Mapping{publicSums("test.Sum.v1")}, "version at the end"},
		"a name twice":         {testContract, []outbox.Mapping{publicSums(name), mapping[noise, publicSum](name)}, "two mappings"},
		"a version twice":      {testContract, []outbox.Mapping{publicSums(name), publicSums("test.sum.other.v1")}, "same version"},
		"an unknown event":     {testContract, []outbox.Mapping{mapping[unregistered, publicSum](name)}, "not registered"},
		"no struct":            {testContract, []outbox.Mapping{mapping[added, string](name)}, "not a struct"},
		"anything":             {testContract, []outbox.Mapping{mapping[added, holdsAny](name)}, "Any: "},
		"raw JSON":             {testContract, []outbox.Mapping{mapping[added, holdsRaw](name)}, "Raw: "},
		"another's type":       {testContract, []outbox.Mapping{mapping[added, holdsForeign](name)}, "Event: "},
		"one deep inside":      {testContract, []outbox.Mapping{mapping[added, holdsInside](name)}, "Maps: "},
		"the event itself":     {testContract, []outbox.Mapping{mapping[added, eventstore.Event](name)}, "Data: "},
	} {
		_, err := outbox.NewContract(testRegistry(t), c.cfg, c.mappings...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

type unregistered struct{}

func (unregistered) EventType() string { return "test.unregistered" }

func mapping[P eventstore.Payload, Q any](name string) outbox.Mapping {
	return outbox.Public(name, func(outbox.Fact, P) (q Q, ok bool) { return q, true })
}

func TestAnEventThatCannotBePublishedIsNamed(t *testing.T) {
	t.Parallel()
	newer := addedEvent(`{"n": 2}`, `{}`)
	newer.SchemaVersion = 2
	infinite := outbox.Public("test.sum.v1", func(outbox.Fact, added) (publicSum, bool) { return publicSum{math.Inf(1)}, true })
	for what, c := range map[string]struct {
		mapping outbox.Mapping
		event   eventstore.Event
		want    string
	}{
		"a panic":             {panics("test.sum.v1"), addedEvent(`{"n": 2}`, `{}`), "no half"},
		"what JSON has not":   {infinite, addedEvent(`{"n": 2}`, `{}`), "Inf"},
		"a newer version":     {publicSums("test.sum.v1"), newer, "test.added"},
		"data of other shape": {publicSums("test.sum.v1"), addedEvent(`{"n": "two"}`, `{}`), "decoding"},
	} {
		_, err := contractOf(t, c.mapping).Messages(c.event)
		var refused *outbox.ContractError
		if !errors.As(err, &refused) || refused.Position != c.event.Position || refused.EventID != c.event.ID ||
			refused.Type != "test.sum.v1" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// panics is a mapping that fails on 2.
func panics(name string) outbox.Mapping {
	return outbox.Public(name, func(_ outbox.Fact, p added) (publicSum, bool) {
		if p.N == 2 {
			panic("no half")
		}
		return publicSum{float64(p.N) / 2}, true
	})
}
