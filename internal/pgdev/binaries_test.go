package pgdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// server writes programs that say they are of this version and returns their folder.
func server(t *testing.T, says string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindTakesTheFirstThatIsNewEnough(t *testing.T) {
	t.Parallel()
	old := server(t, "postgres (PostgreSQL) 13.4")
	good := server(t, "postgres (PostgreSQL) 14.1 (Debian 14.1-1)")
	newer := server(t, "postgres (PostgreSQL) 18beta1")
	odd := server(t, "something else")
	clientOnly := t.TempDir()
	folders := []string{clientOnly, odd, old, good, newer}

	found, err := find(t.Context(), folders, 0)
	if want := (Binaries{Dir: good, Major: 14}); err != nil || found != want {
		t.Errorf("found %v, %v", found, err)
	}
	found, err = find(t.Context(), folders, 18)
	if want := (Binaries{Dir: newer, Major: 18}); err != nil || found != want {
		t.Errorf("found %v, %v when 18 was wanted", found, err)
	}
	_, err = find(t.Context(), []string{clientOnly, old}, 0)
	var none *NotFoundError
	if !errors.As(err, &none) {
		t.Fatalf("the error is %v", err)
	}
	for _, word := range []string{old, "version 13", "apt-get install", "PATH", "DATABASE_URL"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func TestInstallCommands(t *testing.T) {
	t.Parallel()
	packages := Packages{Apt: []string{"a"}, Apk: []string{"k", "l"}, Brew: []string{"b"}}
	asRoot := [][][]string{
		{{"apt-get", "update"}, {"apt-get", "install", "-y", "--no-install-recommends", "a"}},
		{{"apk", "add", "k", "l"}},
	}
	if got := installCommands(true, packages); !reflect.DeepEqual(got, asRoot) {
		t.Errorf("as root: %v", got)
	}
	asUser := [][][]string{{{"brew", "install", "b"}}}
	if got := installCommands(false, packages); !reflect.DeepEqual(got, asUser) {
		t.Errorf("as an ordinary user: %v", got)
	}
}

func TestCheckoutDirDiffersByPath(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, path := range []string{"/a/headrace", "/b/headrace", "/a/" + strings.Repeat("long ", 60), "/"} {
		dir, err := CheckoutDir(path)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[dir]; taken {
			t.Errorf("%s and %s share %s", path, other, dir)
		}
		seen[dir] = path
		if base := filepath.Base(dir); len(base) > 29 || strings.ContainsAny(base, " /") {
			t.Errorf("%s becomes %q", path, base)
		}
	}
}
