package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// Metadata of a message that carries a public event, beside MetaKey, which is its stream. The message's UUID is the
// public event's id, by which receivers dedupe.
const (
	MetaType        = "type"         // of the public event: a name with its version
	MetaPosition    = "position"     // in the log
	MetaContentType = "content-type" // event.ApplicationCloudEventsJSON: the payload is the whole envelope
)

// Fact is what a mapping is told of an event beside its payload. What was stored, and who did it, is not part of it.
type Fact struct {
	Stream     string
	Version    int64
	Position   int64
	RecordedAt time.Time
}

// Mapping makes the events of one type public. Make it with Public.
type Mapping struct {
	name      string
	eventType string
	public    reflect.Type
	apply     func(Fact, eventstore.Payload) (data any, published bool, err error)
}

// Public says that events of payload P are published under name, as what f makes of them; those for which f returns false
// stay private. Without a mapping every event is private.
//
// The name ends in its version, as in "shop.order.placed.v1", and together they are for ever: of a version, Q may get more
// fields and lose none. Another shape is another version, published beside the old one by a mapping of its own until
// nobody reads that any more.
//
// f is pure: the same event comes to it again when a relay repeats itself. Q is a struct of plain values, of times, and of
// structs that stand in its own package, so that no field of an event becomes public because somebody added it there.
func Public[P eventstore.Payload, Q any](name string, f func(Fact, P) (Q, bool)) Mapping {
	var zero P
	return Mapping{
		name:      name,
		eventType: zero.EventType(),
		public:    reflect.TypeFor[Q](),
		apply: func(fact Fact, payload eventstore.Payload) (any, bool, error) {
			p, ok := payload.(P)
			if !ok {
				return nil, false, fmt.Errorf("it decodes to %T", payload)
			}
			data, published := f(fact, p)
			return data, published, nil
		},
	}
}

// Name is the public type: "shop.order.placed.v1".
func (m Mapping) Name() string { return m.name }

// EventType is the name under which the private event is stored.
func (m Mapping) EventType() string { return m.eventType }

// Type is the Go type of the public data.
func (m Mapping) Type() reflect.Type { return m.public }

// ContractConfig configures a Contract. Both fields are needed.
type ContractConfig struct {
	// Source names this program to those who read: an absolute URI. Together with its id it is what an event is known by,
	// so it must not change.
	Source string
	// Schemas is what the address of each schema begins with; the public type and ".json" follow.
	Schemas string
}

// Contract is what a program tells others: its public events, each made by a Mapping and put into the envelope of
// CloudEvents 1.0. Nothing else of an event goes out, and no event without a mapping. It does not change and is safe for
// concurrent use.
type Contract struct {
	cfg      ContractConfig
	registry *eventstore.Registry
	mappings map[string][]published // by the type of the private event
	types    []string
}

type published struct {
	Mapping
	version int
	schema  string
}

var publicName = regexp.MustCompile(`^[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+\.v([1-9][0-9]{0,3})$`)

// NewContract makes a contract of the mappings. It fails for a name that has not the form of one or comes twice, for an
// event type that the registry does not know, for two mappings of one event type with the same version, for public types
// that are not plain, and for a source that is not an absolute URI.
func NewContract(registry *eventstore.Registry, cfg ContractConfig, mappings ...Mapping) (*Contract, error) {
	for _, address := range []string{cfg.Source, cfg.Schemas} {
		if u, err := url.Parse(address); err != nil || u.Scheme == "" {
			return nil, fmt.Errorf("a contract's source and schemas need absolute URIs, %q is none", address)
		}
	}
	c := &Contract{cfg: cfg, registry: registry, mappings: make(map[string][]published)}
	names := make(map[string]bool)
	for _, m := range mappings {
		if err := c.add(m, names); err != nil {
			return nil, fmt.Errorf("public type %q: %w", m.name, err)
		}
	}
	slices.Sort(c.types)
	return c, nil
}

func (c *Contract) add(m Mapping, names map[string]bool) error {
	parts := publicName.FindStringSubmatch(m.name)
	if parts == nil {
		return errors.New("give lower-case words with dots between, and a version at the end, as in shop.order.placed.v1")
	}
	version, err := strconv.Atoi(parts[1])
	if err != nil {
		return err
	}
	if names[m.name] {
		return errors.New("it is published by two mappings")
	}
	names[m.name] = true
	if c.registry.SchemaVersion(m.eventType) == 0 {
		return fmt.Errorf("event type %q is not registered", m.eventType)
	}
	if m.public.Kind() != reflect.Struct {
		return fmt.Errorf("%v is not a struct", m.public)
	}
	if err := plain(m.public, m.public.PkgPath()); err != nil {
		return err
	}
	for _, other := range c.mappings[m.eventType] {
		if other.version == version {
			return fmt.Errorf("event type %q is published as %q with the same version, and both would have the event's id", m.eventType, other.name)
		}
	}
	if len(c.mappings[m.eventType]) == 0 {
		c.types = append(c.types, m.eventType)
	}
	c.mappings[m.eventType] = append(c.mappings[m.eventType], published{m, version, c.cfg.Schemas + m.name + ".json"})
	return nil
}

// plain refuses types through which more could become public than was written down: those of other packages, which grow
// with what they are for, interfaces, and raw JSON.
func plain(t reflect.Type, pkg string) error {
	switch {
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[uuid.UUID]():
		return nil
	case t.PkgPath() != "" && t.PkgPath() != pkg:
		return fmt.Errorf("%v is of another package: write a type of the contract's own", t)
	}
	switch t.Kind() {
	case reflect.Struct:
		for field := range t.Fields() {
			if err := plain(field.Type, pkg); err != nil {
				return fmt.Errorf("%s: %w", field.Name, err)
			}
		}
		return nil
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return plain(t.Elem(), pkg)
	case reflect.Map:
		return errors.Join(plain(t.Key(), pkg), plain(t.Elem(), pkg))
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return fmt.Errorf("%v may hold anything: give a struct or a plain value", t)
	default:
		return nil
	}
}

// Types are the types of the private events of which some are published, in order. All others are private.
func (c *Contract) Types() []string { return slices.Clone(c.types) }

// Messages makes what is published of an event, in the order of the mappings; none when it is private. An event that
// cannot be decoded, and a mapping that panics or makes what cannot be encoded, are a *ContractError.
func (c *Contract) Messages(e eventstore.Event) ([]*message.Message, error) {
	var messages []*message.Message
	for _, p := range c.mappings[e.Type] {
		msg, err := c.message(e, p)
		if err != nil {
			return nil, &ContractError{Type: p.name, EventType: e.Type, EventID: e.ID, Position: e.Position, Err: err}
		}
		if msg != nil {
			messages = append(messages, msg)
		}
	}
	return messages, nil
}

// message returns nil for an event that the mapping keeps private.
func (c *Contract) message(e eventstore.Event, p published) (msg *message.Message, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicked{value: r, stack: debug.Stack()}
		}
	}()
	payload, err := c.registry.Decode(e)
	if err != nil {
		return nil, err
	}
	fact := Fact{Stream: e.Stream, Version: e.Version, Position: e.Position, RecordedAt: e.RecordedAt}
	data, public, err := p.apply(fact, payload)
	if err != nil || !public {
		return nil, err
	}
	envelope, err := c.envelope(e, p, data)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(envelope)
	if err != nil {
		return nil, fmt.Errorf("encoding the envelope: %w", err)
	}
	msg = message.NewMessage(envelope.ID(), body)
	msg.Metadata.Set(MetaKey, e.Stream)
	msg.Metadata.Set(MetaType, p.name)
	msg.Metadata.Set(MetaPosition, strconv.FormatInt(e.Position, 10))
	msg.Metadata.Set(MetaContentType, event.ApplicationCloudEventsJSON)
	return msg, nil
}

// envelope is made of what this function names; no other part of the event gets there.
func (c *Contract) envelope(e eventstore.Event, p published, data any) (event.Event, error) {
	envelope := event.New(event.CloudEventsVersionV1)
	envelope.SetID(publicID(e.ID, p.version))
	envelope.SetSource(c.cfg.Source)
	envelope.SetType(p.name)
	envelope.SetSubject(e.Stream)
	envelope.SetTime(e.RecordedAt.UTC())
	envelope.SetDataSchema(p.schema)
	// As strings: an integer of CloudEvents has 32 bits.
	envelope.SetExtension("position", strconv.FormatInt(e.Position, 10))
	envelope.SetExtension("streamversion", strconv.FormatInt(e.Version, 10))
	// A fact is public also where the note on what it belonged to cannot be read.
	if metadata, err := e.ParseMetadata(); err == nil {
		for name, value := range map[string]string{
			"correlationid": metadata.CorrelationID, "causationid": metadata.CausationID,
			"traceparent": metadata.Trace.Parent, "tracestate": metadata.Trace.State,
		} {
			if value != "" {
				envelope.SetExtension(name, value)
			}
		}
	}
	if err := envelope.SetData(event.ApplicationJSON, data); err != nil {
		return envelope, fmt.Errorf("encoding the data: %w", err)
	}
	return envelope, envelope.Validate()
}

// publicID is the event's for version 1; the later versions of the same event, which may go out beside it, have ids of
// their own.
func publicID(id uuid.UUID, version int) string {
	if version == 1 {
		return id.String()
	}
	return fmt.Sprintf("%v.v%d", id, version)
}

// ContractError says which event could not be published as what. The relay of the contract halts before it.
type ContractError struct {
	Type      string // the public one
	EventType string // the private one
	EventID   uuid.UUID
	Position  int64
	Err       error
}

func (e *ContractError) Error() string {
	return fmt.Sprintf("publishing %s at position %d (event %v) as %s: %v", e.EventType, e.Position, e.EventID, e.Type, e.Err)
}

func (e *ContractError) Unwrap() error { return e.Err }

// stack is where the mapping panicked, or empty.
func (e *ContractError) stack() string {
	if p := (*panicked)(nil); errors.As(e.Err, &p) {
		return string(p.stack)
	}
	return ""
}

// panicked is a panic of a mapping, which halts one relay and not the program.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("the mapping panicked: %v", p.value) }
