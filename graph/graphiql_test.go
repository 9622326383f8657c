package graph_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
)

// The examples in GraphiQL are what a newcomer tries first: each is one operation that fits the schema, and its
// variables are what it takes.
func TestTheExamplesOfGraphiQLFitTheSchema(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	text, err := os.ReadFile("graphiql/examples.graphql")
	must(t, err)
	variables := regexp.MustCompile(`(?m)^# (\{.*\})$`)
	examples := strings.Split(string(text), "\n\n# ")
	if len(examples) < 8 {
		t.Fatalf("only %d examples were found", len(examples))
	}
	for i, example := range examples {
		if i > 0 {
			example = "# " + example
		}
		document, errs := gqlparser.LoadQueryWithRules(schema, example, nil)
		if errs != nil {
			t.Errorf("%v in:\n%s", errs, example)
			continue
		}
		equal(t, "operations in "+example, len(document.Operations), 1)
		operation := document.Operations[0]
		given := map[string]any{}
		if found := variables.FindStringSubmatch(example); found != nil {
			must(t, json.Unmarshal([]byte(found[1]), &given))
		}
		equal(t, "number of variables of "+operation.Name, len(given), len(operation.VariableDefinitions))
		for _, definition := range operation.VariableDefinitions {
			if _, there := given[definition.Variable]; !there {
				t.Errorf("%s is not given $%s", operation.Name, definition.Variable)
			}
		}
	}
}
