package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// ErrForeign is returned by Return for a message that no dispatcher has sent.
var ErrForeign = errors.New("the message is not from an outbox")

// Return takes a message back that a receiver could not work on, so that it is not the broker that repeats it: the
// message is due again after a pause that grows each time, and the last time it is a dead letter. The receiver
// acknowledges it to the broker when Return was successful, and refuses it otherwise: at least once.
//
// It fails with ErrForeign for a message that it cannot keep, because its id or its payload is none of an outbox.
func (d *Dispatcher) Return(ctx context.Context, topic string, msg *message.Message, reason error) error {
	id, err := uuid.Parse(msg.UUID)
	attempt, err2 := strconv.Atoi(msg.Metadata.Get(MetaAttempt))
	created, err3 := time.Parse(time.RFC3339Nano, msg.Metadata.Get(MetaCreatedAt))
	if err := errors.Join(err, err2, err3); err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if !json.Valid(msg.Payload) {
		return fmt.Errorf("%w: its payload is no JSON", ErrForeign)
	}
	headers := maps.Clone(map[string]string(msg.Metadata))
	for _, own := range []string{MetaKey, MetaAttempt, MetaCreatedAt, MetaClaim, MetaHandedOut} {
		delete(headers, own)
	}
	times, _ := strconv.Atoi(headers[MetaReturned]) // absent: never
	times++
	headers[MetaReturned] = strconv.Itoa(times)

	var dead bool
	err = d.pool.QueryRow(ctx, sqlReturn, id, topic, msg.Metadata.Get(MetaKey), []byte(msg.Payload), headers, created, attempt,
		d.backOff(times).Seconds(), eventstore.Reason(reason.Error()), times >= d.cfg.Attempts).Scan(&dead)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("taking back message %s: %w", id, err)
	}
	if dead {
		d.cfg.Logger.Error("an outbox message is a dead letter", "id", id)
	}
	return nil
}
