package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/contract"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// secret stands in every text of every event that nobody has decided to publish.
const secret = "PRIVATE"

// publicFields are the texts of private events that may go out, by event type and path. Whoever publishes more of an event
// decides that here once more.
var publicFields = map[string][]string{
	"cart.checked_out": {"orderId", "items.sku", "items.name", "items.unitPrice.currency", "total.currency"},
	"order.placed":     {"cartId", "items.sku", "items.name", "items.unitPrice.currency", "total.currency"},
	"order.paid":       {},
	"order.cancelled":  {},
}

// allPayloads are all that can be in the log: what a mapping is made for and what is not.
func allPayloads(t *testing.T, registry *eventstore.Registry) []eventstore.Payload {
	t.Helper()
	var all []eventstore.Payload
	for _, name := range registry.Types() {
		payload, err := registry.Decode(eventstore.Event{Type: name, SchemaVersion: registry.SchemaVersion(name), Data: json.RawMessage(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, payload)
	}
	return all
}

// fill draws a value for each field: markers for texts, unless they are public.
func fill(rt *rapid.T, v reflect.Value, path string, public []string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			fill(rt, v.Field(i), strings.TrimPrefix(path+"."+name, "."), public)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rapid.IntRange(0, 3).Draw(rt, path), 3))
		for i := range v.Len() {
			fill(rt, v.Index(i), path, public)
		}
	case reflect.String:
		switch {
		case !slices.Contains(public, path):
			v.SetString(rapid.SampledFrom([]string{secret, "a " + secret + "@example.org"}).Draw(rt, path))
		case strings.HasSuffix(path, "currency"):
			v.SetString("EUR")
		default:
			v.SetString(rapid.StringMatching(`[a-z]{1,8}-[0-9]{1,4}`).Draw(rt, path))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(rt, path))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64Range(1, 1<<40).Draw(rt, path))
	default:
		rt.Fatalf("%s is a %v: say here what may be in it", path, v.Type())
	}
}

// publicLog takes what is published.
type publicLog struct {
	mu       sync.Mutex
	messages []*message.Message
}

func (*publicLog) Close() error { return nil }

func (p *publicLog) Publish(_ string, messages ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, messages...)
	return nil
}

func (p *publicLog) take() []*message.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.messages
	p.messages = nil
	return taken
}

// Whatever is in the log, what goes out is of a public type, holds no text that is not meant to be public, and is valid by
// its schema, which names each of its fields.
func TestNothingPrivateIsPublished(t *testing.T) {
	t.Parallel()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	pool := pgtest.Pool(t)
	store, err := eventstore.Open(t.Context(), pool, registry, eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	tell, err := newContract(registry, "https://shop.example.org")
	if err != nil {
		t.Fatal(err)
	}
	topic := &publicLog{}
	relay := outbox.NewRelay(store, topic, outbox.RelayConfig{Contract: tell, Topic: "public", Pool: pool, PollMax: 20 * time.Millisecond})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = relay.Run(t.Context())
	}()
	t.Cleanup(func() { <-ended }) // before the log is closed
	payloads, valid := allPayloads(t, registry), schemas(t)
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		var last int64
		random := rapid.SliceOfN(rapid.SampledFrom(payloads), 1, 12).Draw(rt, "events")
		for _, template := range append(slices.Clone(random), order.Paid{}) { // the cursor follows a public one at once
			payload := reflect.New(reflect.TypeOf(template)).Elem()
			fill(rt, payload, "", publicFields[template.EventType()])
			receipt, err := store.Append(t.Context(), eventstore.Request{
				Stream: "thing-" + uuid.NewString(), Events: []eventstore.Payload{payload.Interface().(eventstore.Payload)},
				Metadata: eventstore.Metadata{Actor: secret, Roles: []string{secret}, CommandID: secret, CorrelationID: "request"},
			})
			if err != nil {
				rt.Fatal(err)
			}
			last = receipt.Position()
		}
		until(t, "the relay to have seen all", func() bool {
			var done bool
			err := pool.QueryRow(t.Context(), `select position >= $1 from checkpoints where name = 'relay'`, last).Scan(&done)
			return err == nil && done
		})
		for _, msg := range topic.take() {
			seen[checkPublic(rt, msg, valid)]++
		}
	})
	for _, m := range contract.Mappings() {
		if seen[m.Name()] == 0 {
			t.Errorf("no %s came", m.Name())
		}
	}
}

func checkPublic(rt *rapid.T, msg *message.Message, valid map[string]*jsonschema.Schema) (name string) {
	if whole := fmt.Sprint(msg.UUID, msg.Metadata, string(msg.Payload)); strings.Contains(whole, secret) {
		rt.Fatalf("this is private: %s", whole)
	}
	var e event.Event
	if err := json.Unmarshal(msg.Payload, &e); err != nil {
		rt.Fatal(err)
	}
	schema := valid[e.Type()]
	if schema == nil {
		rt.Fatalf("%s is no public type", e.Type())
	}
	data, err := jsonschema.UnmarshalJSON(strings.NewReader(string(e.Data())))
	if err == nil {
		err = schema.Validate(data)
	}
	if err != nil {
		rt.Fatalf("%s: %v", e.Data(), err)
	}
	return e.Type()
}

// schemas are those of the contract, and refuse fields that they do not name.
func schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	all := make(map[string]*jsonschema.Schema)
	for _, m := range contract.Mappings() {
		text, err := os.ReadFile(filepath.Join("../../contract/schemas", m.Name()+".json"))
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		address := contract.Schemas + m.Name() + ".json"
		if value.(map[string]any)["$id"] != address {
			t.Errorf("the schema of %s has the id %v, and events name %s", m.Name(), value.(map[string]any)["$id"], address)
		}
		shut(value)
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource(address, value); err != nil {
			t.Fatal(err)
		}
		if all[m.Name()], err = compiler.Compile(address); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func shut(part any) {
	object, ok := part.(map[string]any)
	if !ok {
		return
	}
	if object["type"] == "object" {
		object["additionalProperties"] = false
	}
	for _, inner := range object {
		shut(inner)
	}
}

// A new event is private, and so is a new field: this list changes when somebody means it to.
func TestWhatIsPublicIsDecidedByName(t *testing.T) {
	t.Parallel()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	tell, err := newContract(registry, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cart.checked_out", "order.cancelled", "order.paid", "order.placed"}
	if got := tell.Types(); !slices.Equal(got, want) {
		t.Errorf("public are %v, want %v", got, want)
	}
	for _, payload := range allPayloads(t, registry) {
		if slices.Contains(want, payload.EventType()) {
			continue
		}
		e := eventstore.Event{Type: payload.EventType(), SchemaVersion: 1, Stream: "thing-1", Data: json.RawMessage(`{}`), Metadata: json.RawMessage(`{}`)}
		if messages, err := tell.Messages(e); err != nil || len(messages) > 0 {
			t.Errorf("%s: got %v, %v", payload.EventType(), messages, err)
		}
	}
}
