package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/headrace/headrace/internal/pgtest"
)

// onTerminal runs a command of the program with its standard error on a terminal, and returns all that was written there.
func onTerminal(t *testing.T, args ...string) string {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), asProgram+"=1"), tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	shown, err := io.ReadAll(terminal)
	if err != nil && !errors.Is(err, syscall.EIO) { // which is how a terminal ends on Linux
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, shown)
	}
	return string(shown)
}

// left is what is to be seen on each line of a terminal after everything was written.
func left(shown string) (lines []string) {
	for line := range strings.SplitSeq(shown, "\n") {
		var cells []rune
		at := 0
		for _, r := range line {
			switch {
			case r == '\r':
				at = 0
			case at < len(cells):
				cells[at] = r
				at++
			default:
				cells = append(cells, r)
				at++
			}
		}
		lines = append(lines, strings.TrimRight(string(cells), " "))
	}
	return lines
}

// People see a bar, of which nothing is left at the end, and programs lines.
func TestARebuildDrawsABarOnATerminalAlone(t *testing.T) {
	t.Parallel()
	shop(t, 500)
	args := []string{"projections", "rebuild", "cart", "--batch", "100", "--database-url", pgtest.URL(t)}
	shown := onTerminal(t, args...)
	if !strings.Contains(shown, "cart_v1_3 fill") || !strings.Contains(shown, "% |") {
		t.Errorf("there is no bar in %q", shown)
	}
	lines := left(shown)
	for _, line := range lines {
		if strings.ContainsAny(line, "|\x1b") {
			t.Errorf("of the bar this is left: %q", line)
		}
	}
	if lines[len(lines)-1] != "" || !strings.Contains(shown, "cart_v1_3: index, ") {
		t.Errorf("it ends with %q", lines)
	}
	cmd, _, stderr := start(t, args...)
	err := cmd.Wait()
	if said := stderr.String(); err != nil || !strings.Contains(said, "cart_v1_4: fill, position ") || strings.ContainsAny(said, "|\r\x1b") {
		t.Errorf("without a terminal it writes %q, %v", said, err)
	}
}
