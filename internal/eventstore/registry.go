package eventstore

import (
	"encoding/json"
	"fmt"
)

// Upcaster raises an event's JSON from one schema version to the next.
type Upcaster func(old json.RawMessage) (json.RawMessage, error)

// Definition tells a Registry of one event type. Make it with Define.
type Definition struct {
	name      string
	version   int
	upcasters []Upcaster
	decode    func(data []byte) (Payload, error)
}

// Define describes the event type of P at its present schema version, 1 or more. The upcasters raise older versions step
// by step: the first from 1 to 2, and so on, so there is one less than versions. P is a value struct.
func Define[P Payload](schemaVersion int, upcasters ...Upcaster) Definition {
	var zero P
	return Definition{
		name:      zero.EventType(),
		version:   schemaVersion,
		upcasters: upcasters,
		decode: func(data []byte) (Payload, error) {
			var p P
			err := json.Unmarshal(data, &p)
			return p, err
		},
	}
}

// Registry knows the event types by the names under which they are stored. It does not change once it is made and is
// safe for concurrent use.
type Registry struct {
	byName map[string]Definition
}

// NewRegistry makes a registry. A name that comes twice, and upcasters that do not lead from version 1 to the present
// one, are errors.
func NewRegistry(definitions ...Definition) (*Registry, error) {
	r := &Registry{byName: make(map[string]Definition, len(definitions))}
	for _, d := range definitions {
		if d.name == "" {
			return nil, fmt.Errorf("an event type has no name")
		}
		if _, twice := r.byName[d.name]; twice {
			return nil, fmt.Errorf("event type %q is defined twice", d.name)
		}
		if d.version < 1 || len(d.upcasters) != d.version-1 {
			return nil, fmt.Errorf("event type %q at schema version %d needs %d upcasters, has %d",
				d.name, d.version, max(d.version-1, 0), len(d.upcasters))
		}
		r.byName[d.name] = d
	}
	return r, nil
}

// SchemaVersion is the present version of an event type, or 0 when it is not registered.
func (r *Registry) SchemaVersion(eventType string) int { return r.byName[eventType].version }

// Encode gives the name, schema version and JSON under which a payload is stored. A type that is not registered is an
// *UnknownEventError.
func (r *Registry) Encode(p Payload) (typ string, schemaVersion int, data []byte, err error) {
	typ = p.EventType()
	d, ok := r.byName[typ]
	if !ok {
		return "", 0, nil, &UnknownEventError{Type: typ}
	}
	data, err = json.Marshal(p)
	if err != nil {
		return "", 0, nil, fmt.Errorf("encoding event %s: %w", typ, err)
	}
	return typ, d.version, data, nil
}

// Decode gives the payload of a stored event as a value struct, raised to the present schema version. An unregistered
// type, or a version newer than the registered one, is an *UnknownEventError.
func (r *Registry) Decode(e Event) (Payload, error) {
	d, ok := r.byName[e.Type]
	if !ok || e.SchemaVersion < 1 || e.SchemaVersion > d.version {
		return nil, &UnknownEventError{Type: e.Type, SchemaVersion: e.SchemaVersion}
	}
	data := e.Data
	for version := e.SchemaVersion; version < d.version; version++ {
		raised, err := d.upcasters[version-1](data)
		if err != nil {
			return nil, fmt.Errorf("raising event %s at position %d from schema version %d: %w", e.Type, e.Position, version, err)
		}
		data = raised
	}
	p, err := d.decode(data)
	if err != nil {
		return nil, fmt.Errorf("decoding event %s at position %d: %w", e.Type, e.Position, err)
	}
	return p, nil
}
