package decidertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
)

// UpdateVariable is the environment variable that, when it is not empty, makes CheckGolden write the files of the present
// schema versions instead of comparing with them:
//
//	UPDATE_GOLDEN=1 go test ./internal/commands/...
const UpdateVariable = "UPDATE_GOLDEN"

// CheckGolden compares the JSON of one sample of each event type with testdata/<type>.v<schema version>.json, and reads
// every file there, older versions included, through the registry. So a field that is renamed, retyped or lost fails the
// test before it makes recorded events unreadable. The samples must cover all definitions and leave no field zero.
func CheckGolden(t *testing.T, definitions []eventstore.Definition, samples ...eventstore.Payload) {
	t.Helper()
	registry, err := eventstore.NewRegistry(definitions...)
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != len(definitions) {
		t.Fatalf("%d samples for %d event types", len(samples), len(definitions))
	}
	current := make(map[string]eventstore.Payload, len(samples))
	for _, sample := range samples {
		if path := zeroField(sample.EventType(), reflect.ValueOf(sample)); path != "" {
			t.Errorf("the sample leaves %s zero", path)
		}
		file, data := encode(t, registry, sample)
		if _, twice := current[file]; twice {
			t.Errorf("%s has two samples", sample.EventType())
		}
		current[file] = sample
		compare(t, file, data)
	}
	readAll(t, registry, current)
}

func encode(t *testing.T, registry *eventstore.Registry, sample eventstore.Payload) (file string, data []byte) {
	t.Helper()
	typ, version, compact, err := registry.Encode(sample)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		t.Fatal(err)
	}
	indented.WriteByte('\n')
	return filepath.Join("testdata", fmt.Sprintf("%s.v%d.json", typ, version)), indented.Bytes()
}

func compare(t testing.TB, file string, data []byte) {
	t.Helper()
	if os.Getenv(UpdateVariable) != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; a new event type or schema version needs its file: run the test with %s=1", err, UpdateVariable)
	}
	if !bytes.Equal(golden, data) {
		t.Errorf("what is recorded changed, and needs a new schema version with an upcaster.\n%s:\n%snow:\n%s",
			file, golden, data)
	}
}

// readAll decodes every file, and expects of the present versions that nothing was lost on the way.
func readAll(t *testing.T, registry *eventstore.Registry, current map[string]eventstore.Payload) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*.v*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		typ, version, ok := parseName(file)
		if !ok {
			t.Errorf("%s is not named <type>.v<schema version>.json", file)
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := registry.Decode(eventstore.Event{Type: typ, SchemaVersion: version, Data: data})
		if err != nil {
			t.Errorf("%s can no longer be read: %v", file, err)
			continue
		}
		if sample, ok := current[file]; ok && !reflect.DeepEqual(payload, sample) {
			t.Errorf("%s: read %#v, want %#v", file, payload, sample)
		}
	}
}

func parseName(file string) (typ string, version int, ok bool) {
	name := strings.TrimSuffix(filepath.Base(file), ".json")
	dot := strings.LastIndex(name, ".v")
	if dot < 0 {
		return "", 0, false
	}
	version, err := strconv.Atoi(name[dot+len(".v"):])
	return name[:dot], version, err == nil
}

// zeroField is the path of the first field without a value, or empty.
func zeroField(path string, v reflect.Value) string {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if zero := zeroField(path+"."+v.Type().Field(i).Name, v.Field(i)); zero != "" {
				return zero
			}
		}
		return ""
	case reflect.Slice:
		if v.Len() > 0 {
			return zeroField(path+"[0]", v.Index(0))
		}
	}
	if v.IsZero() {
		return path
	}
	return ""
}
