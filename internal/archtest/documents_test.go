package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sources is all Go code of the repository, tests included.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, room := range []string{"cmd", "graph", "internal", "migrations"} {
		err := filepath.WalkDir(filepath.Join("../..", room), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

var (
	testName = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	fileLink = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	fenced   = regexp.MustCompile("(?s)```.*?```")
)

func TestTheTestsThatGuaranteesNameExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	code := sources(t)
	names := testName.FindAllStringSubmatch(string(text), -1)
	if len(names) < 30 {
		t.Fatalf("only %d tests are named", len(names))
	}
	for _, name := range names {
		if !strings.Contains(code, "func "+name[1]+"(t *testing.T)") {
			t.Errorf("there is no %s", name[1])
		}
	}
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ofGraphQL, err := filepath.Glob("../../docs/graphql/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range slices.Concat(documents, ofGraphQL, []string{"../../README.md", "../../CONTRIBUTING.md"}) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range fileLink.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), link[1])); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}
