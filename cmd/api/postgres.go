package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/headrace/headrace/internal/pgdev"
)

type postgresCommand struct {
	Install postgresInstall `cmd:"" help:"Install Postgres through the package manager when none is found and this user may."`
	Reset   postgresReset   `cmd:"" help:"Drop the private Postgres of this checkout with all its data."`
}

type postgresInstall struct{}

func (postgresInstall) Run(ctx context.Context) error {
	return pgdev.InstallServer(ctx, os.Stderr)
}

type postgresReset struct{}

func (postgresReset) Run(ctx context.Context, out output) error {
	dir, err := privateDir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		_, err := fmt.Fprintln(out, "there is no private Postgres for this checkout")
		return err
	}
	if err := pgdev.Drop(ctx, dir); err != nil {
		return err
	}
	slog.Info("the private Postgres of this checkout is gone; the next start makes a new one", "folder", dir)
	return nil
}
