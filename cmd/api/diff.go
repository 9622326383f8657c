package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/headrace/headrace/internal/queries"
)

type projectionsDiff struct {
	viewArgument
	fillFlags
	To      string `name:"to" help:"The generation or table to compare with the one that serves. Default: the newest that does not serve."`
	Samples int    `name:"samples" default:"5" help:"Rows of each kind to show. 0: none."`
	Chunk   count  `name:"chunk" default:"5000" help:"Rows to compare with one statement."`
}

// errDiffer is what a comparison that found differences ends with.
var errDiffer = errors.New("the tables differ")

func (p *projectionsDiff) Run(ctx context.Context, out output) error {
	return p.with(ctx, func(d deck) error {
		generation, err := generationOf(d.projection, p.To)
		if err != nil {
			return err
		}
		config := queries.DiffConfig{RebuildConfig: p.config(), Samples: p.Samples, Chunk: int(p.Chunk)}
		if p.Samples <= 0 {
			config.Samples = -1
		}
		shown := newShown(out, os.Stderr, p.JSON)
		config.Progress = shown.progress
		found, err := queries.Diff(ctx, d.pool, d.store, d.projection, generation, config)
		shown.end()
		if err != nil {
			return err
		}
		result := struct {
			Event string `json:"event"` // "diff"
			queries.Difference
		}{"diff", found}
		if err := p.print(out, result, func() error { return printDifference(out, found) }); err != nil {
			return err
		}
		if found.Differs() {
			return &exitError{exitDiffers, errDiffer}
		}
		return nil
	})
}

func printDifference(out output, d queries.Difference) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s compared with %s, which serves, at position %d: %d rows, %d added, %d missing, %d changed\n",
		d.Table, d.Serving, d.Position, d.Rows, d.Added, d.Missing, d.Changed)
	for _, column := range slices.Sorted(maps.Keys(d.Columns)) {
		fmt.Fprintf(&b, "  column %s: %d rows\n", column, d.Columns[column])
	}
	if len(d.OnlyServing)+len(d.OnlyTable) > 0 {
		fmt.Fprintf(&b, "not compared: only in %s: %s; only in %s: %s\n", d.Serving, orNone(d.OnlyServing), d.Table, orNone(d.OnlyTable))
	}
	if d.Parked > 0 {
		fmt.Fprintf(&b, "%d streams are parked in %s: their rows may differ for that\n", d.Parked, d.Serving)
	}
	for _, s := range d.Samples {
		fmt.Fprintf(&b, "%s %s\n", s.Kind, strings.Join(s.Key, ", "))
		for _, c := range s.Columns {
			fmt.Fprintf(&b, "  %s: %s -> %s\n", c.Name, orNull(c.Old), orNull(c.New))
		}
		for _, e := range s.Events {
			fmt.Fprintf(&b, "  event %d: %s, version %d of %s\n", e.Position, e.Type, e.Version, e.Stream)
		}
	}
	_, err := fmt.Fprint(out, b.String())
	return err
}

func orNone(columns []string) string {
	if len(columns) == 0 {
		return "none"
	}
	return strings.Join(columns, ", ")
}

func orNull(value *string) string {
	if value == nil {
		return "null"
	}
	return *value
}
