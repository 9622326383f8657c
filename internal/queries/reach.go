package queries

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// reach is how far the shards of one checkpoint have come, by shard. A table includes the log up to where the least of
// its shards is. One that nobody has seen is at 0: a row that is missing has reached nothing.
type reach []report

// report is what a shard was seen at.
type report struct {
	at    eventstore.Token
	local time.Time // when Advance said so last; zero: only looked up
}

// least is where the table is complete up to.
func (r reach) least() eventstore.Token {
	if len(r) == 0 {
		return eventstore.Token{}
	}
	least := r[0].at
	for _, shard := range r[1:] {
		if shard.at.Position < least.Position {
			least = shard.at
		}
	}
	return least
}

// within tells whether all shards are in one history, the token's.
func (r reach) within(t eventstore.Token) bool {
	for _, shard := range r {
		if shard.at.LogID != t.LogID || shard.at.Epoch != t.Epoch {
			return false
		}
	}
	return len(r) > 0
}

// fresh tells whether all shards were told of by this process within the time.
func (r reach) fresh(within time.Duration) bool {
	for _, shard := range r {
		if time.Since(shard.local) > within {
			return false
		}
	}
	return len(r) > 0
}

// serving is a row of sqlServing.
type serving struct {
	Name          string     `db:"name"`
	Version       int        `db:"version"`
	Generation    int        `db:"generation"`
	Checkpoint    string     `db:"table_name"`
	Shard         int        `db:"shard"`
	Shards        int        `db:"shards"` // 0: the checkpoint has no row yet
	Position      int64      `db:"position"`
	EventID       *uuid.UUID `db:"event_id"`
	LogID         *uuid.UUID `db:"log_id"`
	Epoch         int32      `db:"log_epoch"`
	Halted        bool       `db:"halted"`
	HaltReason    string     `db:"halt_reason"`
	Paused        bool       `db:"paused"`
	Parked        int        `db:"parked"`
	ParkedChanges int64      `db:"parked_changes"`
	Head          int64      `db:"head"`
	BehindSeconds float64    `db:"behind_seconds"`
}

func (s serving) token() eventstore.Token { return tokenOf(s.Position, s.Epoch, s.EventID, s.LogID) }

// halted is the error for those who wait for what lies beyond this shard's position; nil when it goes on.
func (s serving) halted() error {
	if !s.Halted && !s.Paused {
		return nil
	}
	err := &HaltedError{Projection: s.Name, Position: s.Position, Reason: s.HaltReason}
	if s.Shards > 1 {
		err.Shard, err.Shards = s.Shard, s.Shards
	}
	if !s.Halted {
		err.Reason, err.Paused = "it was paused", true
	}
	return err
}

// views cuts the rows of sqlServing, which are in order of name and shard, into those of each view.
func views(found []serving) [][]serving {
	return cut(found, func(s serving) string { return s.Name })
}

// cut cuts rows that are in order of a name into those of each name.
func cut[T any](rows []T, name func(T) string) (parts [][]T) {
	for i := 0; i < len(rows); {
		end := i + 1
		for end < len(rows) && name(rows[end]) == name(rows[i]) {
			end++
		}
		parts = append(parts, rows[i:end:end])
		i = end
	}
	return parts
}

// tokens are the positions of a view's shards. Rows that are missing are at 0, whichever of them says so.
func tokens(rows []serving) []eventstore.Token {
	at := make([]eventstore.Token, shards(rows))
	for _, row := range rows {
		at[row.Shard] = row.token()
	}
	return at
}

// shards is how many a view must have: every row says it, and no row says less than its own shard.
func shards(rows []serving) int {
	most := 1
	for _, row := range rows {
		most = max(most, row.Shards)
	}
	return most
}

// freshness is what the rows of one view say.
func freshness(rows []serving) Freshness {
	f := Freshness{Projection: rows[0].Name, Checkpoint: rows[0].Checkpoint, Head: rows[0].Head, Behind: behind(rows)}
	at := tokens(rows)
	f.At, f.foremost = at[0], at[0].Position
	for _, shard := range at {
		if shard.Position < f.At.Position {
			f.At = shard
		}
		f.foremost = max(f.foremost, shard.Position)
	}
	for _, row := range rows {
		f.Halted = f.Halted || row.Halted
		f.Parked, f.ParkedChanges = f.Parked+row.Parked, f.ParkedChanges+row.ParkedChanges
	}
	if f.foremost > f.At.Position {
		sum := sha256.Sum256(fmt.Append(nil, at))
		f.state = uuid.UUID(sum[:16])
	}
	return f
}

// behind is the age of the oldest event that a view's table does not include, which all its rows say.
func behind(rows []serving) time.Duration {
	return time.Duration(rows[0].BehindSeconds * float64(time.Second))
}
