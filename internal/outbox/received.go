package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrUnknownMessage is returned by ShowReceived for a message that is not in the inbox.
var ErrUnknownMessage = errors.New("the inbox has no such message")

// The states of a message in the inbox.
const (
	ReceivedWaiting = "waiting" // due, or to be tried again
	ReceivedDead    = "dead"    // of no use to try again, until somebody says so
	ReceivedHandled = "handled" // or discarded; the content is gone, the id stays known
)

// Received is a message in the inbox.
type Received struct {
	Topic       string            `json:"topic"`
	ID          string            `json:"id"`
	State       string            `json:"state"` // one of the constants
	Attempts    int               `json:"attempts"`
	ReceivedAt  time.Time         `json:"receivedAt"`
	AvailableAt time.Time         `json:"availableAt"` // when it is due; of no meaning unless it waits
	DeadAt      *time.Time        `json:"deadAt,omitempty"`
	HandledAt   *time.Time        `json:"handledAt,omitempty"`
	Size        int64             `json:"size"` // of the payload in bytes
	LastError   string            `json:"lastError,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Payload     []byte            `json:"payload,omitempty"` // as it came; only of ShowReceived
}

// ListReceived returns up to limit messages in a state, the oldest first, of one topic or, empty, of all.
func ListReceived(ctx context.Context, pool *pgxpool.Pool, state, topic string, limit int) ([]Received, error) {
	rows, err := pool.Query(ctx, sqlInboxList, state, topic, limit)
	if err != nil {
		return nil, fmt.Errorf("listing the inbox: %w", err)
	}
	return pgx.CollectRows(rows, scanReceived)
}

func scanReceived(row pgx.CollectableRow) (r Received, err error) {
	err = row.Scan(&r.Topic, &r.ID, &r.State, &r.Attempts, &r.ReceivedAt, &r.AvailableAt, &r.DeadAt, &r.HandledAt, &r.Size,
		&r.LastError, &r.Headers, &r.Payload)
	return r, err
}

// ShowReceived returns a message with its content, or ErrUnknownMessage.
func ShowReceived(ctx context.Context, pool *pgxpool.Pool, topic, id string) (Received, error) {
	rows, err := pool.Query(ctx, sqlInboxShow, topic, id)
	if err != nil {
		return Received{}, fmt.Errorf("reading the inbox: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanReceived)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, ErrUnknownMessage
	}
	return r, err
}

// RetryReceived makes dead letters of a topic due again with all their attempts, and returns how many there were. One of
// which only a part is kept stays dead.
func RetryReceived(ctx context.Context, pool *pgxpool.Pool, topic string, ids ...string) (int64, error) {
	tag, err := pool.Exec(ctx, sqlInboxRetry, topic, ids)
	if err != nil {
		return 0, fmt.Errorf("retrying messages from outside: %w", err)
	}
	return tag.RowsAffected(), nil
}

// DiscardReceived gives dead letters of a topic up, and returns how many there were. Their content is deleted and their ids
// stay known, so that they have no effect when they come again.
func DiscardReceived(ctx context.Context, pool *pgxpool.Pool, topic string, ids ...string) (int64, error) {
	tag, err := pool.Exec(ctx, sqlInboxDiscard, topic, ids)
	if err != nil {
		return 0, fmt.Errorf("discarding messages from outside: %w", err)
	}
	return tag.RowsAffected(), nil
}

// SendReceived puts a message into the inbox as if it had arrived, due after a while; known says that one of this id and
// content was there before, so that nothing was done. A message that an Inbox of the zero configuration would bury at once
// is an error.
func SendReceived(
	ctx context.Context, pool *pgxpool.Pool, topic, id string, payload []byte, after time.Duration,
) (known bool, err error) {
	a := InboxConfig{}.withDefaults().arrive(topic, message.NewMessage(id, payload))
	if a.flaw != "" {
		return false, errors.New(a.flaw)
	}
	a.after = after
	return put(ctx, pool, a)
}
