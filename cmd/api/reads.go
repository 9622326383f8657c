package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// openReads opens the connections that views are read with. They are apart from those of the log, the projections and
// the outbox, so that slow reads take none of these away, and Postgres gives up a statement on them after the timeout.
// Nothing else may have that: an append or a batch of a projection must not be cut off. A timeout of 0 sets none.
func openReads(ctx context.Context, config *pgxpool.Config, size int, timeout time.Duration) (*pgxpool.Pool, error) {
	if size > 0 {
		config.MaxConns = int32(size)
	}
	if timeout > 0 {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, sqlStatementTimeout, strconv.FormatInt(timeout.Milliseconds(), 10), int64(conn.PgConn().PID()))
			return err
		}
	}
	reads, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the pool of connections for reads: %w", err)
	}
	return reads, nil
}

// connectionsForReads is how many of all connections are for reads: half, and what the rest of the program can spare.
// 0 is not said.
func connectionsForReads(all int) int {
	if all == 0 {
		return 0
	}
	return max(1, min(all/2, all-6))
}
