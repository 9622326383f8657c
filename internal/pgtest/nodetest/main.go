// Command nodetest runs the tests in clients/, which try the server with the clients that front ends use, against a
// program built from this checkout and one throwaway Postgres. It installs Chromium where it may when there is none, and
// what npm's lock files name. Arguments are handed to node --test in the place of all test files. It prints what node
// prints and ends with its exit code.
//
// Node 20.11 or later has to be there: nothing else of the project needs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/headrace/headrace/internal/pgdev"
	"github.com/headrace/headrace/internal/pgtest"
)

// patience bounds a run: one that hangs should say so before CI's own limit ends it.
const patience = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := run(ctx, os.Args[1:])
	cancel()
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(1, exit.ExitCode())) // the command has said why
	case err != nil:
		fmt.Fprintln(os.Stderr, "nodetest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if err := needNode(ctx); err != nil {
		return err
	}
	chromium, err := needChromium(ctx)
	if err != nil {
		return err
	}
	if err := pgdev.InstallServer(ctx, os.Stderr); err != nil {
		return err
	}
	for _, project := range []string{"clients", "examples/typescript"} {
		if err := installModules(ctx, project); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "clients-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	api := filepath.Join(dir, "api")
	if err := command(ctx, ".", "go", "build", "-o", api, "./cmd/api").Run(); err != nil {
		return err
	}
	postgres, err := pgtest.StartServer(ctx, func(message string) { fmt.Fprintln(os.Stderr, "nodetest:", message) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Close()) }()
	database, err := postgres.Database(ctx, "clients")
	if err != nil {
		return err
	}
	// One file after the other: each starts servers of its own, and they share the database.
	args = append([]string{"--test", "--test-reporter=spec", "--test-concurrency=1", "--test-timeout=180000"}, args...)
	tests := command(ctx, "clients", "node", args...)
	tests.Env = append(os.Environ(), "API="+api, "DATABASE_URL="+database, "CHROMIUM="+chromium)
	return tests.Run()
}

// command shows what it prints. When the context ends the whole family of processes is told.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// needNode fails with what to do when there is no Node that can run the tests.
func needNode(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("the tests with real clients, and they alone, need Node 20.11 or later with npm on PATH; there is none: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "v%d.%d", &major, &minor); err != nil || major < 20 || (major == 20 && minor < 11) {
		return fmt.Errorf("the tests with real clients, and they alone, need Node 20.11 or later; this is %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// needChromium returns the path of a browser: the one that CHROMIUM names, one on PATH, or a newly installed one.
func needChromium(ctx context.Context) (string, error) {
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path, nil
	}
	if path := findChromium(); path != "" {
		return path, nil
	}
	packages := pgdev.Packages{Apt: []string{"chromium"}, Dnf: []string{"chromium"}, Apk: []string{"chromium"}}
	if err := pgdev.Install(ctx, os.Stderr, packages); err != nil {
		return "", fmt.Errorf("the tests of GraphiQL need Chromium: install it, or name a Chrome in CHROMIUM: %w", err)
	}
	if path := findChromium(); path != "" {
		return path, nil
	}
	return "", errors.New("chromium was installed, and is not on PATH: name it in CHROMIUM")
}

func findChromium() string {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// installModules runs npm ci unless what is there is what the lock file names.
func installModules(ctx context.Context, project string) error {
	wanted, err := os.Stat(filepath.Join(project, "package-lock.json"))
	if errors.Is(err, fs.ErrNotExist) { // an own project goes without the example
		return nil
	}
	if err != nil {
		return err
	}
	installed, err := os.Stat(filepath.Join(project, "node_modules", ".package-lock.json"))
	if err == nil && installed.ModTime().After(wanted.ModTime()) {
		return nil
	}
	return command(ctx, project, "npm", "ci", "--no-audit", "--no-fund").Run()
}
