package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/pgtest"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	status := func(wantCode int, wantErr string) (stdout string, parsed standing) {
		t.Helper()
		code, stdout, stderr := command(t, "status", "--database-url", database)
		if code != wantCode || !strings.Contains(stderr, wantErr) {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		again, asJSON, _ := command(t, "status", "--json", "--database-url", database)
		if err := json.Unmarshal([]byte(asJSON), &parsed); err != nil || again != wantCode || parsed.Well != (wantCode == exitDone) {
			t.Fatalf("exit %d: %s, %v", again, asJSON, err)
		}
		return stdout, parsed
	}
	status(exitFailed, "cart_v1 is unowned") // no server ever ran

	s := startServer(t, Config{})
	s.open(t)
	until(t, "all to be owned", func() bool {
		code, _, _ := command(t, "status", "--database-url", database)
		return code == exitDone
	})
	stdout, parsed := status(exitDone, "")
	if len(parsed.Problems) != 0 || !strings.Contains(stdout, "cart_v1") || !strings.Contains(stdout, "outbox: 0 due; 0 dead") {
		t.Fatalf("got %s, %+v", stdout, parsed)
	}

	exec(`insert into outbox (id, available_at, created_at, topic, payload, dead_at)
		values (gen_random_uuid(), now(), now(), 'x', '{}', now()), (gen_random_uuid(), now() + interval '1 hour', now(), 'x', '{}', null)`)
	if stdout, parsed = status(exitFailed, "outbox: 1 dead"); parsed.Outbox.Due != 0 || !strings.Contains(stdout, "outbox: 0 due; 1 dead") {
		t.Fatalf("got %s, %+v", stdout, parsed)
	}
	exec(`delete from outbox`)
	exec(`insert into checkpoints (name, shard, shards, position, halted_at, halt_reason, lease_until) values
		('wishes', 0, 2, 1, null, null, 'infinity'), ('wishes', 1, 2, 1, now(), 'event 1 is odd', '-infinity')`)
	stdout, parsed = status(exitFailed, "wishes 1/2 is halted")
	if len(parsed.Problems) != 1 || !strings.Contains(stdout, "event 1 is odd") {
		t.Fatalf("got %s, %+v", stdout, parsed)
	}
	exec(`update checkpoints set halted_at = null, paused_at = now(), paused_by = 'ada' where name = 'wishes'`)
	if stdout, _ = status(exitDone, ""); !strings.Contains(stdout, "paused by ada") {
		t.Fatalf("a pause is wanted: %s", stdout)
	}

	// It lacks three events of an hour ago.
	cart := s.open(t)
	s.add(t, cart, 1)
	s.add(t, cart, 1)
	exec(`alter table events disable trigger all; update events set recorded_at = now() - interval '1 hour'`)
	stdout, parsed = status(exitDone, "")
	if !regexp.MustCompile(`(?m)^wishes 1/2 +policy +paused +1 +3 +1h\d+m\d\S* +0 +paused by ada$`).MatchString(stdout) {
		t.Errorf("got %s", stdout)
	}
	lag := parsed.Checkpoints[len(parsed.Checkpoints)-1]
	if lag.Name != "wishes" || lag.EventsBehind != 3 || lag.MillisecondsBehind < time.Hour.Milliseconds() || lag.MillisecondsBehind > 2*time.Hour.Milliseconds() {
		t.Errorf("got %+v", lag)
	}
	if _, stdout, _ = projections(t, "status"); !regexp.MustCompile(`(?m)^wishes 1/2 +1 +3 +[34]\d{6} +0 +paused: paused by ada$`).MatchString(stdout) {
		t.Errorf("got %s", stdout)
	}
}
