// Package commands turns a command into events: it loads the state of one stream, lets a pure Decider judge, and appends
// what was decided with the version it was judged at.
//
// It promises:
//
//   - No lost update. What is appended was decided on exactly the state that it follows.
//
//   - A refusal is judged on the newest state. The state kept in memory is used alone only for decisions that append,
//     since the log checks those; any other answer is given after the stream was read up to its end.
//
//   - The same command twice, under one command id, has one effect and one receipt, also when the state moved on in
//     between and would refuse now, and also when the first answer was lost. Receipts are kept as long as the event
//     store keeps them.
//
//   - Commands on one stream in one process wait for each other in the order they came instead of fighting for the
//     version. Between processes the first to reach the log wins and the others are judged again, a bounded number of
//     times.
//
//   - Who may do what is judged by the write model, on the same state as the decision, and first: to whom a command is
//     forbidden learns nothing of the stream, not even its version or whether it exists.
//
// It does not promise that a command is carried out in the order of its request, nor a rule across streams other than
// unique claims. It authenticates nobody: who asks is for the caller to know.
package commands

import (
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
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
	// May says who may do what: nil, or an error, as a rule Forbidden. It is asked before everything else, also on the
	// state of a stream without events. Nil: everybody may do everything.
	May func(state S, command C, who identity.Identity) error
	// Decide says what happens next: events; none when what is asked for is so already; or an error, as a rule a
	// *Rejection.
	Decide func(state S, command C) ([]E, error)
	// Evolve is the state after an event. It accepts every event that was ever recorded and refuses none.
	Evolve func(state S, event E) S
	// Effects derives what else is written with the events, in the same transaction. It is called only when there are
	// events. Nil: nothing else is.
	Effects func(before S, events []E) Effects
}

// Judge answers a command on a state: it asks May, and then decides. Whoever asks a decider outside of a Handler should
// ask here.
func (d Decider[C, E, S]) Judge(state S, command C, who identity.Identity) ([]E, error) {
	if d.May != nil {
		if err := d.May(state, command, who); err != nil {
			return nil, err
		}
	}
	return d.Decide(state, command)
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

	// Who asks. The zero value is nobody, and may do what everybody may. The subject is the actor that the events name,
	// beside the roles, and command ids are unique for each.
	Who identity.Identity

	CorrelationID string // of the request or process that all this belongs to
	CausationID   string // of the event or message that led to this command
	Trace         eventstore.Trace

	// Epoch is that of the log in which the event was found that led to this command. When the log has another one, the
	// event may be no more: the command is then answered with an *eventstore.HistoryError, and never tried again by itself.
	// 0: what led to it is not in the log, such as a client's wish.
	Epoch int32
}

func (c Call) metadata() eventstore.Metadata {
	return eventstore.Metadata{
		CommandID:     c.CommandID,
		Actor:         c.Who.Subject,
		Roles:         c.Who.Roles,
		CorrelationID: c.CorrelationID,
		CausationID:   c.CausationID,
		Trace:         c.Trace,
	}
}
