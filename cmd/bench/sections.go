package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/pgdev"
)

// startCluster starts a Postgres as a package installs it: its default settings, fsync on, and room for connections; and
// settings that a section needs besides.
func startCluster(ctx context.Context, besides map[string]string) (*pgdev.Cluster, error) {
	settings := map[string]string{"max_connections": "300"}
	maps.Copy(settings, besides)
	cluster, err := pgdev.Open(ctx, pgdev.Config{
		Settings: settings,
		Log:      func(message string) { fmt.Fprintln(os.Stderr, message) },
	})
	if err != nil {
		return nil, fmt.Errorf("starting Postgres: %w", err)
	}
	return cluster, nil
}

// describe prints what the figures were measured on.
func (b *bench) describe(ctx context.Context, w io.Writer) error {
	conn, err := pgx.Connect(ctx, b.cluster.URL())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "select current_setting('server_version')").Scan(&version); err != nil {
		return fmt.Errorf("asking for Postgres's version: %w", err)
	}
	processor := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(text), "model name\t: "); found {
			processor, _, _ = strings.Cut(after, "\n")
		}
	}
	fmt.Fprintf(w, "%d cores (%s), %s/%s, %s, Postgres %s with its default settings, fsync on, over a Unix socket.\n",
		runtime.NumCPU(), processor, runtime.GOOS, runtime.GOARCH, runtime.Version(), version)
	fmt.Fprintf(w, "Load and server share the cores. Medians of %d runs of %s.\n", b.config.Runs, b.config.Duration)
	return nil
}

// many is a number of things, in words.
func many(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// baselineClients are the client counts among which the baseline's best rate, P, is looked for.
var baselineClients = []int{1, 8, 32, 128}

func (b *bench) baselineCases() []benchCase {
	var cases []benchCase
	for _, n := range baselineClients {
		cases = append(cases, benchCase{name: "pgbench insert, " + many(n, "client"), run: b.pgbench(n)})
	}
	return cases
}

func (b *bench) appendSection(ctx context.Context) error {
	cases := b.baselineCases()
	targets := map[int]float64{1: 0.65, 32: 1.3, 128: 2.2, 512: 2.8}
	for _, n := range []int{1, 8, 32, 128, 512} {
		base := "P"
		if n == 1 {
			base = "pgbench insert, 1 client"
		}
		cases = append(cases, benchCase{
			name: "Append one event, " + many(n, "caller"), run: b.append(n, 1, false), target: targets[n], base: base,
		})
	}
	for _, n := range []int{1, 8, 32, 128, 512} {
		target := 0.0
		if n == 128 {
			target = 4
		}
		cases = append(cases, benchCase{
			name: "Append five events, " + many(n, "caller"), run: b.append(n, 5, false), target: target, base: "P",
		})
	}
	for _, n := range []int{1, 32, 128} {
		cases = append(cases, benchCase{
			name: "Append one event with a command id, " + many(n, "caller"), run: b.append(n, 1, true), base: "P",
		})
	}
	return b.report(ctx, "Append", "events/s", cases)
}

func (b *bench) commandSection(ctx context.Context) error {
	cases := b.baselineCases()
	for _, hot := range []bool{true, false} {
		for _, n := range []int{1, 32, 128} {
			name := "command, state in memory, " + many(n, "caller")
			if !hot {
				name = "command, state read each time, " + many(n, "caller")
			}
			cases = append(cases, benchCase{name: name, run: b.command(n, hot), base: "P"})
		}
	}
	return b.report(ctx, "Commands (load, decide, append)", "commands/s", cases)
}

// report runs the cases and prints them with their ratios to their bases.
func (b *bench) report(ctx context.Context, title, unit string, cases []benchCase) error {
	medians, err := b.runCases(ctx, cases)
	if err != nil {
		return err
	}
	best := sample{}
	for _, c := range b.baselineCases() {
		if m := medians[c.name]; m.rate > best.rate {
			best = m
		}
	}
	rows := make([]row, len(cases))
	for i, c := range cases {
		rows[i] = row{name: c.name, result: medians[c.name], base: c.base, target: c.note}
		if c.target > 0 {
			rows[i].target = fmt.Sprintf("%.2f", c.target)
		}
		switch base := medians[c.base]; {
		case c.base == "P" && best.rate > 0:
			rows[i].ratio = rows[i].result.rate / best.rate
		case base.rate > 0:
			rows[i].ratio = rows[i].result.rate / base.rate
		default:
			rows[i].base = ""
		}
	}
	printTable(os.Stdout, title, unit, rows)
	return nil
}
