package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
)

const (
	// metricsEvery is how often the database is read for scrapes at most, however many come.
	metricsEvery = 2 * time.Second
	// metricsTimeout bounds that reading, so that a scrape is answered also when the database is not there.
	metricsTimeout = 2 * time.Second
)

// listenForMetrics opens the address of the metrics, nil when they have none of their own.
func (c *Config) listenForMetrics(ctx context.Context) (net.Listener, error) {
	if c.MetricsListen == "" {
		return nil, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.MetricsListen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &exitError{exitAddressTaken, fmt.Errorf("another program listens on %s: give another METRICS_ADDR (--metrics)", c.MetricsListen)}
	case err != nil:
		return nil, &exitError{exitUsage, fmt.Errorf("METRICS_ADDR (--metrics): %w", err)}
	}
	return listener, nil
}

// serveMetrics serves them on an address of their own from start to end, also while the server drains.
func (a *app) serveMetrics(listener net.Listener) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metrics())
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	a.work("metrics", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		return server.Serve(listener)
	})
}

// metrics answers scrapes, from a registry of its own.
func (a *app) metrics() http.Handler { return metricsOf(&collector{app: a, pool: a.pool}) }

func metricsOf(c *collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), c,
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(c.app.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	})
}

// collector reads what there is to measure at each scrape.
type collector struct {
	app  *app
	pool *pgxpool.Pool // the app's

	mu     sync.Mutex
	readAt time.Time // when the database was read, or was tried to be
	found  found
	err    error
}

// found is what the database tells.
type found struct {
	lags    []queries.Lag
	backlog outbox.Backlog
	behind  map[*worker]queries.Behind // of relays within the process
}

// metric is the description of one metric.
func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("headrace_"+name, help, labels, nil)
}

// Describe describes nothing: what there is differs from database to database.
func (*collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads everything.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := samples{out}
	c.process(s)
	for _, w := range c.app.workers {
		running, followers := w.followers()
		s.gauge(metric("part_running", "Whether a part of the server runs.", "part"), boolean(running), w.name)
		for _, status := range followers {
			name, shard := status.Name, strconv.Itoa(status.Shard)
			if name == "" {
				name = w.name // a relay within the process, which has no checkpoint
			}
			s.gauge(metric("follower_owner", "Whether this process works on the checkpoint.", "checkpoint", "shard"), boolean(status.Owner), name, shard)
			s.gauge(metric("follower_position", "Up to where the log is taken, or published, as this process knows.", "checkpoint", "shard"),
				float64(status.Position), name, shard)
			s.counter(metric("follower_events_total", "Events that this process handed over, or published.", "checkpoint", "shard"),
				float64(status.Events), name, shard)
		}
	}
	s.pool("main", c.app.pool)
	s.pool("reads", c.app.reads)
	now, err := c.read()
	s.gauge(metric("database_up", "Whether the database could be read for this scrape."), boolean(err == nil))
	if err != nil {
		return
	}
	s.lags(now.lags)
	for w, behind := range now.behind {
		s.gauge(metric("follower_events_behind", "Events of the log that a relay without a checkpoint has not published.", "checkpoint", "shard"),
			float64(behind.Events), w.name, "0")
		s.gauge(metric("follower_seconds_behind", "Age of the oldest of them.", "checkpoint", "shard"),
			float64(behind.Milliseconds)/1000, w.name, "0")
	}
	s.queue("outbox", now.backlog.Outbox)
	s.queue("inbox", now.backlog.Inbox)
}

// process tells what this process does without asking anybody.
func (c *collector) process(s samples) {
	stats := c.app.store.Stats()
	s.counter(metric("append_batches_total", "Transactions that judged appends."), float64(stats.Batches))
	s.counter(metric("append_events_total", "Events that this process wrote."), float64(stats.Events))
	s.counter(metric("append_conflicts_total", "Appends refused since a stream was not at the expected version."), float64(stats.Conflicts))
	s.gauge(metric("append_queue_requests", "Appends that wait for a batch."), float64(stats.Queued))
	s.gauge(metric("streams_open", "WebSockets and event streams that are open."), float64(c.app.graph.Streams()))
	s.gauge(metric("log_subscribers", "Subscriptions that follow the log."), float64(c.app.tail.Subscribers()))
	fleet := c.app.node.Status()
	s.gauge(metric("other_processes", "Other processes on this database that are alive."), float64(fleet.Others))
	s.gauge(metric("hints_arrive", "Whether other processes' hints of commits arrive; else the log is polled."), boolean(fleet.Hears))
	s.gauge(metric("draining", "Whether the server is shutting down."), boolean(c.app.draining.Load()))
}

// read reads the database unless that was done just now. Scrapes that come meanwhile wait for it and share it.
func (c *collector) read() (found, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.readAt.IsZero() && time.Since(c.readAt) < metricsEvery {
		return c.found, c.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), metricsTimeout)
	defer cancel()
	if c.found, c.err = c.find(ctx); c.err != nil {
		c.app.log.Warn("the database could not be read for metrics", "error", c.err)
	}
	c.readAt = time.Now()
	return c.found, c.err
}

func (c *collector) find(ctx context.Context) (now found, err error) {
	if now.lags, err = queries.ReadLags(ctx, c.pool); err != nil {
		return now, err
	}
	if now.backlog, err = outbox.ReadBacklog(ctx, c.pool); err != nil {
		return now, err
	}
	now.behind = map[*worker]queries.Behind{}
	for _, w := range c.app.workers {
		_, followers := w.followers()
		for _, status := range followers {
			if status.Name != "" || !status.Owner {
				continue // it has a checkpoint, or does not know yet where it is
			}
			if now.behind[w], err = queries.ReadBehind(ctx, c.pool, status.Position); err != nil {
				return now, err
			}
		}
	}
	return now, nil
}

// samples are what a scrape is answered with.
type samples struct{ out chan<- prometheus.Metric }

func (s samples) gauge(of *prometheus.Desc, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, value, labels...)
}

func (s samples) counter(of *prometheus.Desc, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(of, prometheus.CounterValue, value, labels...)
}

func boolean(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// lags tells how far each checkpoint is behind, by the database. Of its states it has the one that it is in.
func (s samples) lags(lags []queries.Lag) {
	if len(lags) > 0 {
		s.gauge(metric("log_position", "Position of the newest event of the log."), float64(lags[0].Head))
	}
	labels := []string{"checkpoint", "shard", "kind"}
	for _, lag := range lags {
		of := []string{lag.Name, strconv.Itoa(lag.Shard), strings.ToLower(string(lag.Kind))}
		s.gauge(metric("checkpoint_position", "Up to where the log is taken.", labels...), float64(lag.Position), of...)
		s.gauge(metric("checkpoint_events_behind", "Events of the log that are not taken.", labels...), float64(lag.EventsBehind), of...)
		s.gauge(metric("checkpoint_seconds_behind", "Age of the oldest event that is not taken.", labels...),
			float64(lag.MillisecondsBehind)/1000, of...)
		s.gauge(metric("checkpoint_parked_streams", "Streams whose events wait for an operator.", labels...), float64(lag.Parked), of...)
		s.gauge(metric("checkpoint_state", "1 for the state that the checkpoint is in.", append(labels, "state")...), 1,
			append(of, strings.ToLower(string(lag.State)))...)
	}
}

// queue tells what waits in a table of messages.
func (s samples) queue(name string, q outbox.Queue) {
	s.gauge(metric("messages_due", "Messages that are due; 100000 stands for that or more.", "queue"), float64(q.Due), name)
	s.gauge(metric("messages_dead", "Messages whose attempts are used up; 100000 stands for that or more.", "queue"), float64(q.Dead), name)
	s.gauge(metric("messages_oldest_seconds", "For how long the first of those that are due has been due.", "queue"), q.Oldest.Seconds(), name)
}

// pool tells of a pool of connections.
func (s samples) pool(name string, pool *pgxpool.Pool) {
	stat := pool.Stat()
	connections := metric("pool_connections", "Connections to the database, by what they do; max is how many there may be.", "pool", "state")
	s.gauge(connections, float64(stat.AcquiredConns()), name, "used")
	s.gauge(connections, float64(stat.IdleConns()), name, "idle")
	s.gauge(connections, float64(stat.MaxConns()), name, "max")
	s.counter(metric("pool_acquires_total", "Connections that were taken from the pool.", "pool"), float64(stat.AcquireCount()), name)
	s.counter(metric("pool_waits_total", "Those for which there was none at once.", "pool"), float64(stat.EmptyAcquireCount()), name)
	s.counter(metric("pool_wait_seconds_total", "How long those waited together.", "pool"), stat.EmptyAcquireWaitTime().Seconds(), name)
}
