// Command tutorial follows documents step by step in a copy of the checkout, and fails where a reader would:
//
//	go -C tools run ./tutorial docs/tutorial.md
//
// Paths are relative to the root of the checkout. With -keep the copy stays, to be looked at.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"tools/steps"
)

func main() {
	keep := flag.Bool("keep", false, "leave the copy in place and print where it is")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	err := follow(ctx, "..", flag.Args(), *keep)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

func follow(ctx context.Context, root string, documents []string, keep bool) error {
	dir, err := steps.Copy(ctx, root)
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("tutorial: working in", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }() // in the folder for temporary files, where what stays does no harm
	}
	for _, document := range documents {
		text, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			return err
		}
		todo, err := steps.Parse(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", document, err)
		}
		for _, step := range todo {
			if err := step.Apply(ctx, dir); err != nil {
				return fmt.Errorf("%s: %w", document, err)
			}
		}
		fmt.Printf("tutorial: %s: %d steps done\n", document, len(todo))
	}
	return nil
}
