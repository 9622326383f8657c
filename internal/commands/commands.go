// Package commands turns a command into events: it loads the state of one stream, lets a pure Decider judge, and appends
// what was decided with the version it was judged at.
//
// It promises:
//   - No lost update. What is appended was decided on exactly the state that it follows.
//   - A refusal is judged on the newest state. The state kept in memory is used alone only for decisions that append,
//     since the log checks those; any other answer is given after the stream was read up to its end.
//   - The same command twice, under one command id, has one effect and one receipt, also when the state moved on in
//     between and would refuse now, and also when the first answer was lost. Receipts are kept as long as the event
//     store keeps them.
//   - Commands on one stream in one process wait for each other in the order they came instead of fighting for the
//     version. Between processes the first to reach the log wins and the others are judged again, a bounded number of
//     times.
//
// It does not promise that a command is carried out in the order of its request, nor a rule across streams other than
// unique claims. Who the actor is and what he may do is for the caller to know.
package commands

import (
	"github.com/headrace/headrace/internal/eventstore"
)

// Command asks for something. It is a value struct that encodes to JSON; its type and JSON together tell whether a
// command id is used for the same command again.
type Command interface {
	// CommandType is the command's name for ever, as noun.imperative: "cart.add_item".
	CommandType() string
}

// Decider is a write model: how one stream's state answers commands. All its functions are pure: they see no clock,
// context or connection, and never change what they are given, because states are kept and shared between goroutines.
type Decider[C Command, E eventstore.Payload, S any] struct {
	// Category is the part of the stream's name before the first hyphen. A command for a stream of another category
	// is answered as if that stream had no events, and never appends to it.
	Category string
	// Initial is the state of the named stream before its first event.
	Initial func(stream string) S
	// Decide says what happens next: events; none when what is asked for is so already; or an error, as a rule a
	// *Rejection.
	Decide func(state S, command C) ([]E, error)
	// Evolve is the state after an event. It accepts every event that was ever recorded and refuses none.
	Evolve func(state S, event E) S
	// Effects derives what else is written with the events, in the same transaction. It is called only when there are
	// events. Nil: nothing else is.
	Effects func(before S, events []E) Effects
}

// Effects is what a decision writes beside its events.
type Effects struct {
	Claim    []Claim  // unique keys that the stream takes
	Release  []string // unique keys that the stream gives back; a key that is claimed as well stays as it is
	Messages []eventstore.Message
}

// Claim is a unique key, and how its owner's noun says no when another stream holds it.
type Claim struct {
	Key   string     // such as "user.email:ada@example.org"
	Taken *Rejection // nil: the *eventstore.ClaimTakenError goes out as it is
}

// Call is what comes with a command and is not part of it.
type Call struct {
	// CommandID makes the command idempotent for its actor. Empty: every call is a new command.
	CommandID string
	// ExpectedVersion, when given, is the version that the stream must have. Another one is answered with a
	// *eventstore.ConflictError, and the command is never tried again by itself.
	ExpectedVersion *int64

	Actor         string // on whose behalf; command ids are unique for each actor
	CorrelationID string // of the request or process that all this belongs to
	CausationID   string // of the event or message that led to this command
}

func (c Call) metadata() eventstore.Metadata {
	return eventstore.Metadata{
		CommandID:     c.CommandID,
		Actor:         c.Actor,
		CorrelationID: c.CorrelationID,
		CausationID:   c.CausationID,
	}
}
