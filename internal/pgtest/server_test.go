package pgtest

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/headrace/headrace/internal/pgdev"
)

const noteSQL = `insert into claims values ($1, 'stream')`

// notes lists the keys that a server holds.
func notes(s *Server) (keys string) {
	s.QueryRow(`select coalesce(string_agg(key, ' ' order by key), '') from claims`, &keys)
	return keys
}

func TestAStandbyFollowsAndIsPromotedWithoutWhatItMissed(t *testing.T) {
	t.Parallel()
	primary := Primary(t, nil)
	primary.Exec(noteSQL, "a")
	standby := primary.Standby(map[string]string{"recovery_min_apply_delay": "1ms"})
	primary.Exec(noteSQL, "b")
	standby.CatchUp(primary)
	if got := notes(standby); got != "a b" {
		t.Errorf("the standby holds %q", got)
	}
	standby.Detach()
	primary.Exec(noteSQL, "c")
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	standby.Promote()
	standby.Exec(noteSQL, "d")
	if got := notes(standby); got != "a b d" {
		t.Errorf("what was promoted holds %q", got)
	}
}

func TestAServerIsRestoredToAPointAndADumpIntoAnother(t *testing.T) {
	t.Parallel()
	primary := Primary(t, nil)
	primary.Exec(noteSQL, "a")
	backup := primary.Backup()
	primary.Exec(noteSQL, "b")
	primary.Mark("here")
	primary.Exec(noteSQL, "c")
	restored := primary.Restore(backup, map[string]string{"recovery_target_name": "here"})
	restored.Exec(noteSQL, "d")
	if got := notes(restored); got != "a b d" {
		t.Errorf("what was restored holds %q", got)
	}
	loaded := Empty(t)
	loaded.Load(primary.Dump())
	if got := notes(loaded); got != "a b c" {
		t.Errorf("what was loaded holds %q", got)
	}
}

func TestACopyThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	refused, made := errors.New("refused"), ""
	_, err := pgdev.Open(t.Context(), pgdev.Config{Make: func(_ context.Context, c *pgdev.Cluster, _ string) error {
		made = c.Dir()
		return refused
	}})
	if !errors.Is(err, refused) || made == "" {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(made); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", made, err)
	}
}
