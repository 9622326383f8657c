// Command gotest runs `go test -race` for all packages against one throwaway Postgres, which it starts before and stops
// after, and installs what is missing for that where it may: Postgres, PgBouncer, and the C compiler that the race
// detector needs.
// Arguments are handed to go test in the place of ./... . It prints what go test prints and ends with its exit code.
// With PGTEST_URL set it uses that server and starts none.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/headrace/headrace/internal/pgdev"
	"github.com/headrace/headrace/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(1, exit.ExitCode())) // go test has said why
	case err != nil:
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if err := needCompiler(ctx); err != nil {
		return err
	}
	if err := pgtest.InstallPooler(ctx, os.Stderr); err != nil {
		return err
	}
	environment := append(os.Environ(), "CGO_ENABLED=1")
	if os.Getenv("PGTEST_URL") == "" {
		if err := pgdev.InstallServer(ctx, os.Stderr); err != nil {
			return err
		}
		server, err := pgtest.StartServer(ctx, func(message string) { fmt.Fprintln(os.Stderr, "gotest:", message) })
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		environment = append(environment, "PGTEST_URL="+server.URL())
	}
	if len(args) == 0 {
		args = []string{"./..."}
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-race"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environment, os.Stdout, os.Stderr
	// Ctrl-C reaches go test too: it ends its tests by itself, and this waits for it.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd.Run()
}

// needCompiler installs the compiler that go would call when it is missing.
func needCompiler(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("asking go for its C compiler: %w", err)
	}
	compiler, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if _, err := exec.LookPath(compiler); err == nil {
		return nil
	}
	err = pgdev.Install(ctx, os.Stderr, pgdev.Packages{
		Apt: []string{"gcc", "libc6-dev"},
		Dnf: []string{"gcc", "glibc-devel"},
		Apk: []string{"build-base"},
	})
	if err != nil {
		return fmt.Errorf("the race detector needs a C compiler, and %s is not on PATH: install it "+
			"(apt-get install gcc libc6-dev, or xcode-select --install), or name another in CC: %w", compiler, err)
	}
	return nil
}
