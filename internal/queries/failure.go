package queries

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// queryCancelled is what Postgres says of a statement that it gave up, at its statement_timeout for one.
const queryCancelled = "57014"

// failed says what was being read. A statement that Postgres gave up is also a context.DeadlineExceeded, as if the
// deadline had been the caller's.
func failed(what string, err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == queryCancelled {
		return fmt.Errorf("%s: %w: %w", what, context.DeadlineExceeded, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
