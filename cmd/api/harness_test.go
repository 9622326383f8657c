package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/pgtest"
)

// patience bounds all waiting in these tests. It is far more than anything takes on a busy machine with a slow disk: only
// what never comes is waited for as long.
const patience = 2 * time.Minute

// longestWait is the longest that a request may ask a read to wait for its view. The usual two seconds are less than a busy
// machine may stand still.
const longestWait = "30s"

// server is the whole composition on a port of its own and a database of the test's own.
type server struct {
	url     string
	metrics string // where they are, if they have an address of their own
	app     *app
	stop    context.CancelFunc
	done    chan struct{} // closed when it has ended, with err
	err     error
}

func startServer(t *testing.T, config Config) *server {
	t.Helper()
	config.Environment = or(config.Environment, production)
	config.Mode = or(config.Mode, authOff)
	if config.DrainTimeout == 0 {
		config.DrainTimeout = patience
	}
	if config.LeaseTTL == 0 {
		config.LeaseTTL = 10 * time.Second
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	a, err := wire(ctx, &config, newProjections, pgtest.Pool(t), "", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{url: "http://" + listener.Addr().String(), app: a, stop: stop, done: make(chan struct{})}
	metrics, err := config.listenForMetrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if metrics != nil {
		s.metrics = "http://" + metrics.Addr().String()
		a.serveMetrics(metrics)
	}
	go func() {
		defer close(s.done)
		s.err = a.run(ctx, listener)
	}()
	t.Cleanup(func() { _ = s.end() })
	return s
}

// end stops the server, waits for it, and tells how it ended. It may be called again.
func (s *server) end() error {
	s.stop()
	<-s.done
	return s.err
}

// get returns the status and the body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// ask sends a document and decodes data into out. It reports what the server said when that held errors.
func (s *server) ask(t *testing.T, document string, variables map[string]any, out any) {
	t.Helper()
	if problem := post(t.Context(), s.url, document, variables, out); problem != "" {
		t.Fatal(problem)
	}
}

func post(ctx context.Context, url, document string, variables map[string]any, out any) (problem string) {
	body, err := json.Marshal(map[string]any{"query": document, "variables": variables})
	if err != nil {
		return err.Error()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/graphql", bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Headrace-Within", longestWait)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	var envelope struct {
		Data   json.RawMessage
		Errors json.RawMessage
	}
	if err := json.Unmarshal(answer, &envelope); err != nil || envelope.Errors != nil {
		return response.Status + ": " + string(answer)
	}
	if err := json.Unmarshal(envelope.Data, out); err != nil {
		return err.Error() + ": " + string(answer)
	}
	return ""
}

// until asks again and again until f is content, each time after what it returns may have changed.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}
