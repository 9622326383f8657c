package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// backlogMost bounds what ReadBacklog counts, so that it costs little when there are millions.
const backlogMost = 100_000

// Queue is how much waits in one table of messages.
type Queue struct {
	Due    int64         // messages that are due now; 100,000 stands for that or more
	Dead   int64         // those whose attempts are used up; likewise
	Oldest time.Duration // for how long the one that is due longest has been due, by the database's clock; 0: none is due
}

// Backlog is what waits to be delivered to the outside, and what came from there and waits to be handled.
type Backlog struct{ Outbox, Inbox Queue }

// ReadBacklog reads the backlog with one statement.
func ReadBacklog(ctx context.Context, pool *pgxpool.Pool) (Backlog, error) {
	var b Backlog
	var out, in float64
	err := pool.QueryRow(ctx, sqlBacklog, backlogMost).
		Scan(&b.Outbox.Due, &b.Outbox.Dead, &out, &b.Inbox.Due, &b.Inbox.Dead, &in)
	if err != nil {
		return b, fmt.Errorf("reading how many messages wait: %w", err)
	}
	b.Outbox.Oldest, b.Inbox.Oldest = time.Duration(out*float64(time.Second)), time.Duration(in*float64(time.Second))
	return b, nil
}
