// Command gqlgen generates the GraphQL code: gqlgen as it is, and the direct encoders of package graph/direct beside it.
//
//	go -C tools run ./gqlgen
//
// It works in the root of the checkout and reads graph/gqlgen.yml.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/99designs/gqlgen/api"
	"github.com/99designs/gqlgen/codegen/config"
)

func main() {
	if err := generate("..", "graph/gqlgen.yml"); err != nil {
		fmt.Fprintln(os.Stderr, "gqlgen:", err)
		os.Exit(1)
	}
}

func generate(root, configuration string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	cfg, err := config.LoadConfig(configuration)
	if err != nil {
		return err
	}
	// What gqlgen generates is always generated anew, without a look at what was there.
	if err := os.Remove(directFile(cfg)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return api.Generate(cfg, api.AddPlugin(direct{}))
}

func directFile(cfg *config.Config) string { return filepath.Join(cfg.Exec.Dir(), "direct.go") }
