// Package decidertest tests write models as given, when, then, with no database:
//
//	decidertest.Given(cart.Decider(), cart.Opened{OwnerID: "ada", Currency: "EUR"}).
//		When(cart.CheckOut{}).
//		ThenRejected(t, cart.CodeEmpty)
//
// Commands are judged for an identity that may do everything, unless As names another:
//
//	decidertest.Given(cart.Decider(), cart.Opened{OwnerID: "ada", Currency: "EUR"}).
//		As(identity.Identity{Subject: "eve"}).
//		When(cart.CheckOut{}).
//		ThenForbidden(t)
//
// It also checks what every write model owes the framework: that it is pure (CheckPure), and that the JSON of what it
// records does not change by accident (CheckGolden).
package decidertest

import (
	"errors"
	"reflect"
	"testing"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// Scenario is what happened to a stream so far.
type Scenario[C commands.Command, E eventstore.Payload, S any] struct {
	decider commands.Decider[C, E, S]
	stream  string
	events  []E
	who     identity.Identity
}

// Outcome is what came of a command.
type Outcome[C commands.Command, E eventstore.Payload, S any] struct {
	decider commands.Decider[C, E, S]
	before  S
	events  []E
	err     error
}

// Stream is the name of the stream in every scenario of a category.
func Stream(category string) string { return category + "-01890000-0000-7000-8000-000000000000" }

// Given begins a scenario with what was recorded.
func Given[C commands.Command, E eventstore.Payload, S any](
	decider commands.Decider[C, E, S], events ...E,
) Scenario[C, E, S] {
	return Scenario[C, E, S]{
		decider: decider, stream: Stream(decider.Category), events: events, who: identity.System("policy:test"),
	}
}

// As says who asks.
func (s Scenario[C, E, S]) As(who identity.Identity) Scenario[C, E, S] {
	s.who = who
	return s
}

// When carries out a command.
func (s Scenario[C, E, S]) When(command C) Outcome[C, E, S] {
	state := fold(s.decider, s.stream, s.events)
	events, err := s.decider.Judge(state, command, s.who)
	return Outcome[C, E, S]{decider: s.decider, before: state, events: events, err: err}
}

// Then expects exactly these events; none stands for a success that changes nothing.
func (o Outcome[C, E, S]) Then(t testing.TB, want ...E) {
	t.Helper()
	if o.err != nil {
		t.Fatalf("refused: %v, want %+v", o.err, want)
	}
	if len(o.events) != len(want) {
		t.Fatalf("got %+v, want %+v", o.events, want)
	}
	for i := range want {
		if !reflect.DeepEqual(o.events[i], want[i]) {
			t.Errorf("event %d: got %#v, want %#v", i, o.events[i], want[i])
		}
	}
}

// ThenRejected expects a *commands.Rejection with this code and returns it.
func (o Outcome[C, E, S]) ThenRejected(t testing.TB, code string) *commands.Rejection {
	t.Helper()
	var rejection *commands.Rejection
	if !errors.As(o.err, &rejection) {
		t.Fatalf("got events %+v and error %v, want the refusal %s", o.events, o.err, code)
	}
	if rejection.Code != code {
		t.Fatalf("refused with %s (%s), want %s", rejection.Code, rejection.Message, code)
	}
	if rejection.Message == "" {
		t.Errorf("the refusal %s says nothing", code)
	}
	return rejection
}

// ThenForbidden expects a *commands.ForbiddenError and returns it.
func (o Outcome[C, E, S]) ThenForbidden(t testing.TB) *commands.ForbiddenError {
	t.Helper()
	var forbidden *commands.ForbiddenError
	if !errors.As(o.err, &forbidden) {
		t.Fatalf("got events %+v and error %v, want it forbidden", o.events, o.err)
	}
	if forbidden.Message == "" {
		t.Error("the refusal says nothing")
	}
	return forbidden
}

// Effects is what is written beside the events. It fails the test when the command was refused.
func (o Outcome[C, E, S]) Effects(t testing.TB) commands.Effects {
	t.Helper()
	if o.err != nil {
		t.Fatalf("refused: %v", o.err)
	}
	if o.decider.Effects == nil || len(o.events) == 0 {
		return commands.Effects{}
	}
	return o.decider.Effects(o.before, o.events)
}

func fold[C commands.Command, E eventstore.Payload, S any](
	decider commands.Decider[C, E, S], stream string, events []E,
) S {
	state := decider.Initial(stream)
	for _, event := range events {
		state = decider.Evolve(state, event)
	}
	return state
}
