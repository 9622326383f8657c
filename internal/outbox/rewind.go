package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Judgement says whether a checkpoint is of the log as it is.
type Judgement struct {
	Name       string `json:"name"`
	Shard      int    `json:"shard"`
	Position   int64  `json:"position"`
	Epoch      int32  `json:"epoch"` // of the log, when the checkpoint moved last
	Head       int64  `json:"head"`
	Matches    bool   `json:"matches"` // its event is still in the log
	HaltReason string `json:"haltReason,omitempty"`
}

// JudgeCheckpoints compares all checkpoints with the log.
func JudgeCheckpoints(ctx context.Context, pool *pgxpool.Pool) ([]Judgement, error) {
	rows, err := pool.Query(ctx, sqlJudge)
	if err != nil {
		return nil, fmt.Errorf("judging checkpoints: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Judgement])
	if err != nil {
		return nil, fmt.Errorf("judging checkpoints: %w", err)
	}
	return all, nil
}

// ErrNoCheckpoint says that there is no checkpoint of the name, or no event at the position.
var ErrNoCheckpoint = errors.New("there is no such checkpoint, or the log has no such position")

// Rewind moves a checkpoint with all its shards to a position of the log, and takes it from its owner, which takes it again
// at once. What follows the position is handed over again: a policy must know repeats by its command ids, and a broker's
// receivers by event ids. What lies before it is handed over to nobody. It is not for projections, whose tables have to be
// rebuilt instead. ErrNoCheckpoint says that nothing was done.
func Rewind(ctx context.Context, pool *pgxpool.Pool, name string, position int64) error {
	tag, err := pool.Exec(ctx, sqlRewind, name, position)
	if err != nil {
		return fmt.Errorf("rewinding checkpoint %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoCheckpoint
	}
	return nil
}
