package queries

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// UnknownCheckpointError says that there is no checkpoint of this name, or none on which the wanted can be done.
type UnknownCheckpointError struct{ Name, Reason string }

func (e *UnknownCheckpointError) Error() string {
	return fmt.Sprintf("checkpoint %q: %s", e.Name, e.Reason)
}

// Pause bids all shards of a checkpoint stand still, be it of a view, a policy or a relay: when it returns, its owner has
// lost the lease, nothing more is committed under it, and no process takes it until Resume. What the owner had in hand is
// rolled back; a policy's reaction or a relay's message that was on its way is repeated after Resume. By says who asked.
// A checkpoint that is paused already stays so, by whom it was. The name may be a view's: then it is that of its serving
// table, which is returned. It is an *UnknownCheckpointError when there is none, or when it is that of a table that does
// not serve and nobody works on.
func Pause(ctx context.Context, pool *pgxpool.Pool, name, by string) (checkpoint string, err error) {
	if checkpoint, err = CheckpointNamed(ctx, pool, name); err != nil {
		return "", err
	}
	tag, err := pool.Exec(ctx, sqlPause, checkpoint, by)
	if err != nil {
		return "", fmt.Errorf("pause %s: %w", checkpoint, err)
	}
	if tag.RowsAffected() == 0 {
		return "", &UnknownCheckpointError{checkpoint, "nobody could work on it: it was never begun, or its table is kept or being filled"}
	}
	return checkpoint, nil
}

// Resume ends a pause or a halt of all shards of a checkpoint, whose name is as for Pause. It is an
// *UnknownCheckpointError when it is neither paused nor halted.
func Resume(ctx context.Context, pool *pgxpool.Pool, name string) (checkpoint string, err error) {
	if checkpoint, err = CheckpointNamed(ctx, pool, name); err != nil {
		return "", err
	}
	tag, err := pool.Exec(ctx, sqlResume, checkpoint)
	if err != nil {
		return "", fmt.Errorf("resume %s: %w", checkpoint, err)
	}
	if tag.RowsAffected() == 0 {
		return "", &UnknownCheckpointError{checkpoint, "it is neither paused nor halted"}
	}
	return checkpoint, nil
}

// CheckpointNamed is the checkpoint that a name stands for: that of a checkpoint for itself, also when a view is called the
// same, which a policy's may be; and a view for that of the table that serves it. Any other is an *UnknownCheckpointError.
func CheckpointNamed(ctx context.Context, pool *pgxpool.Pool, name string) (string, error) {
	var checkpoint string
	var known bool
	if err := pool.QueryRow(ctx, sqlCheckpointOf, name).Scan(&checkpoint, &known); err != nil {
		return "", fmt.Errorf("look up %s: %w", name, err)
	}
	if !known {
		return "", &UnknownCheckpointError{name, "there is no view and no checkpoint of this name"}
	}
	return checkpoint, nil
}
