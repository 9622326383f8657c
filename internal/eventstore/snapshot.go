package eventstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
)

// Snapshot reads the log, the claims and the receipts as they were at one moment. It can write nothing: the database
// refuses it. It is for one goroutine, and ends with the function it was given to.
type Snapshot struct {
	tx   pgx.Tx
	head Token
	now  time.Time
}

// Snapshot calls read with a snapshot of now, and returns its error. It holds a connection of the pool as long as read
// takes.
func (s *Store) Snapshot(ctx context.Context, read func(*Snapshot) error) error {
	readOnly := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, s.pool, readOnly, func(tx pgx.Tx) error {
		at := &Snapshot{tx: tx}
		err := tx.QueryRow(ctx, sqlSnapshot).Scan(&at.head.LogID, &at.head.Epoch, &at.head.Position, &at.head.EventID, &at.now)
		if err != nil {
			return fmt.Errorf("reading the head of the log: %w", err)
		}
		return read(at)
	})
}

// Head is the newest event that the snapshot has.
func (s *Snapshot) Head() Token { return s.head }

// Now is when an event that was appended to the snapshot would be recorded.
func (s *Snapshot) Now() time.Time { return s.now }

// Stream goes through one stream after a version, page by page, to its end.
func (s *Snapshot) Stream(ctx context.Context, stream string, after int64) iter.Seq2[Event, error] {
	return streamPages(stream, after, func(after int64) ([]Event, error) {
		return readEvents(ctx, s.tx, sqlReadStream, stream, after, defaultPage)
	})
}

// StreamVersion returns the version of a stream's newest event, 0 when there is no such stream.
func (s *Snapshot) StreamVersion(ctx context.Context, stream string) (int64, error) {
	return streamVersion(ctx, s.tx, stream)
}

// FindReceipt is Store.FindReceipt, as of the snapshot.
func (s *Snapshot) FindReceipt(ctx context.Context, id CommandID) (Receipt, bool, error) {
	return findReceipt(ctx, s.tx, id)
}

// Judge says of a draft's claims what Append would: nil, or a *ClaimTakenError for the first key that the stream cannot
// take, or else for the first that it cannot give back.
func (s *Snapshot) Judge(ctx context.Context, d Draft) error {
	if len(d.Claim)+len(d.Release) == 0 {
		return nil
	}
	var taken ClaimTakenError
	err := s.tx.QueryRow(ctx, sqlJudgeClaims, d.Stream, d.Claim, d.Release).Scan(&taken.Key, &taken.Owner)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking up claims of %s: %w", d.Stream, err)
	}
	return &taken
}

// Draft is a request as it would be written.
type Draft struct {
	Stream   string
	Events   []Event  // of the request's own stream; without position, version and time
	Claim    []string // keys that Stream would take
	Release  []string // keys that it would give back
	Messages []Message
}

// Draft checks a request against the limits as Append does, and writes nothing. Requests of several streams are not
// drafted.
//
// Errors: *InvalidRequestError, *UnknownEventError.
func (s *Store) Draft(r Request) (Draft, error) {
	if len(r.Also) > 0 {
		return Draft{}, invalid("also", "a draft has one stream")
	}
	p, err := s.prepare(&r)
	if err != nil {
		return Draft{}, err
	}
	d := Draft{Stream: r.Stream, Claim: p.claims, Release: p.releases}
	for _, e := range p.events {
		d.Events = append(d.Events, Event{
			ID: e.id, Stream: r.Stream, Type: e.typ, SchemaVersion: int(e.schemaVersion), Data: e.data, Metadata: p.metadata,
		})
	}
	for _, m := range p.messages {
		d.Messages = append(d.Messages, m.Message)
	}
	return d, nil
}
