package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// varying is what differs from run to run in what the commands print.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|cart-[0-9a-f-]{36}|[0-9a-f]{8}-[0-9a-f-]{27}`)

// golden compares JSON with a file, times and ids aside. UPDATE_GOLDEN=1 writes the file anew.
func golden(t *testing.T, name, got string) {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(got), &value); err != nil {
		t.Fatalf("%s: %v: %s", name, err, got)
	}
	pretty, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text := varying.ReplaceAllString(string(pretty), "VARIES") + "\n"
	text = regexp.MustCompile(`"owner": ".*"`).ReplaceAllString(text, `"owner": "VARIES"`)
	path := filepath.Join("testdata", "parked", name+".json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path) //nolint:gosec // a file of this test
	if err != nil || string(want) != text {
		t.Fatalf("%s prints %s\nwant %s, %v", name, text, want, err)
	}
}

func TestParkedCommands(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	parked := func(wantCode int, args ...string) (stdout, stderr string) {
		t.Helper()
		args = append(append([]string{"parked"}, args...), "--database-url", database)
		if args[1] == "retry" || args[1] == "skip" {
			args = append(args, "--wait", patience.String())
		}
		code, stdout, stderr := command(t, args...)
		if code != wantCode {
			t.Fatalf("%s: exit %d: %s %s", args, code, stdout, stderr)
		}
		return stdout, stderr
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, Config{})
	cart := s.open(t)
	s.add(t, cart, 1)
	out, _ := parked(exitDone, "list", "--json")
	if strings.TrimSpace(out) != "[]" {
		t.Fatalf("nothing is parked: %s", out)
	}
	exec(`alter table cart_v1 add constraint curse check (version < 3)`)
	s.add(t, cart, 1)
	s.add(t, cart, 1)
	until(t, "the stream to be parked", func() bool {
		p, found, err := outbox.FindParked(t.Context(), pool, "cart_v1", cart)
		return err == nil && found && p.Waiting == 2
	})
	out, _ = parked(exitDone, "list", "--json")
	golden(t, "list", out)
	out, _ = parked(exitDone, "list")
	if !strings.Contains(out, cart) || !strings.Contains(out, "curse") {
		t.Fatalf("list prints %s", out)
	}
	if code, _, stderr := command(t, "status", "--database-url", database); code != exitFailed || !strings.Contains(stderr, "cart_v1: 1 parked") {
		t.Fatalf("status: exit %d: %s", code, stderr)
	}
	out, _ = parked(exitDone, "show", "cart", cart, "--data", "20", "--json")
	golden(t, "show", out)
	out, _ = parked(exitDone, "show", "cart_v1", cart)
	if !strings.Contains(out, "2 events wait up to position 4") || !strings.Contains(out, "cart.item_added") {
		t.Fatalf("show prints %s", out)
	}

	out, _ = parked(exitFailed, "retry", "cart", "--json")
	golden(t, "retry-in-vain", out)
	parked(exitUsage, "retry")
	parked(exitUsage, "retry", "cart", "cart-none")
	for _, args := range [][]string{
		{"retry", "karts"}, {"list", "karts"}, {"skipped", "karts"}, {"show", "karts", cart}, {"list", "--limit", "0"}, {"skipped", "--limit=-1"},
	} {
		parked(exitUsage, args...)
	}
	parked(exitUsage, "skip", "cart", cart)
	parked(exitUsage, "skip", "cart", cart, "--reason", " ")
	out, _ = parked(exitDone, "skip", "cart", cart, "--reason", "nobody misses it", "--by", "ada", "--json")
	golden(t, "skip", out)
	out, _ = parked(exitDone, "skipped", "--json")
	golden(t, "skipped", out)
	exec(`alter table cart_v1 drop constraint curse`)
	out, _ = parked(exitDone, "retry", "--all", "--json")
	golden(t, "retry", out)
	if out, _ = parked(exitDone, "list", "cart"); strings.Contains(out, cart) {
		t.Fatalf("list prints %s", out)
	}
}

// What is asked while nobody works on the checkpoint is done by the one who does next.
func TestRetryWithoutAnOwner(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	s := startServer(t, Config{})
	cart := s.open(t)
	if _, err := pool.Exec(t.Context(), `alter table cart_v1 add constraint curse check (version < 2)`); err != nil {
		t.Fatal(err)
	}
	s.add(t, cart, 1)
	isParked := func() bool {
		_, found, err := outbox.FindParked(context.WithoutCancel(t.Context()), pool, "cart_v1", cart)
		return err != nil || found
	}
	until(t, "the stream to be parked", isParked)
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	code, stdout, _ := command(t, "parked", "retry", "cart", cart, "--wait", "1ms", "--database-url", database)
	if code != exitFailed || !strings.Contains(stdout, "nobody works on cart_v1") {
		t.Fatalf("exit %d: %s", code, stdout)
	}
	for _, which := range []string{"cart", "--all"} {
		code, _, stderr := command(t, "parked", "retry", which, "--database-url", database)
		if code != exitBusy || !strings.Contains(stderr, "1 streams were asked for before") {
			t.Fatalf("retry %s: exit %d: %s", which, code, stderr)
		}
	}
	code, _, stderr := command(t, "parked", "skip", "cart", cart, "--reason", "x", "--database-url", database)
	if code != exitBusy || !strings.Contains(stderr, "asked for already") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if _, err := pool.Exec(t.Context(), `alter table cart_v1 drop constraint curse`); err != nil {
		t.Fatal(err)
	}
	startServer(t, Config{})
	until(t, "the next owner to do it", func() bool { return !isParked() })
}

// What waits of a table that was replaced concerns nobody who reads, and has no owner until a rollback.
func TestParkedStreamsOfAKeptTable(t *testing.T) {
	t.Parallel()
	shop(t, 5)
	execute(t, `insert into parked_streams (checkpoint, stream, position, event_id, type, types, reason)
			select 'cart_v1_2', stream, position, id, type, '{}', 'curse' from events where position = 9;
		update checkpoints set parked = 1, lease_owner = 'one that died', lease_until = now() - interval '1 second' where name = 'cart_v1_2'`)
	run := func(wantCode int, args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := command(t, append(args, "--database-url", pgtest.URL(t))...)
		if code != wantCode {
			t.Fatalf("%s: exit %d: %s %s", args, code, stdout, stderr)
		}
		return stdout, stderr
	}
	if out, _ := run(exitDone, "parked", "list", "--json"); !strings.Contains(out, `"owner":""`) {
		t.Errorf("a dead process owns it: %s", out)
	}
	if _, problems := run(exitFailed, "status"); !strings.Contains(problems, "cart_v1_2: 1 parked") {
		t.Errorf("status does not say it: %s", problems)
	}
	if code, _, stderr := projections(t, "rebuild", "cart", "--switch"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if _, problems := run(exitFailed, "status"); strings.Contains(problems, "parked") { // it fails since no server runs
		t.Errorf("status still says it: %s", problems)
	}
	if out, _ := run(exitDone, "parked", "retry", "--all"); !strings.Contains(out, "nothing is parked") {
		t.Errorf("it is asked for: %s", out)
	}
	if out, _ := run(exitFailed, "parked", "retry", "cart_v1_2", "--wait", "1ms"); !strings.Contains(out, "nobody works on cart_v1_2") {
		t.Errorf("somebody is said to own it: %s", out)
	}
}
