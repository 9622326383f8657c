package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/throttle"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

func parse(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	var parsed commandLine
	parser, err := kong.New(&parsed, kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(append([]string{"serve", "--database-url=postgres://localhost/x"}, args...))
	return parsed.Serve.Config, err
}

func TestLimitsAndSwitchesReachTheHandler(t *testing.T) {
	t.Parallel()
	config, err := parse(t, "--max-depth=7", "--max-cost=8", "--max-aliases=9", "--request-timeout=3s", "--max-page=11", "--max-tokens=12",
		"--max-socket-streams=13", "--max-subject-subscriptions=14", "--graphiql=on", "--introspection=true", "--suggestions=off",
		"--trusted-documents=f.json", "--trusted-documents-only", "--auth=off")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := config.outside(t.Context(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if got.MaxDepth != 7 || got.MaxCost != 8 || got.MaxAliases != 9 || got.RequestTimeout != 3*time.Second || got.MaxPage != 11 ||
		got.MaxTokens != 12 || got.MaxSocketStreams != 13 || got.MaxSubjectSubscriptions != 14 || config.page().Max != 11 {
		t.Errorf("got %+v", got)
	}
	if got.GraphiQL != graph.On || got.Introspection != graph.On || got.Suggestions != graph.Off || got.TrustedDocuments != "f.json" || !got.TrustedOnly {
		t.Errorf("got %+v", got)
	}
	unsaid, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if want := (throttle.Rate{PerSecond: 100, Burst: 500}); unsaid.IdentityRate != want || unsaid.AddressRate != (throttle.Rate{}) {
		t.Errorf("rates are %+v and %+v unless told otherwise", unsaid.IdentityRate, unsaid.AddressRate)
	}
	for _, wrong := range []string{"--max-depth=-1", "--graphiql=maybe", "--max-cost=x", "--request-timeout=-1s"} {
		if _, err := parse(t, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

// Every limit and switch stands on the page, with the default that --help shows.
func TestTheLimitsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/graphql/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	var parsed commandLine
	parser, err := kong.New(&parsed)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, command := range parser.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			if flag.Group == nil || !contains("Switches: Limits on requests:", flag.Group.Title) {
				continue
			}
			found++
			row := "| `" + flag.Envs[0] + "` | "
			if flag.HasDefault {
				row += flag.Default + " |"
			}
			if !strings.Contains(string(page), row) {
				t.Errorf("no row %q on the page", row)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d flags were looked at", found)
	}
}

func TestHangupReadsTheTrustedDocumentsAnew(t *testing.T) { //nolint:paralleltest // the signal is the whole process's
	path := filepath.Join(t.TempDir(), "documents.json")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"one": "{ a: __typename }"}`)
	s := startServer(t, Config{Switches: Switches{TrustedDocuments: path, TrustedOnly: true}})
	defer s.app.config.reloadOnHangup(s.app, slog.New(slog.NewTextHandler(io.Discard, nil)))()
	var out map[string]string
	if problem := post(t.Context(), s.url, "{ b: __typename }", nil, &out); !contains(problem, "UNTRUSTED_DOCUMENT") {
		t.Fatalf("got %s", problem)
	}
	write(`{"two": "{ b: __typename }"}`)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "the new document", func() bool { return post(t.Context(), s.url, "{ b: __typename }", nil, &out) == "" })
}
