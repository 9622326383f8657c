package graph_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

func readSchema(t *testing.T) *ast.Schema {
	t.Helper()
	files, err := filepath.Glob("schema/*.graphqls")
	must(t, err)
	var sources []*ast.Source
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		sources = append(sources, &ast.Source{Name: file, Input: string(text)})
	}
	schema, err := gqlparser.LoadSchema(sources...)
	must(t, err)
	return schema
}

func TestEveryPartOfTheSchemaIsDescribed(t *testing.T) {
	t.Parallel()
	described := 0
	check := func(description string, path ...string) {
		described++
		if strings.TrimSpace(description) == "" {
			t.Errorf("%s has no description", strings.Join(path, "."))
		}
	}
	for name, typ := range readSchema(t).Types {
		if typ.BuiltIn {
			continue
		}
		check(typ.Description, name)
		for _, field := range typ.Fields {
			if strings.HasPrefix(field.Name, "__") {
				continue
			}
			check(field.Description, name, field.Name)
			for _, argument := range field.Arguments {
				check(argument.Description, name, field.Name, argument.Name)
			}
		}
		for _, value := range typ.EnumValues {
			check(value.Description, name, value.Name)
		}
	}
	if described < 350 {
		t.Errorf("only %d parts were looked at", described)
	}
}

// What clients rely on in every mutation, so that a command that is added later cannot leave it out.
func TestEveryMutationFollowsTheConvention(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	for _, mutation := range schema.Mutation.Fields {
		if len(mutation.Arguments) != 1 || mutation.Arguments[0].Name != "input" || !mutation.Arguments[0].Type.NonNull {
			t.Errorf("%s does not take one input", mutation.Name)
			continue
		}
		input := schema.Types[mutation.Arguments[0].Type.Name()]
		for name, typ := range map[string]string{"commandId": "ID", "expectedVersion": "Int"} {
			if field := input.Fields.ForName(name); field == nil || field.Type.String() != typ {
				t.Errorf("%s has no %s: %s", input.Name, name, typ)
			}
		}
		payload := schema.Types[mutation.Type.Name()]
		for name, typ := range map[string]string{"receipt": "Receipt", "userErrors": "[UserError!]!"} {
			if field := payload.Fields.ForName(name); field == nil || field.Type.String() != typ {
				t.Errorf("%s has no %s: %s", payload.Name, name, typ)
			}
		}
		if !slices.ContainsFunc(payload.Fields, func(f *ast.FieldDefinition) bool {
			return !f.Type.NonNull && f.Arguments.ForName("within") != nil
		}) {
			t.Errorf("%s has no changed object that may be null and is waited for", payload.Name)
		}
	}
}
