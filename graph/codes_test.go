package graph_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql/errcode"
)

var (
	codeName = regexp.MustCompile(`^[cC]ode[A-Z]`)
	codeRow  = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|")
)

// codesIn is the values of all constants below the folder that are named as codes are.
func codesIn(t *testing.T, folder string) []string {
	t.Helper()
	found := map[string]bool{}
	must(t, filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "generated") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !codeName.MatchString(spec.Names[0].Name) || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				must(t, err)
				found[text] = true
			}
			return true
		})
		return nil
	}))
	return slices.Sorted(maps.Keys(found))
}

// A client goes by codes, so that neither the schema nor the page for its authors may be behind the program.
func TestEveryErrorCodeIsInTheSchemaAndOnThePage(t *testing.T) {
	t.Parallel()
	schema := readSchema(t)
	enum := func(name string) (values []string) {
		for _, value := range schema.Types[name].EnumValues {
			values = append(values, value.Name)
		}
		return values
	}
	topLevel, refusals := enum("ErrorCode"), enum("UserErrorCode")
	named := slices.Concat(topLevel, refusals)

	rules, edge := codesIn(t, "../internal/commands"), codesIn(t, ".")
	if len(rules) < 25 || len(edge) < 20 {
		t.Fatalf("only %d and %d codes were found", len(rules), len(edge))
	}
	for _, code := range rules {
		if !slices.Contains(refusals, code) {
			t.Errorf("%s is not in the enum UserErrorCode", code)
		}
	}
	for _, code := range edge {
		if !slices.Contains(named, code) {
			t.Errorf("%s is in neither enum", code)
		}
	}
	executor := []string{errcode.ParseFailed, errcode.ValidationFailed, "PERSISTED_QUERY_NOT_FOUND"}
	for _, code := range named {
		if !slices.Contains(slices.Concat(rules, edge, executor), code) {
			t.Errorf("%s is in the schema, and nothing gives it", code)
		}
	}

	page, err := os.ReadFile("../docs/graphql/errors.md")
	must(t, err)
	var rows []string
	for _, row := range codeRow.FindAllStringSubmatch(string(page), -1) {
		rows = append(rows, row[1])
	}
	slices.Sort(rows)
	slices.Sort(named)
	if !slices.Equal(rows, named) {
		t.Errorf("the page does not have the schema's codes:\n%s\n%s", rows, named)
	}
}
