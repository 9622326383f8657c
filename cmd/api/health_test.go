package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// A relay that halts delivers nothing to anybody: /readyz names it.
func TestReadyzNamesAHaltedRelay(t *testing.T) {
	t.Parallel()
	pool, log := pgtest.Pool(t), slog.New(slog.DiscardHandler)
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), pool, registry, eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pool.Exec(t.Context(), `insert into checkpoints (name, position, event_id, log_id) values ('relay_x', 7, gen_random_uuid(), gen_random_uuid())`)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{config: &Config{}, log: log, pool: pool, store: store}
	for _, name := range []string{"relay", "another process's relay", "public"} {
		w := a.relay(name, outbox.NewRelay(store, outbox.NewLocal(outbox.LocalConfig{}), outbox.RelayConfig{Pool: pool, Name: "relay_x", Logger: log}))
		w.aside = name == "public" // for other programs: no reason to send requests elsewhere
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	defer cancel()
	done := make(chan struct{}, len(a.workers))
	for _, w := range a.workers {
		go func() { w.start(ctx, log); done <- struct{}{} }()
	}
	until(t, "both to say that the relay is halted", func() bool {
		state := a.readiness(t.Context())
		problems := strings.Join(state.Problems, "\n")
		if strings.Contains(problems, "public") {
			t.Fatalf("the server is not ready for want of public events: %s", problems)
		}
		return strings.Count(problems, "relay: halted at position 7") == 2 && state.Parts["public"] == "halted at position 7"
	})
	cancel()
	for range a.workers {
		<-done
	}
	if err := store.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// Anybody may ask /readyz: reasons hold data of events, and who paused is a user and a host.
func TestReadyzTellsNobodyWhyAndWho(t *testing.T) {
	t.Parallel()
	for _, status := range []outbox.Status{
		{Position: 7, HaltedAt: time.Now(), HaltReason: "secret"},
		{Position: 7, PausedAt: time.Now(), PausedBy: "secret"},
		{Position: 7, Running: true, LastError: "secret"},
		{Position: 7, Running: true, Owner: true, LastError: "secret", HaltReason: "secret", PausedBy: "secret"},
	} {
		if what, _ := doing(status); strings.Contains(what, "secret") || !strings.Contains(what, "at position 7") {
			t.Errorf("%+v: %s", status, what)
		}
	}
}
