package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// viewArgument names a view.
type viewArgument struct {
	Database
	report
	Name string `arg:"" help:"The view's name, such as cart."`
}

// fillFlags are the options of all commands that fill a table.
type fillFlags struct {
	Workers    int           `name:"workers" help:"How many workers share the streams. Default: the number of CPUs, at most 4."`
	Batch      count         `name:"batch" default:"4000" help:"Events of one transaction of a worker."`
	MaxWALRate int64         `name:"max-wal-rate" default:"128" help:"Slow down when the cluster writes more WAL than this, in MiB per second. 0: never."`
	MaxLiveLag time.Duration `name:"max-live-lag" default:"2s" help:"Slow down when a serving projection, policy or relay is further behind. 0: never."`
	ParkedMax  count         `name:"parked-streams-max" env:"PARKED_STREAMS_MAX" default:"1000" help:"How many streams of the view, or of each of its shards, may be parked; one more, and it stops. As the servers have it."`
}

func (f fillFlags) config() queries.RebuildConfig {
	config := queries.RebuildConfig{
		Workers: f.Workers, Batch: int(f.Batch), MaxWALRate: f.MaxWALRate << 20, MaxLiveLag: f.MaxLiveLag, ParkedMax: int(f.ParkedMax),
	}
	if f.MaxWALRate <= 0 {
		config.MaxWALRate = -1
	}
	if f.MaxLiveLag <= 0 {
		config.MaxLiveLag = -1
	}
	return config
}

// count is a number of things, of which there must be one at least.
type count int

// UnmarshalText reads a flag's value.
func (c *count) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number from 1 on", text)
	}
	*c = count(n)
	return nil
}

// deck is what the commands on one view work with.
type deck struct {
	pool       *pgxpool.Pool
	store      *eventstore.Store
	projection queries.Projection
}

// with opens the log and calls f.
func (v *viewArgument) with(ctx context.Context, f func(d deck) error) error {
	return v.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) (err error) {
		registry, err := newRegistry()
		if err != nil {
			return err
		}
		projections, err := newProjections(registry)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(projections, func(p queries.Projection) bool { return p.Name == v.Name })
		if at < 0 {
			names := make([]string, len(projections))
			for i, p := range projections {
				names[i] = p.Name
			}
			return &exitError{exitUsage, fmt.Errorf("there is no view %q; there are %s", v.Name, strings.Join(names, ", "))}
		}
		store, err := eventstore.Open(ctx, pool, registry, eventstore.Config{})
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		defer func() { err = errors.Join(err, store.Close(context.WithoutCancel(ctx))) }()
		return withCode(ctx, f(deck{pool, store, projections[at]}))
	})
}

// filled is what rebuild, switch and rollback print at their end.
type filled struct {
	Event     string  `json:"event"` // "done"
	View      string  `json:"view"`
	Table     string  `json:"table"`
	Position  int64   `json:"position"`
	Events    int64   `json:"events"`
	Workers   int     `json:"workers"`
	Resumed   bool    `json:"resumed"`
	Serves    bool    `json:"serves"`
	Replaced  string  `json:"replaced"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"eventsPerSecond"`
}

// fill runs what fills a table, and shows how far it is and what came of it.
func (v *viewArgument) fill(
	ctx context.Context, out output, flags fillFlags, how func(context.Context, deck, queries.RebuildConfig) (queries.Filled, error),
) error {
	return v.with(ctx, func(d deck) error {
		config := flags.config()
		shown := newShown(out, os.Stderr, v.JSON)
		config.Progress = shown.progress
		began := time.Now()
		done, err := how(ctx, d, config)
		shown.end()
		if err != nil {
			return err
		}
		took := time.Since(began).Seconds()
		result := filled{
			Event: "done", View: done.View, Table: done.Checkpoint, Position: done.Position, Events: done.Events, Workers: done.Workers,
			Resumed: done.Resumed, Serves: done.Serves, Replaced: done.Replaced, Seconds: took, PerSecond: float64(done.Events) / took,
		}
		return v.print(out, result, func() error { return result.text(out) })
	})
}

func (f filled) text(out output) error {
	what := fmt.Sprintf("%s is filled to position %d: %d events in %s", f.Table, f.Position, f.Events,
		time.Duration(f.Seconds*float64(time.Second)).Round(time.Millisecond))
	next := fmt.Sprintf("compare and switch: api projections diff %s; api projections switch %s", f.View, f.View)
	if f.Serves {
		what += fmt.Sprintf("; it serves instead of %s", f.Replaced)
		next = fmt.Sprintf("back: api projections rollback %s; when you are sure: api projections drop %s", f.View, f.Replaced)
	}
	_, err := fmt.Fprintf(out, "%s\n%s\n", what, next)
	return err
}

type projectionsRebuild struct {
	viewArgument
	fillFlags
	Switch bool `name:"switch" help:"Let the table serve as soon as it is filled."`
}

func (p *projectionsRebuild) Run(ctx context.Context, out output) error {
	return p.fill(ctx, out, p.fillFlags, func(ctx context.Context, d deck, config queries.RebuildConfig) (queries.Filled, error) {
		config.Switch = p.Switch
		return queries.Rebuild(ctx, d.pool, d.store, d.projection, config)
	})
}

type projectionsSwitch struct {
	viewArgument
	fillFlags
	To string `name:"to" help:"The generation or table to switch to, such as 2 or cart_v1_2. Default: the newest that does not serve."`
}

func (p *projectionsSwitch) Run(ctx context.Context, out output) error {
	return p.fill(ctx, out, p.fillFlags, func(ctx context.Context, d deck, config queries.RebuildConfig) (queries.Filled, error) {
		generation, err := generationOf(d.projection, p.To)
		if err != nil {
			return queries.Filled{}, err
		}
		return queries.Switch(ctx, d.pool, d.store, d.projection, generation, config)
	})
}

// generationOf reads a generation's number or its table's name. Empty is 0.
func generationOf(p queries.Projection, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	number := text
	if base := p.At(1).Checkpoint(); text == base {
		return 1, nil
	} else if rest, is := strings.CutPrefix(text, base+"_"); is {
		number = rest
	}
	generation, err := strconv.Atoi(number)
	if err != nil || generation < 1 {
		return 0, &exitError{exitUsage, fmt.Errorf("%q is no generation of %s, version %d", text, p.Name, p.Version)}
	}
	return generation, nil
}

type projectionsRollback struct {
	viewArgument
	fillFlags
}

func (p *projectionsRollback) Run(ctx context.Context, out output) error {
	return p.fill(ctx, out, p.fillFlags, func(ctx context.Context, d deck, config queries.RebuildConfig) (queries.Filled, error) {
		return queries.Rollback(ctx, d.pool, d.store, d.projection, config)
	})
}

// line writes a value as one line of JSON. Progress that cannot be written is not worth a failed rebuild.
func line(out output, value any) {
	_ = json.NewEncoder(out).Encode(value)
}
