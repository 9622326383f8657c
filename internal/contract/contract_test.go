package contract_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/contract"
	"github.com/headrace/headrace/internal/outbox/asyncapi"
)

const folder = "../../contract"

func schemas(t *testing.T, of string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, of, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".json")] = text
	}
	return all
}

// What was released stays as it was for those who read it, but for what contract/accepted-breaks.txt says.
func TestReadersOfTheReleasedContractCanGoOn(t *testing.T) {
	t.Parallel()
	breaks, err := asyncapi.Breaks(schemas(t, "released"), schemas(t, "schemas"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "accepted-breaks.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var accepted []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			accepted = append(accepted, line)
		}
	}
	for _, line := range breaks {
		if !slices.Contains(accepted, line) {
			t.Errorf("this breaks readers of the released contract: take it back, make it another version, or add the line to contract/accepted-breaks.txt:\n%s", line)
		}
	}
	for _, line := range accepted {
		if !slices.Contains(breaks, line) {
			t.Errorf("contract/accepted-breaks.txt accepts what is not there: remove the line\n%s", line)
		}
	}
}

func TestEachPublicTypeHasItsSchema(t *testing.T) {
	t.Parallel()
	files := schemas(t, asyncapi.SchemaFolder)
	for _, m := range contract.Mappings() {
		if files[m.Name()] == nil {
			t.Errorf("contract/schemas lacks %s: run make generate", m.Name())
		}
		delete(files, m.Name())
	}
	for name := range files {
		t.Errorf("contract/schemas has %s, which is not published: run make generate", name)
	}
}
