package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The baseline's table has the columns and the two indexes of the log, and none of its guarantees: no expected version,
// no dense order, no receipt.
const createBaselineSQL = `
create table baseline (like events including all);
create sequence baseline_position;
checkpoint`

const insertBaselineSQL = `insert into baseline
(position, version, recorded_at, id, stream, type, schema_version, data, metadata)
values (nextval('baseline_position'), 1, now(), gen_random_uuid(), 'bench-' || gen_random_uuid(), 'bench.happened', 1,
:data::jsonb, :metadata::jsonb);
`

// pgbench measures single-row inserts by Postgres's own load generator, prepared, over the same socket.
func (b *bench) pgbench(clients int) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		if _, err := db.pool.Exec(ctx, createBaselineSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
			return sample{}, fmt.Errorf("making the baseline's table: %w", err)
		}
		return b.runPgbench(ctx, db.url, clients)
	}
}

func (b *bench) runPgbench(ctx context.Context, url string, clients int) (sample, error) {
	dir, err := os.MkdirTemp("", "headrace-bench")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "insert.sql")
	if err := os.WriteFile(script, []byte(insertBaselineSQL), 0o600); err != nil {
		return sample{}, err
	}
	cmd := exec.CommandContext(ctx, b.pgbenchPath, "--no-vacuum", "--protocol=prepared", "--file="+script,
		"--client="+strconv.Itoa(clients), "--jobs="+strconv.Itoa(min(clients, 2)), "--log",
		"--time="+strconv.Itoa(max(1, int(b.config.Duration/time.Second))),
		"--define=data="+string(benchData), "--define=metadata="+string(benchMetadata), url)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("pgbench: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return readPgbench(dir, out)
}

var tps = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// readPgbench takes the rate from pgbench's summary and the latencies from its transaction logs, whose third column is
// microseconds.
func readPgbench(dir string, summary []byte) (sample, error) {
	found := tps.FindSubmatch(summary)
	if found == nil {
		return sample{}, fmt.Errorf("pgbench printed no rate: %s", summary)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return sample{}, fmt.Errorf("pgbench's rate: %w", err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "pgbench_log.*"))
	if err != nil {
		return sample{}, err
	}
	var latencies []time.Duration
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			return sample{}, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 3 {
				continue
			}
			us, err := strconv.Atoi(fields[2])
			if err != nil {
				return sample{}, fmt.Errorf("pgbench's log: %w", err)
			}
			latencies = append(latencies, time.Duration(us)*time.Microsecond)
		}
	}
	s := summarise(latencies, 1, time.Second)
	s.rate = rate
	return s, nil
}
