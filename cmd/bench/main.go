// Command bench measures Headrace beside pgbench's single-row insert, on a Postgres of its own with fsync on, in one run
// on one cluster, and prints tables of medians with their ratios. It asserts nothing: figures are for people.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgdev"
	"github.com/headrace/headrace/migrations"
)

type config struct {
	Duration time.Duration `default:"3s" help:"How long each run of a case lasts."`
	Runs     int           `default:"3" help:"How many runs each case has; the median is reported."`
	Only     string        `help:"Run only the sections whose name contains this: append, command, replay, drain, delivery, rebuild, latency, read, graphql, subscriptions, idle, failover."`
	Events   int           `default:"200000" help:"How many events the replay reads. The relay drains as many, and ten times as many; a rebuild takes five times as many."`
	API      string        `help:"The server's binary for the GraphQL section; built when empty." type:"existingfile"`
}

type bench struct {
	config      config
	cluster     *pgdev.Cluster
	pgbenchPath string
	databases   atomic.Int64
}

func main() {
	var cfg config
	kong.Parse(&cfg, kong.Description("Measure Headrace beside pgbench, on a Postgres of its own."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, cfg config) error {
	cluster, err := startCluster(ctx, nil)
	if err != nil {
		return err
	}
	defer cluster.Remove()
	b := &bench{config: cfg, cluster: cluster, pgbenchPath: filepath.Join(cluster.BinDir(), "pgbench")}
	if err := b.describe(ctx, os.Stdout); err != nil {
		return err
	}
	sections := []struct {
		name string
		run  func(context.Context) error
	}{
		{"append", b.appendSection},
		{"command", b.commandSection},
		{"replay", b.replaySection},
		{"drain", b.drainSection},
		{"delivery", b.deliverySection},
		{"rebuild", b.rebuildSection},
		{"latency", b.latencySection},
		{"read", b.readSection},
		{"graphql", b.graphqlSection},
		{"subscriptions", b.subscriptionsSection},
		{"idle", b.idleSection},
		{"failover", b.failoverSection},
	}
	for _, s := range sections {
		if !strings.Contains(s.name, cfg.Only) {
			continue
		}
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// benchCase is one line of a section.
type benchCase struct {
	name   string
	run    func(context.Context) (sample, error)
	target float64 // of the ratio to the base; 0: none
	base   string  // the name of another case, or "P" for the best of the baseline's
	note   string  // the target, when it is not a ratio
}

// runCases runs all cases of a section in turn, round by round, so that a disturbance hits all alike.
func (b *bench) runCases(ctx context.Context, cases []benchCase) (map[string]sample, error) {
	samples := make(map[string][]sample, len(cases))
	for round := range b.config.Runs {
		for _, c := range cases {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, b.config.Runs, c.name)
			s, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			samples[c.name] = append(samples[c.name], s)
		}
	}
	medians := make(map[string]sample, len(cases))
	for name, all := range samples {
		medians[name] = median(all)
	}
	return medians, nil
}

// database is a migrated database of one case's own.
type database struct {
	pool *pgxpool.Pool
	url  string
	drop func()
}

func (b *bench) database(ctx context.Context) (*database, error) {
	name := fmt.Sprintf("bench_%d", b.databases.Add(1))
	url, err := b.cluster.Database(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("making a database: %w", err)
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if err := migrations.Up(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	if _, err := pool.Exec(ctx, "checkpoint"); err != nil {
		pool.Close()
		return nil, fmt.Errorf("making a checkpoint: %w", err)
	}
	drop := func() {
		pool.Close()
		b.dropDatabase(name)
	}
	return &database{pool: pool, url: url, drop: drop}, nil
}

func (b *bench) dropDatabase(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := pgxpool.New(ctx, b.cluster.URL())
	if err != nil {
		return
	}
	defer pool.Close()
	// A leftover database goes with the cluster.
	_, _ = pool.Exec(ctx, "drop database "+name+" with (force)")
}
