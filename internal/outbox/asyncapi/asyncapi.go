// Package asyncapi describes a contract to those who read it: a JSON Schema (2020-12) for each public type, and an AsyncAPI
// 3.0 document of them all. Both come from the Go types alone, so that they say what is published, and are the same for the
// same types.
//
// It also tells what in a contract breaks the readers of a released one; see Breaks. It serves generators and tests: no
// server needs it.
package asyncapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v3"

	"github.com/headrace/headrace/internal/outbox"
)

// Document is the name of the AsyncAPI file, and SchemaFolder that of the folder with the schemas beside it.
const (
	Document     = "asyncapi.yaml"
	SchemaFolder = "schemas"
)

// Config says what the document cannot know from the types. All fields are needed but Description.
type Config struct {
	Title, Version, Description string
	// Schemas is what each schema's address begins with, as in outbox.ContractConfig.
	Schemas string
	// Source is the folder of the public types below the root of the module, which must be the working directory: their
	// comments become descriptions.
	Source string
}

// Generate returns the files of the contract's folder by their names: the document, and a schema for each public type.
func Generate(cfg Config, mappings []outbox.Mapping) (map[string][]byte, error) {
	files := make(map[string][]byte, len(mappings)+1)
	messages := make(map[string]any, len(mappings))
	for _, m := range mappings {
		schema, err := schemaOf(cfg, m)
		if err != nil {
			return nil, fmt.Errorf("the schema of %s: %w", m.Name(), err)
		}
		file := path.Join(SchemaFolder, m.Name()+".json")
		if files[file], err = encode(schema); err != nil {
			return nil, fmt.Errorf("the schema of %s: %w", m.Name(), err)
		}
		messages[m.Name()] = messageOf(m.Name(), string(schema.ID), schema.Description, "./"+file)
	}
	document, err := documentOf(cfg, messages)
	if err != nil {
		return nil, fmt.Errorf("the AsyncAPI document: %w", err)
	}
	files[Document] = document
	return files, nil
}

func schemaOf(cfg Config, m outbox.Mapping) (*jsonschema.Schema, error) {
	// Readers have to tolerate fields that they do not know, or no field could ever be added.
	r := jsonschema.Reflector{AllowAdditionalProperties: true, ExpandedStruct: true, Anonymous: true}
	module := strings.TrimSuffix(m.Type().PkgPath(), "/"+cfg.Source)
	// The library wants a path relative to the working directory, and makes package names of it.
	if err := r.AddGoComments(module, "./"+cfg.Source, jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("reading the comments of %s: %w", cfg.Source, err)
	}
	for name, comment := range r.CommentMap {
		r.CommentMap[name] = strings.Join(strings.Fields(comment), " ")
	}
	schema := r.ReflectFromType(m.Type())
	schema.ID = jsonschema.ID(cfg.Schemas + m.Name() + ".json")
	schema.Title = m.Name()
	return schema, nil
}

func encode(schema *jsonschema.Schema) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(schema)
	return out.Bytes(), err
}

// object is a part of the document; its keys are written in order.
type object = map[string]any

func reference(to string) object { return object{"$ref": to} }

// messageOf describes a message: the envelope with its data.
func messageOf(name, id, summary, file string) object {
	return object{
		"name": name, "title": name, "summary": summary, "contentType": "application/cloudevents+json",
		"headers": reference("#/components/schemas/headers"),
		"payload": object{"allOf": []object{
			reference("#/components/schemas/envelope"),
			{
				"type": "object", "required": []string{"data"},
				"properties": object{"type": object{"const": name}, "dataschema": object{"const": id}, "data": reference(file)},
			},
		}},
		"bindings": object{"kafka": object{"key": object{"type": "string", "description": "The subject."}}},
	}
}

func documentOf(cfg Config, messages map[string]any) ([]byte, error) {
	names := slices.SortedFunc(maps.Keys(messages), cmp.Compare)
	inChannel := make(object, len(names))
	for _, name := range names {
		inChannel[name] = reference("#/components/messages/" + name)
	}
	var out bytes.Buffer
	out.WriteString("# Made by `make generate` from the public types.\n")
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	err := e.Encode(struct {
		AsyncAPI   string `yaml:"asyncapi"`
		Info       any
		Channels   any
		Operations any
		Components any
	}{
		AsyncAPI: "3.0.0",
		Info: struct{ Title, Version, Description string }{
			cfg.Title, cfg.Version, cfg.Description,
		},
		Channels: object{"public": object{
			"address":     "{topic}",
			"title":       "Public events",
			"description": channelDescription,
			"parameters":  object{"topic": object{"description": "As the server's PUBLIC_TOPIC says: a topic of Kafka, a subject of NATS."}},
			"messages":    inChannel,
		}},
		Operations: object{"publish": object{
			"action": "send", "channel": reference("#/channels/public"), "summary": "Tells what has happened.",
		}},
		Components: object{"messages": messages, "schemas": object{"envelope": envelope(), "headers": headers()}},
	})
	return out.Bytes(), err
}

const channelDescription = `Each message is one event, as CloudEvents 1.0 in JSON, and comes at least once. Events of one
subject come in order. Who has seen an id before drops it. Positions grow along a subject and have gaps, since not every
event is public.`

func text(description string, more ...object) object {
	t := object{"type": "string", "description": description}
	for _, m := range more {
		maps.Copy(t, m)
	}
	return t
}

// envelope describes what outbox.Contract puts around the data of every event.
func envelope() object {
	digits := object{"pattern": "^[1-9][0-9]*$"}
	return object{
		"type": "object", "title": "CloudEvents 1.0",
		"required": []string{
			"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "position", "streamversion",
		},
		"properties": object{
			"specversion":     object{"const": "1.0"},
			"id":              text("The same each time this event comes, and no other's.", object{"minLength": 1}),
			"source":          text("Which program this is of. Ids are unique within it.", object{"format": "uri"}),
			"type":            text("What happened, and the version of the data's shape.", object{"minLength": 1}),
			"subject":         text("What it happened to. Events of one subject come in order.", object{"minLength": 1}),
			"time":            text("When it was recorded.", object{"format": "date-time"}),
			"datacontenttype": object{"const": "application/json"},
			"dataschema":      text("The JSON Schema of the data.", object{"format": "uri"}),
			"position":        text("Place in the log that the event is from: grows along a subject, with gaps.", digits),
			"streamversion":   text("Place among all events of its subject, private ones too: grows, with gaps.", digits),
			"traceparent":     text("Trace context of the request that led here, if it had one."),
			"tracestate":      text("Goes with traceparent."),
			"correlationid":   text("The request or process that this belongs to."),
			"causationid":     text("Id of the event or message that led to this one; it need not be public."),
			"data":            object{"type": "object"},
		},
	}
}

// headers describes what stands beside the payload.
func headers() object {
	return object{
		"type": "object", "required": []string{outbox.MetaContentType, outbox.MetaKey, outbox.MetaType, outbox.MetaPosition},
		"properties": object{
			outbox.MetaContentType: object{"const": "application/cloudevents+json"},
			outbox.MetaKey:         text("The subject."),
			outbox.MetaType:        text("The type."),
			outbox.MetaPosition:    text("The position."),
		},
	}
}
