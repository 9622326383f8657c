package natsjs_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/headrace/headrace/internal/outbox/natsjs"
)

func open(t testing.TB, cfg natsjs.Config) *natsjs.Broker {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	b, err := natsjs.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}
