package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// Everything that an operator needs is there, on the address that was given for it and on no other.
func TestMetricsOnAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{MetricsListen: "127.0.0.1:0"})
	s.open(t)
	var body string
	until(t, "the view to be at the head, as far as metrics tell", func() bool {
		_, body = get(t, s.metrics+"/metrics")
		// What the database has, and what the process notes of itself just after.
		return strings.Contains(body, `headrace_checkpoint_position{checkpoint="cart_v1",kind="view",shard="0"} 1`) &&
			strings.Contains(body, `headrace_follower_events_total{checkpoint="cart_v1",shard="0"} 1`) &&
			strings.Contains(body, `headrace_follower_position{checkpoint="relay",shard="0"} 1`) &&
			strings.Contains(body, `headrace_follower_events_behind{checkpoint="relay",shard="0"} 0`)
	})
	for _, want := range []string{
		`headrace_checkpoint_events_behind{checkpoint="cart_v1",kind="view",shard="0"} 0`,
		`headrace_checkpoint_seconds_behind{checkpoint="cart_v1",kind="view",shard="0"} 0`,
		`headrace_checkpoint_state{checkpoint="cart_v1",kind="view",shard="0",state="working"} 1`,
		`headrace_checkpoint_parked_streams{checkpoint="cart_v1",kind="view",shard="0"} 0`,
		`headrace_follower_owner{checkpoint="cart_v1",shard="0"} 1`,
		`headrace_follower_events_total{checkpoint="cart_v1",shard="0"} 1`,
		`headrace_follower_position{checkpoint="relay",shard="0"} 1`,
		`headrace_part_running{part="projection cart"} 1`,
		`headrace_log_position 1`,
		`headrace_append_batches_total 1`,
		`headrace_append_events_total 1`,
		`headrace_append_conflicts_total 0`,
		`headrace_append_queue_requests 0`,
		`headrace_messages_due{queue="outbox"} 0`,
		`headrace_messages_dead{queue="inbox"} 0`,
		`headrace_messages_oldest_seconds{queue="outbox"} 0`,
		`headrace_streams_open 0`,
		`headrace_log_subscribers 0`,
		`headrace_database_up 1`,
		`headrace_other_processes 0`,
		`headrace_hints_arrive `,
		`headrace_follower_events_behind{checkpoint="relay",shard="0"} 0`,
		`headrace_follower_seconds_behind{checkpoint="relay",shard="0"} 0`,
		`headrace_pool_connections{pool="reads",state="max"}`,
		`go_goroutines`,
		`process_open_fds`,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("there is no %s", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("names and types are not as Prometheus has them: %v, %v", problems, err)
	}
	if code, _ := get(t, s.url+"/metrics"); code != http.StatusNotFound {
		t.Errorf("the address of everything else answers %d", code)
	}
}

// Of four events, of an hour ago, a paused checkpoint has one, and a relay whose broker takes nothing has none.
func TestMetricsTellHowFarBehind(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	broken := outbox.NewLocal(outbox.LocalConfig{})
	if err := broken.Close(); err != nil {
		t.Fatal(err)
	}
	a := &app{
		config: s.app.config, log: s.app.log, pool: s.app.pool, reads: s.app.reads, store: s.app.store, graph: s.app.graph, tail: s.app.tail,
		node: s.app.node,
	}
	w := a.relay("relay", outbox.NewRelay(s.app.store, broken, outbox.RelayConfig{Logger: s.app.log}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.start(ctx, s.app.log); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	until(t, "the relay to be at the head", func() bool { _, states := w.followers(); return len(states) == 1 && states[0].Owner })

	cart := s.open(t)
	for range 3 {
		s.add(t, cart, 1)
	}
	execute(t, `alter table events disable trigger all; update events set recorded_at = now() - interval '1 hour';
		insert into checkpoints (name, position, paused_at, paused_by) values ('wishes', 1, now(), 'ada')`)
	body := scrape(t, a.metrics())
	for _, want := range []string{
		`checkpoint_position{checkpoint="wishes",kind="policy",shard="0"} 1`,
		`checkpoint_events_behind{checkpoint="wishes",kind="policy",shard="0"} 3`,
		`checkpoint_seconds_behind{checkpoint="wishes",kind="policy",shard="0"} 3[67]\d\d(\.\d+)?`,
		`checkpoint_state{checkpoint="wishes",kind="policy",shard="0",state="paused"} 1`,
		`follower_events_behind{checkpoint="relay",shard="0"} 4`,
		`follower_seconds_behind{checkpoint="relay",shard="0"} 3[67]\d\d(\.\d+)?`,
	} {
		if !regexp.MustCompile(`(?m)^headrace_` + strings.ReplaceAll(want, "{", "[{]") + "$").MatchString(body) {
			t.Errorf("there is no %s in %s", want, body)
		}
	}
}

// scrape asks again and again until the database could be read in the time that a scrape has for it.
func scrape(t *testing.T, metrics http.Handler) (body string) {
	t.Helper()
	until(t, "a scrape with what the database tells", func() bool {
		answer := httptest.NewRecorder()
		metrics.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		body = answer.Body.String()
		return answer.Code == http.StatusOK && strings.Contains(body, "\nheadrace_database_up 1")
	})
	return body
}

func TestMetricsInDevelopment(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	if code, _ := get(t, s.url+"/metrics"); code != http.StatusNotFound {
		t.Errorf("in production it answers %d", code)
	}
	a := &app{
		config: &Config{Database: Database{Environment: development}}, log: s.app.log,
		pool: s.app.pool, reads: s.app.reads, store: s.app.store, graph: s.app.graph, tail: s.app.tail, node: s.app.node,
	}
	scrape(t, a.handler())
}

// However many scrapes come, the database is read once in a while, and a database that is away leaves what the process
// itself knows.
func TestScrapesDoNotLoadTheDatabase(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	exec := func(sql string) {
		if _, err := s.app.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	c := &collector{app: s.app, pool: s.app.pool}
	has := func() bool {
		now, err := c.read()
		if err != nil {
			return false // a busy machine may take too long; that is asked for again
		}
		for _, lag := range now.lags {
			if lag.Name == "wishes" {
				return true
			}
		}
		return false
	}
	c.readAt, c.found = time.Now().Add(time.Hour), found{} // read from now on, as the clock has it
	exec(`insert into checkpoints (name) values ('wishes')`)
	if has() {
		t.Error("the database was read for each scrape")
	}
	until(t, "it to be read again when it is time", func() bool {
		c.readAt = time.Now().Add(-metricsEvery)
		return has()
	})
	closed, err := pgxpool.New(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c.pool, c.readAt = closed, time.Time{}
	answer := httptest.NewRecorder()
	metricsOf(c).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	body := answer.Body.String()
	if answer.Code != http.StatusOK || !strings.Contains(body, "headrace_database_up 0") ||
		!strings.Contains(body, "headrace_append_events_total") || strings.Contains(body, "headrace_checkpoint") {
		t.Errorf("without a database it answers %d: %s", answer.Code, body)
	}
}
