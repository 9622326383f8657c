package pgtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Lose takes what follows a position out of the log, as an older copy of the disk does that is put back: the server is in
// the same place, the log in the same epoch, and nothing tells that anything is gone. Checkpoints beyond are moved back to
// it, and with them goes nothing of their tables.
func Lose(t testing.TB, pool *pgxpool.Pool, after int64) {
	t.Helper()
	err := pgx.BeginFunc(context.Background(), pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			`alter table events disable trigger events_insert_only`,
			`delete from events where position > $1`,
			`delete from receipts where position > $1`,
			`update checkpoints set position = $1, event_id = (select id from events where position = $1) where position > $1`,
			`alter table events enable trigger events_insert_only`,
		} {
			if _, err := tx.Exec(context.Background(), strings.ReplaceAll(sql, "$1", strconv.FormatInt(after, 10))); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("pgtest: losing what follows %d: %v", after, err)
	}
}
