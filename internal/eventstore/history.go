package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
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
	place place // zero: a standby, or not told
	kept  place // as the log's row has it; zero: nobody wrote it yet
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

// look compares where a connection leads with what the log's row says, raises the epoch when they differ, and returns what
// then holds. A standby is left as it is; of one, canWrite is false.
func (s *Store) look(ctx context.Context, conn *pgx.Conn) (found history, canWrite bool, err error) {
	found, canWrite, err = s.readHistory(ctx, conn)
	if err != nil {
		return found, false, fmt.Errorf("reading which history the log is of: %w", err)
	}
	if canWrite && found.place != (place{}) && found.place != found.kept {
		if found, err = s.settle(ctx, conn, found.place); err != nil {
			return found, false, fmt.Errorf("noting that the log has another history: %w", err)
		}
	}
	s.mu.Lock()
	s.logID, s.here = found.log.id, found.place
	s.mu.Unlock()
	s.note(found.log.epoch)
	return found, canWrite, nil
}

func (s *Store) readHistory(ctx context.Context, conn *pgx.Conn) (found history, canWrite bool, err error) {
	if !s.blind.Load() {
		err = conn.QueryRow(ctx, sqlHistory).Scan(&found.log.id, &found.log.epoch, &found.kept.system, &found.kept.timeline,
			&found.place.system, &found.place.timeline)
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
			"are noticed only where an event is looked for and gone", "error", err)
	}
	err = conn.QueryRow(ctx, sqlHistoryBlind).Scan(&found.log.id, &found.log.epoch, &canWrite)
	return found, canWrite, err
}

// untold tells whether an error says that a function may not be called, or is not there: so it is with some hosts.
func untold(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "42501" || refused.Code == "42883" || refused.Code == "0A000")
}

// settle writes down, under the log's lock, where the log is now. Of several processes that come to it, one raises the epoch.
func (s *Store) settle(ctx context.Context, conn *pgx.Conn, now place) (history, error) {
	found := history{place: now, kept: now}
	var was place
	var head Token
	raised := false
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, sqlHistoryLock).Scan(&found.log.id, &found.log.epoch, &was.system, &was.timeline)
		if err != nil || was == now {
			return err
		}
		if was == (place{}) { // a fresh log, or one from before this was kept
			_, err := tx.Exec(ctx, sqlAdopt, now.system, now.timeline)
			return err
		}
		head.Epoch, raised = found.log.epoch, true
		return tx.QueryRow(ctx, sqlRaise, now.system, now.timeline, was.system, was.timeline, reason(was, now)).
			Scan(&found.log.epoch, &head.Position)
	})
	if err != nil || !raised {
		return found, err
	}
	s.cfg.Logger.Error("the epoch of the log is raised: "+reason(was, now)+
		"; tokens and positions of events that are no longer there are refused with LOG_DIVERGED; `api doctor` says what else there is to do",
		"epoch", found.log.epoch, "previous", head.Epoch, "head", head.Position,
		"systemIdentifier", systemIdentifier(now), "previousSystemIdentifier", systemIdentifier(was),
		"timeline", now.timeline, "previousTimeline", was.timeline)
	return found, nil
}

func reason(was, now place) string {
	if was.system != now.system {
		return "the database is in another cluster now, by a dump that was restored, or an upgrade"
	}
	return "a standby was promoted, or the database was restored to a point in time"
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

// Mark names a position and the epoch under which somebody saw it: all that a token says, but for the event. Its text form
// is short, begins with the position, and is otherwise opaque.
type Mark struct {
	Position int64
	Epoch    int32
	Log      string // the beginning of the log's id
}

// markLog is how much of the log's id a mark has.
const markLog = 8

// Mark is that of a position which was seen in this log as this process knows it.
func (s *Store) Mark(position int64) Mark {
	m := Mark{Position: position}
	if known := s.mark.Load(); known != nil {
		m.Epoch, m.Log = known.Epoch, known.Log
	}
	return m
}

// String gives the text form, which ParseMark reads.
func (m Mark) String() string {
	return strconv.FormatInt(m.Position, 10) + "." + strconv.FormatInt(int64(m.Epoch), 10) + "." + m.Log
}

// errMark says no more, since the text came from outside.
var errMark = errors.New("this is not a position of the log")

// ParseMark reads the text form of a mark, or a bare position, whose epoch is then 0.
func ParseMark(text string) (m Mark, err error) {
	position, rest, marked := strings.Cut(text, ".")
	m.Position, err = strconv.ParseInt(position, 10, 64)
	if err != nil || m.Position < 0 || strconv.FormatInt(m.Position, 10) != position {
		return Mark{}, errMark
	}
	if !marked {
		return m, nil
	}
	epoch, log, _ := strings.Cut(rest, ".")
	number, err := strconv.ParseInt(epoch, 10, 32)
	if err != nil || number < 1 || strconv.FormatInt(number, 10) != epoch || len(log) != markLog {
		return Mark{}, errMark
	}
	m.Epoch, m.Log = int32(number), log
	return m, nil
}

// CheckMark tells whether the log still holds what stood at a mark's position, and all before it: nil, *BeyondHeadError or
// *DivergedError. It knows from the raises of the epoch since. Of a mark without an epoch it can only tell whether the log
// has come so far.
func (s *Store) CheckMark(ctx context.Context, m Mark) error {
	var found history
	var head int64
	kept := int64(math.MaxInt64)
	err := s.pool.QueryRow(ctx, sqlCheckMark, m.Epoch, int64(math.MaxInt64)).Scan(&found.log.id, &found.log.epoch, &head, &kept)
	if err != nil {
		return fmt.Errorf("checking position %d: %w", m.Position, err)
	}
	s.note(found.log.epoch)
	switch {
	case m.Log != "" && !strings.HasPrefix(found.log.id.String(), m.Log):
		return &DivergedError{Position: m.Position, Reason: "it is of another log"}
	case m.Epoch != 0 && m.Epoch != found.log.epoch && (m.Epoch > found.log.epoch || m.Position > min(kept, head)):
		return &DivergedError{Position: m.Position, Reason: "the log was restored to before it"}
	case m.Position > head:
		return &BeyondHeadError{Position: m.Position, Head: head}
	}
	return nil
}

// CheckToken tells whether the log still holds what a token stands for: nil, *BeyondHeadError or *DivergedError. A token
// of an earlier epoch is good as long as its event is still there.
func (s *Store) CheckToken(ctx context.Context, t Token) error {
	if t == (Token{}) {
		return nil
	}
	var head Token
	var there *uuid.UUID
	err := s.pool.QueryRow(ctx, sqlCheckToken, t.Position).Scan(&head.LogID, &head.Epoch, &head.Position, &there)
	if err != nil {
		return fmt.Errorf("checking the token of position %d: %w", t.Position, err)
	}
	s.note(head.Epoch)
	switch {
	case t.Position == 0 && t.LogID == uuid.Nil: // a checkpoint that nobody moved yet
		return nil
	case t.LogID != head.LogID:
		return &DivergedError{Position: t.Position, Reason: "it is of another log"}
	case t.Position == 0:
		return nil
	case t.Position > head.Position && t.Epoch == head.Epoch:
		return &BeyondHeadError{Position: t.Position, Head: head.Position}
	case t.Position > head.Position || t.Epoch > head.Epoch:
		return &DivergedError{Position: t.Position, Reason: "the log was restored to before it"}
	case there == nil || *there != t.EventID:
		return &DivergedError{Position: t.Position, Reason: "another event is there now"}
	}
	return nil
}
