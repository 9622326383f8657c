package asyncapi

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/headrace/headrace/internal/outbox"
)

type grew struct{}

func (grew) EventType() string { return "tree.grew" }

// Grown says that
// a tree grew.
type Grown struct {
	Rings  int    `json:"rings" jsonschema:"minimum=1"` // One for each year.
	Note   string `json:"note,omitempty"`
	Leaves []Leaf `json:"leaves"`
}

// Leaf is one of many.
type Leaf struct {
	Colour string `json:"colour"`
}

func generated(t *testing.T, mappings ...outbox.Mapping) map[string][]byte {
	t.Helper()
	t.Chdir("../../..")
	files, err := Generate(Config{
		Title: "Wood", Version: "1.0.0", Description: "What grows.", Schemas: "https://wood.example.org/schemas/", Source: "internal/outbox/asyncapi",
	}, mappings)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

//nolint:paralleltest // it changes the working directory
func TestTheDocumentAndTheSchemasDescribeTheTypes(t *testing.T) {
	tree := outbox.Public("wood.tree.grown.v1", func(outbox.Fact, grew) (g Grown, ok bool) { return g, true })
	files := generated(t, tree)
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, []string{"asyncapi.yaml", "schemas/wood.tree.grown.v1.json"}) {
		t.Fatalf("files: %v", got)
	}
	raw := files["schemas/wood.tree.grown.v1.json"]
	for _, want := range []string{
		`"$id": "https://wood.example.org/schemas/wood.tree.grown.v1.json"`, `"description": "Grown says that a tree grew."`,
		`"description": "One for each year."`, `"title": "wood.tree.grown.v1"`, `"$schema": "https://json-schema.org/draft/2020-12/schema"`,
	} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the schema lacks %s:\n%s", want, raw)
		}
	}
	schema := compile(t, raw)
	for data, valid := range map[string]bool{
		`{"rings": 3, "leaves": [{"colour": "red"}]}`:                    true,
		`{"rings": 3, "leaves": [], "note": "n", "new": {"more": true}}`: true, // a field that came later
		`{"rings": 0, "leaves": []}`:                                     false,
		`{"leaves": []}`:                                                 false,
		`{"rings": 3, "leaves": [{}]}`:                                   false,
	} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err == nil) != valid {
			t.Errorf("%s: %v", data, err)
		}
	}
	var document struct {
		AsyncAPI string `yaml:"asyncapi"`
		Channels struct {
			Public struct{ Messages map[string]any }
		}
		Components struct {
			Messages map[string]struct{ Name, Summary string }
		}
	}
	if err := yaml.Unmarshal(files["asyncapi.yaml"], &document); err != nil {
		t.Fatal(err)
	}
	message := document.Components.Messages["wood.tree.grown.v1"]
	if document.AsyncAPI != "3.0.0" || document.Channels.Public.Messages["wood.tree.grown.v1"] == nil ||
		message.Name != "wood.tree.grown.v1" || message.Summary != "Grown says that a tree grew." {
		t.Errorf("got %+v", document)
	}
}

//nolint:paralleltest // it changes the working directory
func TestAProgramWithoutPublicEventsHasADocumentToo(t *testing.T) {
	if files := generated(t); len(files) != 1 || len(files["asyncapi.yaml"]) == 0 {
		t.Fatalf("got %v", files)
	}
}

func compile(t *testing.T, raw []byte) *jsonschema.Schema {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", value); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestBreaksAreWhatReadersOfTheReleasedSchemaStumbleOver(t *testing.T) {
	t.Parallel()
	const released = `{"$id": "a", "description": "old", "type": "object", "required": ["id", "items"], "$defs": {
		"Item": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "next": {"$ref": "#/$defs/Item"}}}},
		"properties": {"id": {"type": "string"}, "note": {"type": "string"}, "size": {"type": "string", "enum": ["S", "M"]},
		"at": {"type": "string", "format": "date-time"}, "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
		"prices": {"type": "object", "additionalProperties": {"type": "integer"}}}}`
	for what, c := range map[string]struct {
		change []string // old, new, old, new, …
		want   string   // the lines, without the name; empty: no break
	}{
		"nothing":                      {},
		"other words":                  {change: []string{`"old"`, `"new"`, `"a"`, `"b"`}},
		"a field more":                 {change: []string{`"id": {`, `"more": {"type": "string"}, "id": {`}},
		"a field that is always there": {change: []string{`"required": ["id"`, `"required": ["note", "id"`}},
		"a value less":                 {change: []string{`["S", "M"]`, `["M"]`}},
		"a narrower one":               {change: []string{`"note": {`, `"note": {"maxLength": 9, `}},
		"a field less":                 {[]string{`"note": {"type": "string"}, `, ``}, "note is gone"},
		"another type":                 {[]string{`"id": {"type": "string"}`, `"id": {"type": "integer"}`}, `id has type "integer", and "string" was released`},
		"another format":               {[]string{`date-time`, `date`}, `at has format "date", and "date-time" was released`},
		"no format":                    {[]string{`, "format": "date-time"`, ``}, `at has format none, and "date-time" was released`},
		"a field not always there":     {[]string{`["id", "items"]`, `["items"]`}, "id is not always there any more"},
		"a value more":                 {[]string{`["S", "M"]`, `["S", "M", "L"]`}, "size may be L, which the released one may not"},
		"any value":                    {[]string{`, "enum": ["S", "M"]`, ``}, "size may have any value"},
		"a type inside a list":         {[]string{`"sku": {"type": "string"}`, `"sku": {"type": "integer"}`}, `items[].sku has type "integer", and "string" was released`},
		"a type inside a map":          {[]string{`{"type": "integer"}`, `{"type": "number"}`}, `prices[] has type "number", and "integer" was released`},
		"a list of one kind no more":   {[]string{`, "items": {"$ref": "#/$defs/Item"}`, ``}, "items has other items"},
		"written out in place":         {change: []string{`"items": {"$ref": "#/$defs/Item"}`, `"items": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}, "next": {"$ref": "#/$defs/Item"}}}`}},
	} {
		now := strings.NewReplacer(c.change...).Replace(released)
		if !json.Valid([]byte(now)) || (len(c.change) > 0 && now == released) {
			t.Fatalf("%s: the change makes %s", what, now)
		}
		breaks, err := Breaks(map[string][]byte{"a.v1": []byte(released)}, map[string][]byte{"a.v1": []byte(now), "b.v1": []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"a.v1: " + c.want}
		if c.want == "" {
			want = nil
		}
		if !slices.Equal(breaks, want) {
			t.Errorf("%s: got %q, want %q", what, breaks, want)
		}
	}
	breaks, err := Breaks(map[string][]byte{"a.v1": []byte(released)}, map[string][]byte{})
	if err != nil || !slices.Equal(breaks, []string{"a.v1: it is published no more"}) {
		t.Errorf("without the type: got %q, %v", breaks, err)
	}
}
