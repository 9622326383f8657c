package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Status is what a consumer or a relay knows of itself and its checkpoint. A relay without a lease has no checkpoint: its
// name is empty, and it is its own owner.
type Status struct {
	Name       string
	Shard      int       // of Shards
	Shards     int       // 1: not sharded
	Running    bool      // Run was called and has not returned
	Owner      bool      // this process holds the lease
	Position   int64     // of the checkpoint, when last seen by this process
	HaltedAt   time.Time // zero: not halted
	HaltReason string
	PausedAt   time.Time // zero: not paused by an operator
	PausedBy   string
	Parked     int    // streams whose events wait, when last seen by this process as the owner
	Events     int64  // handed over, or published, since it was made
	LastError  string // the newest failure that is being retried; empty after a success
	Refused    string // why this process does not even try; see ShardsError. Empty: it does
}

// standBy takes over what the checkpoint's row says, which another process works on or nobody.
func (s *Status) standBy(row Status) {
	s.Position, s.HaltedAt, s.HaltReason = row.Position, row.HaltedAt, row.HaltReason
	s.PausedAt, s.PausedBy, s.LastError = row.PausedAt, row.PausedBy, ""
}

// own says that this process has the lease.
func (s *Status) own() {
	s.Owner, s.HaltedAt, s.HaltReason, s.PausedAt, s.PausedBy = true, time.Time{}, "", time.Time{}, ""
}

// look reads where the checkpoint is, and whether it is halted or paused. One that is not there is at 0.
func (l *lease) look(ctx context.Context) (row Status, err error) {
	var owner string
	var haltedAt, pausedAt *time.Time
	err = l.pool.QueryRow(ctx, sqlLook, l.name, l.shard).
		Scan(&row.Position, &owner, &row.HaltReason, &haltedAt, &pausedAt, &row.PausedBy)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return row, fmt.Errorf("reading checkpoint %s: %w", l.name, err)
	}
	row.HaltedAt, row.PausedAt = orZero(haltedAt), orZero(pausedAt)
	return row, nil
}

// orZero is a time that may be null.
func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
