package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// AppendIn appends within a transaction of the caller's: f writes what it likes through tx and returns the request;
// then the append and the commit go out together, so the log's lock is never held while f runs. When f fails, or the
// request is not accepted, everything is rolled back. A command id that was used before rolls f's writes back too, and
// answers with the first receipt: those writes were done the first time.
//
// f must neither commit nor roll back, and must not change the isolation level, which is read committed. The
// request needs an event or a command id. Errors are those of Append, and f's own.
func (s *Store) AppendIn(ctx context.Context, f func(tx pgx.Tx) (Request, error)) (Receipt, error) {
	if s.appender.isClosed() {
		return Receipt{}, ErrClosed
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Receipt{}, fmt.Errorf("acquiring a connection: %w", err)
	}
	defer conn.Release()
	if err := s.prepareStatements(ctx, conn.Conn()); err != nil {
		return Receipt{}, err
	}
	known := s.guard()
	tx, err := s.begin(ctx, conn)
	if err != nil {
		return Receipt{}, err
	}
	rollback := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(ctx)
	}
	request, err := f(tx)
	if err != nil {
		rollback()
		return Receipt{}, err
	}
	prepared, err := s.prepare(&request)
	if err != nil {
		rollback()
		return Receipt{}, err
	}
	if len(prepared.events) == 0 && request.CommandID.ID == "" {
		rollback()
		return Receipt{}, invalid("events", "an append in a transaction needs an event or a command id")
	}
	if status := conn.Conn().PgConn().TxStatus(); status != 'T' {
		rollback()
		return Receipt{}, errors.New("the function of AppendIn ended or broke its transaction")
	}
	if request.Epoch != 0 && request.Epoch != known.epoch {
		rollback()
		return Receipt{}, &HistoryError{Stream: request.Stream, Epoch: known.epoch}
	}
	alone := &pending{prepared: prepared}
	got, err := s.finish(ctx, conn.Conn().PgConn(), known, alone)
	if err == nil {
		s.count([]*pending{alone}, []answer{got})
	}
	if got.err != nil || got.receipt.Duplicate || err != nil {
		rollback()
	}
	if errors.Is(err, errHistory) {
		conn.Release()
		err = s.Review(ctx)
		known = s.guard()
		return Receipt{}, errors.Join(&HistoryError{Stream: request.Stream, Epoch: known.epoch}, err)
	}
	if err != nil {
		return Receipt{}, err
	}
	if got.receipt.Duplicate {
		conn.Release()
		return knownReceipt(ctx, s.pool, request.CommandID)
	}
	return got.receipt, got.err
}

func (s *Store) begin(ctx context.Context, conn *pgxpool.Conn) (pgx.Tx, error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("beginning the transaction: %w", err)
	}
	// After a query the isolation level is fixed; a caller that tries to change it gets Postgres's error.
	_, err = tx.Exec(ctx, sqlSettle, milliseconds(s.cfg.LockTimeout), milliseconds(s.cfg.IdleTimeout))
	if err != nil {
		_ = tx.Rollback(ctx)
		return nil, fmt.Errorf("setting the transaction's limits: %w", err)
	}
	return tx, nil
}

// finish sends lock, append, guard and commit in one round trip. The guard fails the transaction when the request was
// not accepted; the verdict that came before it says why.
func (s *Store) finish(ctx context.Context, conn *pgconn.PgConn, known guard, p *pending) (answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.SendTimeout)
	defer cancel()
	var e encoder
	batch := []*pending{p}
	plan := e.encodeFull(batch)
	var last [16]byte
	if n := len(p.events); n > 0 {
		last = p.events[n-1].id
	}
	id := p.request.CommandID
	pipeline := conn.StartPipeline(ctx)
	s.sendStatement(pipeline, nameLockFull, known.values())
	s.sendStatement(pipeline, nameFull, plan.values)
	s.sendStatement(pipeline, nameGuard, [][]byte{last[:], []byte(id.Actor), []byte(id.ID)})
	pipeline.SendQueryParams("commit", nil, nil, nil, nil)
	answers, err := s.receiveIn(pipeline, plan, batch)
	if closeErr := pipeline.Close(); err == nil {
		err = closeErr
	}
	if len(answers) == 1 && (answers[0].err != nil || answers[0].receipt.Duplicate) {
		return answers[0], nil
	}
	var refused *pgconn.PgError
	switch {
	case err == nil:
		s.committed(answers[0].receipt.Token)
		return answers[0], nil
	case errors.As(err, &refused) && !conn.IsClosed():
		return answer{}, fmt.Errorf("appending to %s: %w", p.parts[0].stream, err)
	}
	return answer{}, &UnknownOutcomeError{CommandID: id.ID, Err: err}
}

func (s *Store) receiveIn(pipeline *pgconn.Pipeline, plan plan, batch []*pending) ([]answer, error) {
	answers, err := readAppend(pipeline, plan, batch)
	if err != nil {
		return nil, err
	}
	for _, step := range []string{"guard", "commit"} {
		if err := eachRow(pipeline, func([][]byte) error { return nil }); err != nil {
			return answers, fmt.Errorf("%s: %w", step, err)
		}
	}
	_, err = pipeline.GetResults()
	return answers, err
}
