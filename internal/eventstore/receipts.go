package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// FindReceipt returns the stored receipt of a command id, marked Duplicate, and false when there is none. A receipt with
// another hash than id.Hash is a *CommandIDReusedError.
func (s *Store) FindReceipt(ctx context.Context, id CommandID) (Receipt, bool, error) {
	return findReceipt(ctx, s.pool, id)
}

// querier is the pool, the committer's own connection, or a snapshot's transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func findReceipt(ctx context.Context, q querier, id CommandID) (Receipt, bool, error) {
	if id.ID == "" {
		return Receipt{}, false, nil
	}
	r := Receipt{CommandID: id.ID, Duplicate: true}
	var hash []byte
	err := q.QueryRow(ctx, sqlReceipt, id.Actor, id.ID).Scan(
		&r.Stream, &r.Version, &r.Token.Position, &r.Token.EventID, &r.Token.Epoch, &r.Token.LogID, &hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return Receipt{}, false, nil
	}
	if err != nil {
		return Receipt{}, false, fmt.Errorf("looking for the receipt of command %s: %w", id.ID, err)
	}
	if !bytes.Equal(hash, id.Hash[:]) {
		return Receipt{}, false, &CommandIDReusedError{Actor: id.Actor, ID: id.ID}
	}
	return r, true, nil
}

// knownReceipt is the receipt of a command id that an append found in use.
func knownReceipt(ctx context.Context, q querier, id CommandID) (Receipt, error) {
	receipt, found, err := findReceipt(ctx, q, id)
	var reused *CommandIDReusedError
	switch {
	case errors.As(err, &reused):
		return Receipt{}, err
	case err == nil && !found:
		err = errors.New("its receipt was deleted meanwhile")
	}
	if err != nil {
		return Receipt{}, &UnknownOutcomeError{CommandID: id.ID, Err: err}
	}
	return receipt, nil
}

// forgetEvery and forgetAtMost bound the deletes of old receipts: often and few, so that they never hold up appends.
const (
	forgetEvery  = time.Minute
	forgetAtMost = 10_000
)

func (s *Store) forgetReceipts(ctx context.Context) {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// A failure is not worth more than another try in a minute.
			for n, err := int64(forgetAtMost), error(nil); err == nil && n == forgetAtMost; {
				n, err = s.ForgetReceipts(ctx)
			}
		}
	}
}

// ForgetReceipts deletes a bounded number of receipts that are older than Config.ReceiptsKept and tells how many. The
// store does so by itself every minute, until none is left.
func (s *Store) ForgetReceipts(ctx context.Context) (int64, error) {
	tag, err := s.pool.Exec(ctx, sqlForget, s.cfg.ReceiptsKept.Seconds(), forgetAtMost)
	if err != nil {
		return 0, fmt.Errorf("deleting old receipts: %w", err)
	}
	return tag.RowsAffected(), nil
}
