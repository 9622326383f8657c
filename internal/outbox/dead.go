package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DeadLetter is a message whose attempts are used up.
type DeadLetter struct {
	ID        uuid.UUID
	Topic     string
	Key       string
	Payload   json.RawMessage
	Headers   map[string]string
	Attempts  int
	CreatedAt time.Time
	DeadAt    time.Time
	LastError string
}

// ListDead returns up to limit dead letters, the oldest death first.
func ListDead(ctx context.Context, pool *pgxpool.Pool, limit int) ([]DeadLetter, error) {
	rows, err := pool.Query(ctx, sqlListDead, limit)
	if err != nil {
		return nil, fmt.Errorf("listing dead letters: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l DeadLetter, err error) {
		err = row.Scan(&l.ID, &l.Topic, &l.Key, (*[]byte)(&l.Payload), &l.Headers, &l.Attempts, &l.CreatedAt, &l.DeadAt,
			&l.LastError)
		return l, err
	})
}

// RetryDead makes dead letters due again with all their attempts, and returns how many there were.
func RetryDead(ctx context.Context, pool *pgxpool.Pool, ids ...uuid.UUID) (int64, error) {
	tag, err := pool.Exec(ctx, sqlRetryDead, ids)
	if err != nil {
		return 0, fmt.Errorf("retrying dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}

// DiscardDead deletes dead letters for good, and returns how many there were.
func DiscardDead(ctx context.Context, pool *pgxpool.Pool, ids ...uuid.UUID) (int64, error) {
	tag, err := pool.Exec(ctx, sqlDiscardDead, ids)
	if err != nil {
		return 0, fmt.Errorf("discarding dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}
