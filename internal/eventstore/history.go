package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// place tells one life of a database from another: the cluster's system identifier, which initdb draws, and the timeline,
// which each promotion and each restore to a point in time counts up. Where Postgres does not tell, it is zero.
type place struct {
	system   int64
	timeline int32
}

// history is what a connection leads to.
type history struct {
	log   identity
	place place     // zero: a standby, or not told
	kept  place     // as the log's row has it; zero: nobody wrote it yet
	head  spot      // the newest event
	there uuid.UUID // the event at the position that was asked for; zero: none
}

// lookEvery is how often a process that appends nothing looks whether the log is another one.
const lookEvery = time.Second

// errHistory says that the log is not in the history any more in which a batch was to be appended. Nothing was written.
var errHistory = errors.New("the log has another history")

// errOlder says that a connection leads to an older epoch than this process has seen.
var errOlder = errors.New("the server has an older epoch of the log than was seen before")

// guard is what an append expects of the log's history; what does not hold fails the lock statement.
type guard struct {
	epoch int32
	here  place
	told  bool // Postgres tells where it is, and the lock statement compares it
}

// guard is what this process knows.
func (s *Store) guard() guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return guard{epoch: s.epoch, here: s.here, told: !s.blind.Load()}
}

// values are the parameters of the lock statement, as binary.
func (g guard) values() [][]byte {
	values := [][]byte{binary.BigEndian.AppendUint32(nil, uint32(g.epoch))}
	if g.told {
		values = append(values, []byte(g.here.hex()))
	}
	return values
}

// sqlStateDivision is how a lock statement says that the log is not as its caller knows it.
const sqlStateDivision = "22012"

// errStandby says that a connection leads to a server that takes no writes.
var errStandby = errors.New("the server is a standby: it takes no writes until it is promoted")

// Epoch is the newest epoch of the log that this process has seen, and a channel that is closed when a newer one is. The
// epoch is raised when the database was restored or a standby of it promoted: what a process holds in memory from before
// may then belong to a history that is no more. Epochs only grow, also across restores.
func (s *Store) Epoch() (epoch int32, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch, s.raised
}

// note takes over an epoch that was seen in the log. Connections from before may lead to the server that was, so that the
// pool makes new ones; and positions that this process committed may be gone.
func (s *Store) note(epoch int32) {
	s.mu.Lock()
	known := s.epoch
	if epoch <= known {
		s.mu.Unlock()
		return
	}
	s.epoch = epoch
	s.memory.begin(epoch)
	s.mark.Store(&Mark{Epoch: epoch, Log: s.logID.String()[:markLog]})
	if known == 0 {
		s.mu.Unlock()
		return
	}
	s.head = 0
	close(s.raised)
	s.raised = make(chan struct{})
	close(s.next)
	s.next = make(chan struct{})
	s.mu.Unlock()
	s.pool.Reset()
	s.cfg.Logger.Warn("the log has a new epoch: what this process holds in memory is checked against it",
		"epoch", epoch, "previous", known)
}

// look compares where a connection leads with what the log's row says, and the newest event that this process knows with what
// is there, raises the epoch when they differ, and returns what then holds. A standby is left as it is; of one, canWrite
// is false. A connection that leads to an older epoch than was seen before is errOlder, and nothing is learnt from it.
func (s *Store) look(ctx context.Context, conn *pgx.Conn) (found history, canWrite bool, err error) {
	known, _ := s.Epoch()
	newest := s.memory.last() // before the reading: an event that this process saw by now must be in what is read
	found, canWrite, err = s.readHistory(ctx, conn, newest.position)
	if err != nil {
		return found, false, fmt.Errorf("reading which history the log is of: %w", err)
	}
	if found.log.epoch < known {
		return found, false, errOlder
	}
	moved := found.place != (place{}) && found.place != found.kept
	if canWrite && (moved || newest.goneFrom(found.log.epoch, found.there)) {
		if found, err = s.settle(ctx, conn, found.place, newest); err != nil {
			return found, false, fmt.Errorf("noting that the log has another history: %w", err)
		}
	}
	s.mu.Lock()
	s.logID, s.here = found.log.id, found.place
	s.mu.Unlock()
	s.note(found.log.epoch)
	if canWrite {
		s.memory.sawHead(found.log.epoch, found.head)
	}
	return found, canWrite, nil
}

// readHistory also looks for the event at a position.
func (s *Store) readHistory(ctx context.Context, conn *pgx.Conn, at int64) (found history, canWrite bool, err error) {
	if !s.blind.Load() {
		err = conn.QueryRow(ctx, sqlHistory, at).Scan(&found.log.id, &found.log.epoch, &found.kept.system, &found.kept.timeline,
			&found.place.system, &found.place.timeline, &found.head.position, &found.head.id, &found.there)
		if err == nil {
			if canWrite = found.place.timeline != 0; !canWrite {
				found.place = place{}
			}
			return found, canWrite, nil
		}
		if opened, _ := s.Epoch(); opened != 0 || !untold(err) {
			return found, false, err
		}
		s.blind.Store(true)
		s.cfg.Logger.Warn("Postgres does not tell its system identifier and timeline here: restores and failovers that lose events "+
			"are noticed only by a process that has seen those events, and where one is looked for and gone", "error", err)
	}
	err = conn.QueryRow(ctx, sqlHistoryBlind, at).
		Scan(&found.log.id, &found.log.epoch, &canWrite, &found.head.position, &found.head.id, &found.there)
	return found, canWrite, err
}

// untold tells whether an error says that a function may not be called, or is not there: so it is with some hosts.
func untold(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "42501" || refused.Code == "42883" || refused.Code == "0A000")
}

// settle writes down, under the log's lock, where the log is now: nowhere else when that is zero, since it is not told. Of
// several processes that come to it, one raises the epoch.
func (s *Store) settle(ctx context.Context, conn *pgx.Conn, now place, newest spot) (history, error) {
	found := history{place: now}
	var was place
	var before, head Token
	raised := ""
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, sqlHistoryLock, newest.position).
			Scan(&found.log.id, &found.log.epoch, &was.system, &was.timeline, &found.there)
		if err != nil {
			return err
		}
		if now == (place{}) {
			now = was
		}
		found.kept = now
		why := reason(was, now, newest.goneFrom(found.log.epoch, found.there))
		if why == "" {
			if was == now { // another process came first
				return nil
			}
			_, err := tx.Exec(ctx, sqlAdopt, now.system, now.timeline)
			return err
		}
		before.Epoch, raised = found.log.epoch, why
		return tx.QueryRow(ctx, sqlRaise, now.system, now.timeline, was.system, was.timeline, why).
			Scan(&found.log.epoch, &head.Position)
	})
	if err != nil || raised == "" {
		return found, err
	}
	s.cfg.Logger.Error("the epoch of the log is raised: "+raised+
		"; tokens and positions of events that are no longer there are refused with LOG_DIVERGED; `api doctor` says what else there is to do",
		"epoch", found.log.epoch, "previous", before.Epoch, "head", head.Position,
		"systemIdentifier", systemIdentifier(now), "previousSystemIdentifier", systemIdentifier(was),
		"timeline", now.timeline, "previousTimeline", was.timeline)
	return found, nil
}

// reason says why the epoch has to be raised; empty: it has not. A fresh log, or one from before places were kept, was
// nowhere.
func reason(was, now place, gone bool) string {
	switch {
	case was != now && was != (place{}) && was.system != now.system:
		return "the database is in another cluster now, by a dump that was restored, or an upgrade"
	case was != now && was != (place{}):
		return "a standby was promoted, or the database was restored to a point in time"
	case gone:
		return "events that it had are gone, and the cluster says that it is the same: an older copy of its disk or of the database was put back"
	}
	return ""
}

// systemIdentifier is as pg_controldata prints it.
func systemIdentifier(p place) string { return strconv.FormatUint(uint64(p.system), 10) }

// hex is how the timeline begins the names of write-ahead log files.
func (p place) hex() string { return fmt.Sprintf("%08X", uint32(p.timeline)) }

// watch looks from time to time, for a process that appends nothing, and where a pooler hides that the server changed.
func (s *Store) watch(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = s.Review(ctx) // a database that cannot be reached is looked at again
		}
	}
}

// Review looks at once whether the log is another one than before, and raises its epoch when nobody did. The store looks by
// itself on each connection that appends, and every second.
func (s *Store) Review(ctx context.Context) error {
	return s.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		_, _, err := s.look(ctx, conn.Conn())
		if errors.Is(err, errOlder) {
			_ = conn.Conn().Close(ctx) // the next one may lead to the server that is
		}
		return err
	})
}

// HistoryError says that a request was decided on a history that the log no longer has, or may no longer have. Nothing was
// written; who reads the stream again can decide again.
type HistoryError struct {
	Stream string
	Epoch  int32 // of the log now
}

func (e *HistoryError) Error() string {
	return fmt.Sprintf("the log has another history since the decision on %s was made: its epoch is %d now", e.Stream, e.Epoch)
}
