package steps_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tools/steps"
)

const document = "Text.\n\n`a/new.go`\n\n```go\npackage a\n```\n\nA snippet that is only shown:\n\n```go\nx := 1\n```\n\n" +
	"`old.txt`\n\n```diff\n one\n-two\n+zwei\n@@\n three\n+four\n```\n\n```sh\ntest -f a/new.go\ntouch ran\n```\n"

func TestStepsAreDoneInOrder(t *testing.T) {
	t.Parallel()
	found, err := steps.Parse(document)
	if err != nil || len(found) != 3 {
		t.Fatalf("%d steps, %v", len(found), err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old.txt"), []byte("one\ntwo\nthree\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, step := range found {
		if err := step.Apply(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"a/new.go": "package a\n", "old.txt": "one\nzwei\nthree\nfour\n", "ran": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	if err := found[0].Apply(t.Context(), dir); err == nil {
		t.Error("a file was written twice")
	}
	if err := (steps.Step{Text: "false"}).Apply(t.Context(), dir); err == nil {
		t.Error("a command that fails was no error")
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no end":              "```sh\ntrue\n",
		"a change of nothing": "```diff\n+x\n```\n",
		"commands in a file":  "`a.go`\n```sh\ntrue\n```\n",
	} {
		if _, err := steps.Parse(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, c := range map[string]struct{ text, diff string }{
		"lines that are not there":     {"a\nb\n", " c\n+d\n"},
		"lines that stand there twice": {"a\nb\na\n", " a\n+d\n"},
		"half a line":                  {"aa\n", "-a\n"},
		"no line that stays":           {"a\n", "+d\n"},
		"another mark":                 {"a\n", "*a\n"},
	} {
		if got, err := steps.Change(c.text, c.diff); err == nil {
			t.Errorf("%s: made %q", name, strings.TrimSpace(got))
		}
	}
}
