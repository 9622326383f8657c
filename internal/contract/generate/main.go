// Command generate writes contract/asyncapi.yaml and contract/schemas from the public types of internal/contract. It runs in
// the root of the checkout and removes the schemas of types that are published no more.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/headrace/headrace/internal/contract"
	"github.com/headrace/headrace/internal/outbox/asyncapi"
)

func main() {
	if err := generate("contract"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(folder string) error {
	files, err := asyncapi.Generate(asyncapi.Config{
		Title: contract.Title, Version: contract.Version, Description: contract.Description,
		Schemas: contract.Schemas, Source: "internal/contract",
	}, contract.Mappings())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(folder, asyncapi.SchemaFolder), 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(folder, asyncapi.SchemaFolder, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range old {
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if files[filepath.ToSlash(name)] == nil {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, filepath.FromSlash(name)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
