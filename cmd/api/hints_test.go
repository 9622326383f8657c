package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/headrace/headrace/internal/pgtest"
)

// Behind a pooler in transaction mode nobody hears others but by DATABASE_DIRECT_URL, over a connection for each process.
func TestHintsGoAroundAPoolerByTheDirectURL(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	pooler := pgtest.StartPooler(t, pgtest.URL(t), 4)
	direct := pgtest.URL(t) + "&application_name=direct"
	var programs []*program
	for range 2 {
		programs = append(programs, startProgram(t, pooler.URL, "DATABASE_DIRECT_URL="+direct, "METRICS_ADDR=127.0.0.1:0"))
	}
	until(t, "each process to listen", func() bool {
		var listening int
		err := pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and application_name = 'direct' and query = 'listen headrace'`).Scan(&listening)
		if err != nil {
			t.Fatal(err)
		}
		return listening == 2
	})
	for _, p := range programs {
		until(t, "its hints to arrive", func() bool {
			_, body := get(t, p.metrics)
			return strings.Contains(body, "\nheadrace_hints_arrive 1") && strings.Contains(body, "\nheadrace_other_processes 1")
		})
	}
	for _, p := range programs {
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Errorf("it ended with %v: %s", err, p.log)
		}
	}
}
