package queries

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// LagKind says what moves a checkpoint.
type LagKind string

const (
	LagView   LagKind = "VIEW"   // a projection, into a table of a view
	LagRelay  LagKind = "RELAY"  // a leased relay, to a broker: its name is relay or begins with relay_
	LagPolicy LagKind = "POLICY" // any other: commands in answer to events
)

// LagState says whether a checkpoint moves.
type LagState string

const (
	LagWorking    LagState = "WORKING"    // it has an owner
	LagUnowned    LagState = "UNOWNED"    // it should have one: no server that can work on it runs, or none has taken it yet
	LagPaused     LagState = "PAUSED"     // an operator wants it to stand still
	LagHalted     LagState = "HALTED"     // it stopped at an event and needs an operator
	LagRebuilding LagState = "REBUILDING" // a rebuild fills its table
	LagRetired    LagState = "RETIRED"    // its table does not serve, and nobody keeps it up to date
)

// Lag is how far a checkpoint, or one shard of it, is behind the log, and what it does.
type Lag struct {
	Name         string  `db:"name" json:"name"`   // of the checkpoint
	Shard        int     `db:"shard" json:"shard"` // of Shards, counted from 0
	Shards       int     `db:"shards" json:"shards"`
	Kind         LagKind `db:"kind" json:"kind"`
	View         string  `db:"view" json:"view,omitempty"` // the stable name of the view; empty for other kinds
	Position     int64   `db:"position" json:"position"`   // everything up to here is taken
	Head         int64   `db:"head" json:"head"`           // of the log, at the same moment
	EventsBehind int64   `db:"-" json:"eventsBehind"`
	// MillisecondsBehind is the age of the oldest event that is not taken, by the database's clock; 0 at the head.
	MillisecondsBehind int64    `db:"milliseconds_behind" json:"millisecondsBehind"`
	Owner              string   `db:"owner" json:"owner,omitempty"` // of the lease, while it lasts
	State              LagState `db:"state" json:"state"`
	Reason             string   `db:"reason" json:"reason,omitempty"` // why it does not move
	Parked             int      `db:"parked" json:"parked,omitempty"` // streams of it whose events wait
}

// NeedsHelp says that it does not move although it should.
func (l Lag) NeedsHelp() bool { return l.State == LagHalted || l.State == LagUnowned }

// ReadLags reads all checkpoints, one entry for each shard, in order of name and shard, with one statement that costs a look
// at one event for each. A view that was never projected, and a shard whose row is missing, are at 0.
//
// A lag counts all events after the position, also those of other types and other shards, which are merely passed over: while
// nothing else comes, a checkpoint that is at work passes over them within outbox.ConsumerConfig.MoveAfter.
func ReadLags(ctx context.Context, pool *pgxpool.Pool) ([]Lag, error) {
	rows, err := pool.Query(ctx, sqlLags)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[lagRow])
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	lags := make([]Lag, 0, len(found))
	for _, rows := range cut(found, func(row lagRow) string { return row.Name }) {
		lags = append(lags, ofCheckpoint(rows)...)
	}
	return lags, nil
}

// lagRow is a row of sqlLags.
type lagRow struct {
	Lag
	MillisecondsOfAll int64 `db:"milliseconds_of_all"` // the lag of who has taken nothing
}

// ofCheckpoint makes the entries of one checkpoint's rows: one for each shard that the rows say there must be.
func ofCheckpoint(rows []lagRow) []Lag {
	most := 1
	for _, row := range rows {
		most = max(most, row.Shards)
	}
	lags := make([]Lag, most)
	for shard := range lags {
		lags[shard] = Lag{
			Name: rows[0].Name, Kind: rows[0].Kind, View: rows[0].View, Head: rows[0].Head, Shard: shard,
			MillisecondsBehind: rows[0].MillisecondsOfAll, State: LagUnowned, Reason: "its row is missing: rebuild the view",
		}
	}
	for _, row := range rows {
		lags[row.Shard] = row.Lag
	}
	for shard := range lags {
		lags[shard].Shards = most
		lags[shard].EventsBehind = max(0, lags[shard].Head-lags[shard].Position)
	}
	return lags
}

// Behind is how far behind the log somebody without a checkpoint is who has taken everything up to a position.
type Behind struct {
	Events       int64
	Milliseconds int64 // the age of the oldest event that is not taken, by the database's clock; 0 at the head
}

// ReadBehind reads how far behind the log a position is.
func ReadBehind(ctx context.Context, pool *pgxpool.Pool, position int64) (b Behind, err error) {
	if err = pool.QueryRow(ctx, sqlBehind, position).Scan(&b.Events, &b.Milliseconds); err != nil {
		return b, fmt.Errorf("read how far position %d is behind: %w", position, err)
	}
	return b, nil
}

// Lags is ReadLags on this Progress's database.
func (p *Progress) Lags(ctx context.Context) ([]Lag, error) { return ReadLags(ctx, p.pool) }
