package queries

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Reads is where the readers of views read: on the primary, and with a context that Replicas.Offer has made, on a replica
// that has what is asked for. It is safe for concurrent use.
type Reads struct {
	primary *pgxpool.Pool
}

// NewReads returns reads over the pool, which it does not close.
func NewReads(primary *pgxpool.Pool) *Reads { return &Reads{primary: primary} }

// Query runs sql and returns what collect makes of its rows, which it has to close, as pgx.CollectRows does. Collect may be
// called a second time, for another reading of the same. What names the reading in errors.
func Query[T any](
	ctx context.Context, r *Reads, what, sql string, args []any, collect func(pgx.Rows) (T, error),
) (T, error) {
	var found T
	if o := offerOf(ctx); o != nil {
		found, answered, err := fromReplica(ctx, o, sql, args, collect)
		if err != nil {
			return found, failed(what, err)
		}
		if answered {
			return found, nil
		}
		if err := o.settle(ctx); err != nil {
			return found, err
		}
	}
	rows, err := r.primary.Query(ctx, sql, args...)
	if err == nil {
		found, err = collect(rows)
	}
	if err != nil {
		return found, failed(what, err)
	}
	return found, nil
}
