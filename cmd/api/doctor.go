package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/migrations"
)

type doctorCommand struct {
	Database
	report
	Deep bool `name:"deep" help:"Examine every event of the log, and not just the newest 10,000."`
}

// finding is one thing that api doctor says.
type finding struct {
	Level string `json:"level"`        // ok, note: worth knowing, or problem: a person has to do something
	What  string `json:"what"`         // what it is about, such as log, or checkpoint relay_nats
	Found string `json:"found"`        // as it is
	Do    string `json:"do,omitempty"` // what to do
}

const (
	levelOK      = "ok"
	levelNote    = "note"
	levelProblem = "problem"
)

// examination is what api doctor prints as JSON.
type examination struct {
	Well        bool                   `json:"well"`
	Findings    []finding              `json:"findings"`
	Log         eventstore.Examination `json:"log"`
	Checkpoints []outbox.Judgement     `json:"checkpoints"`
}

func (e *examination) say(level, what, do, found string, args ...any) {
	e.Findings = append(e.Findings, finding{Level: level, What: what, Found: fmt.Sprintf(found, args...), Do: do})
}

// Run examines the database and explains what it finds. It changes nothing, and fails when a person has to do something.
func (d *doctorCommand) Run(ctx context.Context, out output) error {
	return d.within(ctx, func(pool *pgxpool.Pool, _ *slog.Logger) error {
		var e examination
		if err := e.examine(ctx, pool, d); err != nil {
			return err
		}
		var problems []string
		for _, f := range e.Findings {
			if f.Level == levelProblem {
				problems = append(problems, f.What)
			}
		}
		e.Well = len(problems) == 0
		err := d.print(out, e, func() error {
			for _, f := range e.Findings {
				fmt.Fprintf(out, "%-8s %s: %s\n", f.Level, f.What, f.Found)
				if f.Do != "" {
					fmt.Fprintf(out, "         -> %s\n", f.Do)
				}
			}
			return nil
		})
		if err == nil && !e.Well {
			err = errors.New("somebody has to look after: " + strings.Join(problems, ", "))
		}
		return err
	})
}

func (e *examination) examine(ctx context.Context, pool *pgxpool.Pool, d *doctorCommand) error {
	pending, err := migrations.Pending(ctx, pool)
	if err != nil {
		return err
	}
	if len(pending) > 0 {
		e.say(levelProblem, "migrations", "api migrate up", "%d are missing; what depends on them is not examined", len(pending))
		return nil
	}
	e.say(levelOK, "migrations", "", "all are applied")
	if e.Log, err = eventstore.Examine(ctx, pool, d.Deep); err != nil {
		return err
	}
	e.explainLog()
	if e.Checkpoints, err = outbox.JudgeCheckpoints(ctx, pool); err != nil {
		return err
	}
	tables, err := queries.ListTables(ctx, pool)
	if err != nil {
		return err
	}
	views := map[string]string{}
	for _, t := range tables {
		views[t.Name] = t.View
	}
	e.explainCheckpoints(views)
	backlog, err := outbox.ReadBacklog(ctx, pool)
	if err != nil {
		return err
	}
	e.explainDead("outbox", "api outbox dead list", backlog.Outbox.Dead)
	e.explainDead("inbox", "api inbox list --state dead", backlog.Inbox.Dead)
	return e.explainServer(ctx, pool, d.MaxConnections)
}

func (e *examination) explainLog() {
	l := e.Log
	e.say(levelOK, "log", "", "%s, epoch %d, head %d", l.LogID, l.Epoch, l.Head)
	switch {
	case l.Standby:
		e.say(levelNote, "place", "", "this is a standby; the log was written by system %s on timeline %d", l.SystemIdentifier, l.Timeline)
	case l.Here == nil:
		e.say(levelNote, "place", "after a restore or a failover that lost events, run `api doctor` and read docs/restores.md",
			"Postgres does not tell its system identifier and timeline here: the epoch is not raised by itself")
	case l.Elsewhere():
		e.say(levelNote, "place", "start a server: it raises the epoch",
			"the log was written by system %s on timeline %d, and this is %s on %d: it was restored or failed over, and no server has connected since",
			l.SystemIdentifier, l.Timeline, l.Here.SystemIdentifier, l.Here.Timeline)
	default:
		e.say(levelOK, "place", "", "system %s, timeline %d", l.Here.SystemIdentifier, l.Here.Timeline)
	}
	for _, r := range l.Raises {
		e.say(levelNote, "epoch", "", "raised from %d to %d on %s with the head at %d: %s",
			r.PreviousEpoch, r.Epoch, r.At.UTC().Format("2006-01-02 15:04:05Z"), r.Head, r.Reason)
	}
	if l.Missing != 0 || l.Gaps != 0 {
		e.say(levelProblem, "density", "somebody has changed the log by hand, or the disk lost some of it: restore it from a backup",
			"of the newest %d events %d positions are missing, and %d versions of streams", l.Examined, l.Missing, l.Gaps)
	} else {
		e.say(levelOK, "density", "", "the newest %d events have neither a hole in positions nor in versions", l.Examined)
	}
	if l.Ahead > 1 {
		e.say(levelNote, "clock", "set the database server's clock",
			"the newest event is %.0f s ahead of the database's clock: until that has come there, events are recorded at the same time", l.Ahead)
	}
}

func (e *examination) explainCheckpoints(views map[string]string) {
	for _, c := range e.Checkpoints {
		what := "checkpoint " + c.Name
		if c.Shard > 0 {
			what += fmt.Sprintf(", shard %d", c.Shard)
		}
		view, projection := views[c.Name]
		switch {
		case !c.Matches && projection:
			e.say(levelProblem, what, "api projections rebuild "+view, "its event at %d is not in the log, whose head is %d", c.Position, c.Head)
		case !c.Matches:
			e.say(levelProblem, what, "api checkpoints rewind "+c.Name+" --to POSITION: see docs/restores.md on what comes twice",
				"its event at %d is not in the log, whose head is %d", c.Position, c.Head)
		case c.HaltReason != "":
			e.say(levelProblem, what, "mend the cause, then api projections resume "+c.Name, "it halted after %d: %s", c.Position, c.HaltReason)
		default:
			e.say(levelOK, what, "", "it is at %d of %d, and its event is in the log", c.Position, c.Head)
		}
	}
}

func (e *examination) explainDead(what, do string, dead int64) {
	if dead > 0 {
		e.say(levelProblem, what, do, "%d messages are dead letters", dead)
	}
}

// serverState is a row of sqlServer.
type serverState struct {
	Version, Fsync, SynchronousCommit, Isolation, WALLevel string
	MaxConnections                                         int
	Append, Raise, Move                                    bool // what the role may
}

func (e *examination) explainServer(ctx context.Context, pool *pgxpool.Pool, connections int) error {
	rows, err := pool.Query(ctx, sqlServer)
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[serverState])
	if err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	e.say(levelOK, "server", "", "Postgres %s, wal_level %s", s.Version, s.WALLevel)
	check := func(ok bool, level, what, do, found string) {
		if !ok {
			e.say(level, what, do, "%s", found)
		}
	}
	check(s.Isolation == "read committed", levelProblem, "default_transaction_isolation", "set it to read committed", "it is "+s.Isolation)
	check(s.Fsync == "on", levelProblem, "fsync", "set it to on, unless the data is of no value", "it is "+s.Fsync+": a crash of the machine destroys data")
	check(s.SynchronousCommit != "off", levelProblem, "synchronous_commit", "set it to on", "it is off: a crash loses what was acknowledged")
	check(s.WALLevel != "minimal", levelNote, "wal_level", "set it to replica", "it is minimal: there can be no standby, and no restore to a point in time")
	check(connections+1 < s.MaxConnections, levelProblem, "max_connections", "raise it, or lower DATABASE_MAX_CONNECTIONS",
		fmt.Sprintf("Postgres takes %d, and one server holds up to %d", s.MaxConnections, connections+2)) // the appender's and the one for hints
	check(s.Append && s.Raise && s.Move, levelProblem, "privileges", "grant what docs/operations.md lists",
		fmt.Sprintf("append events: %t, raise the epoch: %t, move checkpoints: %t", s.Append, s.Raise, s.Move))
	return nil
}
