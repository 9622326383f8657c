package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

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
// *DivergedError. It knows from the raises of the epoch since, of which the mark's own epoch has to be one of those before:
// of two restores of one backup the second knows nothing of what was written after the first. Of a mark without an epoch it can only tell whether the log
// has come so far.
func (s *Store) CheckMark(ctx context.Context, m Mark) error {
	var log identity
	var head, kept int64
	var ours bool
	err := s.pool.QueryRow(ctx, sqlCheckMark, m.Epoch, int64(math.MaxInt64)).Scan(&log.id, &log.epoch, &head, &kept, &ours)
	if err != nil {
		return fmt.Errorf("checking position %d: %w", m.Position, err)
	}
	s.note(log.epoch)
	switch {
	case m.Log != "" && !strings.HasPrefix(log.id.String(), m.Log):
		return &DivergedError{Position: m.Position, Reason: "it is of another log"}
	case m.Epoch != 0 && !ours:
		return &DivergedError{Position: m.Position, Reason: "its epoch is none that this log had"}
	case m.Epoch != 0 && m.Epoch != log.epoch && m.Position > min(kept, head):
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
	s.memory.keep(t)
	return nil
}

// Knows tells from memory, without asking the log, that it holds what a token stands for: this process has appended the
// event, or found it by CheckToken, in the newest epoch that it has seen. Of old tokens it knows some. False means that
// the log is to be asked. Where the end of the log was lost without a sign, it knows that within a second.
func (s *Store) Knows(t Token) bool {
	known := s.mark.Load()
	return known != nil && known.Epoch == t.Epoch && s.memory.holds(t)
}
