// Package archtest holds the house rules on imports: which package may know which. The same table stands in
// docs/architecture.md.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rules is the whole table: of this module, each package may import what is listed and nothing else. A path that ends in
// /* stands for the folders directly in it, and the first rule that fits a package counts. A package that no rule fits
// breaks the build: whoever adds one decides here what it may know.
var rules = []struct{ who, may []string }{
	{who: []string{"cmd/*"}, may: []string{
		"graph", "graph/*", "migrations", "internal/*", "internal/commands/*", "internal/queries/*", "internal/outbox/*", "internal/pgtest/*",
	}},
	{who: []string{"graph", "graph/*"}, may: []string{
		"graph", "graph/*", "internal/eventstore", "internal/commands", "internal/commands/*", "internal/identity",
		"internal/queries", "internal/queries/*",
	}},
	{who: []string{"internal/eventstore", "internal/identity"}},
	{who: []string{"internal/commands", "internal/queries"}, may: []string{"internal/eventstore", "internal/identity"}},
	{who: []string{"internal/outbox", "internal/outbox/*"}, may: []string{"internal/eventstore", "internal/outbox"}},
	{who: []string{"internal/contract"}, may: []string{"internal/outbox", "internal/eventstore", "internal/commands/*"}},
	{who: []string{"internal/contract/generate"}, may: []string{"internal/contract", "internal/outbox", "internal/outbox/asyncapi"}},
	{who: []string{"internal/commands/money"}},
	{who: []string{"internal/commands/decidertest"}, may: []string{"internal/commands", "internal/eventstore", "internal/identity"}},
	{who: []string{"internal/commands/checkout", "internal/commands/fulfilment"}, may: []string{
		"internal/commands", "internal/commands/*", "internal/eventstore", "internal/identity",
	}},
	{who: []string{"internal/commands/cart"}, may: []string{ // its check-out names the order
		"internal/commands", "internal/commands/money", "internal/commands/order", "internal/eventstore", "internal/identity",
	}},
	{who: []string{"internal/commands/*"}, may: []string{
		"internal/commands", "internal/commands/money", "internal/eventstore", "internal/identity",
	}},
	{who: []string{"internal/queries/*"}, may: []string{
		"internal/queries", "internal/commands/*", "internal/eventstore", "internal/identity",
	}},
	{who: []string{"internal/pgdev", "internal/archtest", "internal/natstest", "internal/kafkatest"}},
	{who: []string{"internal/pgtest"}, may: []string{"internal/pgdev", "migrations"}},
	{who: []string{"internal/pgtest/gotest", "internal/pgtest/nodetest"}, may: []string{"internal/pgdev", "internal/pgtest"}},
	{who: []string{"migrations"}},
}

// foreign says which packages alone may import modules whose path begins with module.
var foreign = []struct {
	module string
	only   []string
}{
	{module: "github.com/ThreeDotsLabs/watermill", only: []string{"internal/outbox", "internal/outbox/*", "cmd/*"}},
	{module: "github.com/ThreeDotsLabs/watermill/message/router"}, // order and delivery are the outbox's own
	{module: "github.com/ThreeDotsLabs/watermill/components"},
	{module: "github.com/jackc/pgx", only: []string{
		"internal/eventstore", "internal/outbox", "internal/outbox/*", "internal/queries", "internal/queries/*",
		"internal/pgdev", "internal/pgtest", "migrations", "cmd/*",
	}},
	{module: "github.com/nats-io/nats.go", only: []string{"internal/outbox/natsjs"}},
	{module: "github.com/nats-io/nats-server", only: []string{"internal/natstest"}},
	{module: "github.com/headrace/headrace/internal/natstest"}, // for tests alone, so that no program carries a server
	{module: "github.com/twmb/franz-go", only: []string{"internal/kafkatest"}},
	{module: "github.com/headrace/headrace/internal/kafkatest"}, // as with NATS
	{module: "github.com/ThreeDotsLabs/watermill-kafka", only: []string{"internal/outbox/kafka"}},
	{module: "github.com/IBM/sarama", only: []string{"internal/outbox/kafka"}},
	{module: "github.com/cloudevents/sdk-go", only: []string{"internal/outbox"}},
	{module: "github.com/invopop/jsonschema", only: []string{"internal/outbox/asyncapi"}}, // no server needs it
	{module: "github.com/99designs/gqlgen", only: []string{"graph", "graph/*"}},
	{module: "github.com/golang-jwt/jwt", only: []string{"graph/auth", "cmd/bench"}},
	{module: "github.com/prometheus", only: []string{"cmd/api"}}, // a framework package counts, and cmd/api publishes
	{module: "github.com/pressly/goose", only: []string{"migrations"}},
}

type listed struct {
	ImportPath string
	Imports    []string
	Module     struct{ Path string }
}

// list asks go for the packages of the module; tests are not looked at, they may import what they need.
func list(t *testing.T) []listed {
	t.Helper()
	// go test keeps results until a file changes that the test itself looked at, and what go list reads is not that.
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Module", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// fits says whether the package is one of the patterns.
func fits(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		folder, wild := strings.CutSuffix(pattern, "/*")
		if !wild {
			return pkg == pattern
		}
		rest, below := strings.CutPrefix(pkg, folder+"/")
		return below && !strings.Contains(rest, "/")
	})
}

// violations are the imports that the table does not allow.
func violations(packages []listed) []string {
	var wrong []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")
		at := slices.IndexFunc(rules, func(r struct{ who, may []string }) bool { return fits(name, r.who) })
		if at < 0 {
			wrong = append(wrong, name+" is in no rule")
			continue
		}
		for _, imported := range p.Imports {
			if own, ours := strings.CutPrefix(imported, p.Module.Path+"/"); ours && !fits(own, rules[at].may) {
				wrong = append(wrong, name+" imports "+own)
			}
			for _, f := range foreign {
				if strings.HasPrefix(imported, f.module) && !fits(name, f.only) {
					wrong = append(wrong, name+" imports "+imported)
				}
			}
		}
	}
	return wrong
}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages", len(packages))
	}
	for _, wrong := range violations(packages) {
		t.Error(wrong)
	}
}

func TestTheTableRefuses(t *testing.T) {
	t.Parallel()
	const module = "example.org/shop"
	for name, want := range map[string]struct {
		who, imports string
		wrong        bool
	}{
		"a framework package its neighbour":     {"internal/commands", module + "/internal/outbox", true},
		"a framework package its own subfolder": {"internal/queries", module + "/internal/queries/cartview", true},
		"a write model the database":            {"internal/commands/cart", "github.com/jackc/pgx/v5", true},
		"a write model another":                 {"internal/commands/user", module + "/internal/commands/order", true},
		"the graph a broker":                    {"graph", "github.com/ThreeDotsLabs/watermill/message", true},
		"the outbox Watermill's middleware":     {"internal/outbox", "github.com/ThreeDotsLabs/watermill/message/router/middleware", true},
		"the outbox a publisher":                {"internal/outbox", "github.com/ThreeDotsLabs/watermill/message", false},
		"the graph the database":                {"graph", "github.com/jackc/pgx/v5/pgxpool", true},
		"a view a command's package":            {"internal/queries/cartview", module + "/internal/commands/cart", false},
		"a view another room":                   {"internal/queries/cartview", module + "/internal/outbox", true},
		"the program everything":                {"cmd/api", module + "/internal/outbox", false},
		"a package that nobody thought of":      {"internal/utils", "fmt", true},
	} {
		p := listed{ImportPath: module + "/" + want.who, Imports: []string{want.imports}}
		p.Module.Path = module
		if got := violations([]listed{p}); (len(got) > 0) != want.wrong {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEveryRuleIsUsed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range list(t) {
		seen[strings.TrimPrefix(p.ImportPath, p.Module.Path+"/")] = true
	}
	names := slices.Collect(maps.Keys(seen))
	for _, rule := range rules {
		for _, who := range rule.who {
			if who == "internal/outbox/*" { // for brokers' adapters
				continue
			}
			if !slices.ContainsFunc(names, func(name string) bool { return fits(name, []string{who}) }) {
				t.Errorf("the rule for %s fits no package", who)
			}
		}
	}
}
