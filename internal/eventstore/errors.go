package eventstore

import (
	"fmt"
	"time"
)

// ConflictError says that a stream was not at the expected version. Nothing was written.
type ConflictError struct {
	Stream   string
	Expected ExpectedVersion
	Actual   int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("stream %s is at version %d, expected %s", e.Stream, e.Actual, e.Expected)
}

// ClaimTakenError says that a claimed key belongs to another stream, or that a released key does. Nothing was written.
type ClaimTakenError struct {
	Key   string
	Owner string // the stream that holds the key; empty when a release found the key free
}

func (e *ClaimTakenError) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("claim %q is not held", e.Key)
	}
	return fmt.Sprintf("claim %q is held by %s", e.Key, e.Owner)
}

// CommandIDReusedError says that a command id was used before for another command or another input. Nothing was written.
type CommandIDReusedError struct {
	Actor string
	ID    string
}

func (e *CommandIDReusedError) Error() string {
	return fmt.Sprintf("command id %q was used before with another command", e.ID)
}

// OverloadedError says that the append queue is full. Nothing was written; the caller may try again after RetryAfter.
type OverloadedError struct {
	Queued     int // requests waiting
	RetryAfter time.Duration
}

func (e *OverloadedError) Error() string {
	return fmt.Sprintf("the append queue is full: %d requests wait", e.Queued)
}

// UnknownOutcomeError says that the request was sent and its answer did not arrive: it may or may not have been written.
// A repeat with the same CommandID finds the truth.
type UnknownOutcomeError struct {
	CommandID string
	Err       error
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("the outcome of the append is unknown: %v", e.Err)
}

func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// UnknownEventError says that an event's type, or this version of its shape, is not in the registry.
type UnknownEventError struct {
	Type          string
	SchemaVersion int
}

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("event type %q, schema version %d, is not registered", e.Type, e.SchemaVersion)
}

// InvalidRequestError says that a request is over a limit or holds what Postgres would refuse. Nothing was sent.
type InvalidRequestError struct {
	Field  string // the part of the request at fault, such as "stream" or "events[2]"
	Reason string
}

func (e *InvalidRequestError) Error() string {
	return fmt.Sprintf("invalid append: %s: %s", e.Field, e.Reason)
}

// BeyondHeadError says that a position was asked for that the log has not reached.
type BeyondHeadError struct {
	Position int64
	Head     int64
}

func (e *BeyondHeadError) Error() string {
	return fmt.Sprintf("position %d is beyond the head of the log, %d", e.Position, e.Head)
}

// DivergedError says that a token or checkpoint belongs to another log, or to a history that this log no longer has.
type DivergedError struct {
	Position int64
	Reason   string
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("position %d belongs to another history: %s", e.Position, e.Reason)
}

// FutureError says that a time was asked for that the database's clock has not reached.
type FutureError struct {
	Time time.Time
	Now  time.Time
}

func (e *FutureError) Error() string {
	return fmt.Sprintf("%s is in the future: it is %s", e.Time.UTC().Format(time.RFC3339Nano), e.Now.UTC().Format(time.RFC3339Nano))
}
