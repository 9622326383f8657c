// Command newproject makes a copy of Headrace somebody's own: it gives the module another path.
//
//	go -C tools run ./newproject example.com/shop
//
// The path is written into go.mod, into the imports of all Go files and into the imports that the documents show; no
// other file names it. docs/own-project.md says what comes before and after.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 || strings.HasPrefix(os.Args[1], "-") {
		fmt.Fprintln(os.Stderr, "newproject: give the path of the new module, such as example.com/shop")
		os.Exit(2)
	}
	if err := rename("..", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "newproject:", err)
		os.Exit(1)
	}
}

// valid is what go takes for a path that it may have to fetch; without the dot it would be one of its own packages.
var valid = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)*$`)

var moduleLine = regexp.MustCompile(`(?m)^module (\S+)$`)

func rename(root, to string) error {
	if !valid.MatchString(to) {
		return fmt.Errorf("%q is no path for a module: it begins with a domain, such as example.com/shop", to)
	}
	name := filepath.Join(root, "go.mod")
	mod, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	found := moduleLine.FindSubmatch(mod)
	if found == nil {
		return errors.New("go.mod names no module")
	}
	from := string(found[1])
	if err := os.WriteFile(name, moduleLine.ReplaceAll(mod, []byte("module "+to)), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.go", "*.md")
	cmd.Dir = root
	files, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the files of the checkout: %w", err)
	}
	changed := 0
	for file := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		did, err := replaceImports(filepath.Join(root, file), from, to)
		if err != nil {
			return err
		}
		if did {
			changed++
		}
	}
	fmt.Printf("newproject: %s is %s now, in %d files\n", from, to, changed)
	return nil
}

// replaceImports changes the paths that stand in quotes, as imports do. An address in a text stays.
func replaceImports(name, from, to string) (bool, error) {
	before, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) { // deleted, and git was not told yet
		return false, nil
	}
	if err != nil {
		return false, err
	}
	after := bytes.ReplaceAll(before, []byte(`"`+from+`/`), []byte(`"`+to+`/`))
	if bytes.Equal(before, after) {
		return false, nil
	}
	return true, os.WriteFile(name, after, 0o644)
}
