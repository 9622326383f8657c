package eventstore

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/pgtest"
)

// The database itself keeps a snapshot from writing, whatever the code that uses it does.
func TestTheDatabaseRefusesWritesOfASnapshot(t *testing.T) {
	t.Parallel()
	store := &Store{pool: pgtest.Pool(t), cfg: Config{}.withDefaults()}
	err := store.Snapshot(t.Context(), func(s *Snapshot) error {
		_, err := s.tx.Exec(t.Context(), `insert into claims values ('key', 'stream')`)
		return err
	})
	const readOnlyTransaction = "25006"
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != readOnlyTransaction {
		t.Errorf("got %v", err)
	}
}
