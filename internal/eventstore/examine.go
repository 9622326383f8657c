package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Examination is what Examine found of a log.
type Examination struct {
	LogID            uuid.UUID `json:"logId"`
	Epoch            int32     `json:"epoch"`
	SystemIdentifier string    `json:"systemIdentifier"` // as the log has it; "0": nobody wrote it yet
	Timeline         int32     `json:"timeline"`
	Here             *Here     `json:"here"` // what the server says; null: it does not, or is a standby
	Standby          bool      `json:"standby"`
	Head             int64     `json:"head"`
	Examined         int64     `json:"examined"` // how many events, from the head back
	Missing          int64     `json:"missing"`  // positions without an event among those
	Gaps             int64     `json:"gaps"`     // versions of streams that are missing among those
	Ahead            float64   `json:"ahead"`    // seconds that the newest event is ahead of the database's clock
	Raises           []Raise   `json:"raises"`   // of the epoch, the newest first, 20 at most
}

// Here is where a database is.
type Here struct {
	SystemIdentifier string `json:"systemIdentifier"`
	Timeline         int32  `json:"timeline"`
}

// Raise is one raise of the epoch.
type Raise struct {
	Epoch         int32     `json:"epoch"`
	PreviousEpoch int32     `json:"previousEpoch"`
	At            time.Time `json:"at"`
	Head          int64     `json:"head"` // of the log then: what older epochs say of later positions is gone
	Reason        string    `json:"reason"`
}

// Elsewhere tells whether the server is in another place than the log has written down: its epoch is raised as soon as a
// server of Headrace connects.
func (e Examination) Elsewhere() bool {
	return e.Here != nil && e.SystemIdentifier != "0" && *e.Here != (Here{e.SystemIdentifier, e.Timeline})
}

// examinedAtMost bounds an examination that is not deep.
const examinedAtMost = 10_000

// Examine looks at a log without changing it: which history it is of, and whether its newest 10,000 events, or when deep all
// of them, are dense.
func Examine(ctx context.Context, pool *pgxpool.Pool, deep bool) (e Examination, err error) {
	err = pool.QueryRow(ctx, sqlExamine).Scan(&e.LogID, &e.Epoch, &e.SystemIdentifier, &e.Timeline, &e.Standby, &e.Head, &e.Ahead)
	if err != nil {
		return e, fmt.Errorf("reading the log (is the database migrated?): %w", err)
	}
	if !e.Standby {
		var at place
		err = pool.QueryRow(ctx, sqlHistory, 0).Scan(nil, nil, nil, nil, &at.system, &at.timeline, nil, nil, nil)
		if err == nil {
			e.Here = &Here{systemIdentifier(at), at.timeline}
		} else if !untold(err) {
			return e, fmt.Errorf("reading where the database is: %w", err)
		}
	}
	after := max(0, e.Head-examinedAtMost)
	if deep {
		after = 0
	}
	e.Examined = e.Head - after
	if err := pool.QueryRow(ctx, sqlDense, after, e.Head).Scan(&e.Missing, &e.Gaps); err != nil {
		return e, fmt.Errorf("examining the log: %w", err)
	}
	rows, err := pool.Query(ctx, sqlRaises)
	if err == nil {
		e.Raises, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Raise])
	}
	if err != nil {
		return e, fmt.Errorf("reading when the epoch was raised: %w", err)
	}
	return e, nil
}
