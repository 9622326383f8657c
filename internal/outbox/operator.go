package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
)

// Parked is a parked stream as operators see it.
type Parked struct {
	Checkpoint string     `db:"checkpoint" json:"checkpoint"`
	Shard      int        `db:"shard" json:"shard"`
	Stream     string     `db:"stream" json:"stream"`
	Position   int64      `db:"position" json:"position"` // of the first event that waits
	EventID    uuid.UUID  `db:"event_id" json:"eventId"`
	Type       string     `db:"type" json:"type"` // of that event
	Reason     string     `db:"reason" json:"reason"`
	Attempts   int        `db:"attempts" json:"attempts"` // how often it could not be handled, the first time counted
	ParkedAt   time.Time  `db:"parked_at" json:"parkedAt"`
	TriedAt    time.Time  `db:"tried_at" json:"triedAt"`
	Waiting    int64      `db:"waiting" json:"waiting"`             // events, up to the checkpoint
	Requested  string     `db:"requested_action" json:"requested"`  // retry or skip, while it is not done; else empty
	AskedAt    *time.Time `db:"requested_at" json:"askedAt"`        // when that was asked for
	Reached    int64      `db:"checkpoint_position" json:"reached"` // the checkpoint's position
	Owner      string     `db:"owner" json:"owner"`                 // who does it; empty: nobody at the moment
	Halted     bool       `db:"halted" json:"halted"`               // the checkpoint has no owner until it is resumed
}

// Waiting is an event that waits.
type Waiting struct {
	Position   int64     `json:"position"`
	EventID    uuid.UUID `json:"eventId"`
	Type       string    `json:"type"`
	RecordedAt time.Time `json:"recordedAt"`
	Data       string    `json:"data"` // the beginning of it
	Cut        bool      `json:"cut"`  // there is more of it
}

// Skipped is an event that was passed over for good.
type Skipped struct {
	Checkpoint string    `db:"checkpoint" json:"checkpoint"`
	Position   int64     `db:"position" json:"position"`
	EventID    uuid.UUID `db:"event_id" json:"eventId"`
	Stream     string    `db:"stream" json:"stream"`
	Type       string    `db:"type" json:"type"`
	Reason     string    `db:"reason" json:"reason"`
	By         string    `db:"skipped_by" json:"by"` // "policy" when the subscription asks for it
	At         time.Time `db:"skipped_at" json:"at"`
}

// Asked is a parked stream of which something was asked.
type Asked struct {
	Checkpoint string
	Stream     string
	Position   int64 // of the first event that waits
	Attempts   int
}

// ListParked returns up to limit parked streams of a checkpoint, or with an empty name of all, the longest parked first.
func ListParked(ctx context.Context, pool *pgxpool.Pool, checkpoint string, limit int) ([]Parked, error) {
	return listParked(ctx, pool, checkpoint, "", limit)
}

// FindParked returns a parked stream. False says that it is not parked.
func FindParked(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream string) (Parked, bool, error) {
	found, err := listParked(ctx, pool, checkpoint, stream, 1)
	if err != nil || len(found) == 0 {
		return Parked{}, false, err
	}
	return found[0], true, nil
}

func listParked(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream string, limit int) ([]Parked, error) {
	rows, err := pool.Query(ctx, sqlListParked, checkpoint, stream, limit)
	if err != nil {
		return nil, fmt.Errorf("listing parked streams: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Parked])
	if err != nil {
		return nil, fmt.Errorf("listing parked streams: %w", err)
	}
	return found, nil
}

// ListWaiting returns up to limit events of a parked stream that wait, the first one first, with up to size characters of
// the data of each.
func ListWaiting(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream string, size, limit int) ([]Waiting, error) {
	rows, err := pool.Query(ctx, sqlWaiting, checkpoint, stream, size, limit)
	if err != nil {
		return nil, fmt.Errorf("listing what waits: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Waiting])
	if err != nil {
		return nil, fmt.Errorf("listing what waits: %w", err)
	}
	return found, nil
}

// ListSkipped returns up to limit events that a checkpoint, or with an empty name any, passed over, the newest first.
func ListSkipped(ctx context.Context, pool *pgxpool.Pool, checkpoint string, limit int) ([]Skipped, error) {
	rows, err := pool.Query(ctx, sqlListSkipped, checkpoint, limit)
	if err != nil {
		return nil, fmt.Errorf("listing skipped events: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Skipped])
	if err != nil {
		return nil, fmt.Errorf("listing skipped events: %w", err)
	}
	return found, nil
}

// RetryParked asks the owner of a checkpoint to handle what waits of a stream, in order, and returns the streams of which it
// did not stand asked already. An empty stream stands for all of the checkpoint, and an empty checkpoint for all that somebody
// is to work on: those of tables that are kept or filled are left out. The owner does it within ConsumerConfig.RequestPoll, whichever process it is in, and when there is none, the next one
// does. Then the stream is no longer parked, or parked with another reason and one more attempt.
func RetryParked(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream, by string) ([]Asked, error) {
	return ask(ctx, pool, checkpoint, stream, actionRetry, by, "")
}

// SkipParked asks the owner of a checkpoint to pass over the first event that waits of a stream, for good, and then to go on
// as after RetryParked. It returns nothing when the stream is not parked or something is asked of it already.
func SkipParked(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream, by, reason string) ([]Asked, error) {
	if checkpoint == "" || stream == "" {
		return nil, fmt.Errorf("skipping an event needs the checkpoint and the stream")
	}
	return ask(ctx, pool, checkpoint, stream, actionSkip, by, reason)
}

// CountAsked tells of how many parked streams something is asked that is not done yet. An empty checkpoint is as for
// RetryParked.
func CountAsked(ctx context.Context, pool *pgxpool.Pool, checkpoint string) (streams int, err error) {
	if err := pool.QueryRow(ctx, sqlCountAsked, checkpoint).Scan(&streams); err != nil {
		return 0, fmt.Errorf("counting what is asked for: %w", err)
	}
	return streams, nil
}

func ask(ctx context.Context, pool *pgxpool.Pool, checkpoint, stream, action, by, reason string) ([]Asked, error) {
	rows, err := pool.Query(ctx, sqlAsk, checkpoint, stream, action, by, eventstore.Reason(reason))
	if err != nil {
		return nil, fmt.Errorf("asking for a %s: %w", action, err)
	}
	asked, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Asked])
	if err != nil {
		return nil, fmt.Errorf("asking for a %s: %w", action, err)
	}
	return asked, nil
}
