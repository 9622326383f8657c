package decidertest

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// CheckPure carries out random histories of commands and fails when May, Decide or Evolve change what they were given, or
// answer differently the second time. States are shared between goroutines and kept after newer ones were made of them,
// so at each step it makes two successors of one state and compares all three with a fold from the start. The invariant,
// when there is one, must hold for every state.
func CheckPure[C commands.Command, E eventstore.Payload, S any](
	t testing.TB, decider commands.Decider[C, E, S], command *rapid.Generator[C], invariant func(t *rapid.T, state S),
) {
	t.Helper()
	stream := Stream(decider.Category)
	rapid.Check(t, func(t *rapid.T) {
		var history []E
		states := []S{decider.Initial(stream)} // states[i] is the state after history[:i], as it was made
		for _, cmd := range rapid.SliceOfN(command, 1, 40).Draw(t, "commands") {
			state := states[len(history)]
			events := decideTwice(t, decider, state, cmd)

			// The road not taken: another successor of the same state, made before the one that counts.
			other := decideTwice(t, decider, state, command.Draw(t, "other command"))
			branch := evolveAll(decider, state, other)

			for _, event := range events {
				history = append(history, event)
				states = append(states, decider.Evolve(states[len(history)-1], event))
			}
			same(t, "a state whose sibling was evolved", branch,
				evolveAll(decider, fold(decider, stream, history[:len(history)-len(events)]), other))
			if invariant != nil {
				invariant(t, states[len(history)])
			}
		}
		for i := range states {
			same(t, "a state that was evolved from", states[i], fold(decider, stream, history[:i]))
		}
	})
}

func decideTwice[C commands.Command, E eventstore.Payload, S any](
	t *rapid.T, decider commands.Decider[C, E, S], state S, cmd C,
) []E {
	if decider.May != nil {
		for _, who := range []identity.Identity{{}, {Subject: "somebody"}, {Subject: "clerk", Roles: []string{identity.Staff}}} {
			same(t, "what is forbidden", decider.May(state, cmd, who), decider.May(state, cmd, who))
		}
	}
	all := identity.System("policy:test")
	first, firstErr := decider.Judge(state, cmd, all)
	second, secondErr := decider.Judge(state, cmd, all)
	same(t, "the decision", first, second)
	same(t, "the refusal", firstErr, secondErr)
	if firstErr != nil && len(first) > 0 {
		t.Fatalf("%#v: refused with %v, and decided %+v", cmd, firstErr, first)
	}
	return first
}

func evolveAll[C commands.Command, E eventstore.Payload, S any](
	decider commands.Decider[C, E, S], state S, events []E,
) S {
	for _, event := range events {
		state = decider.Evolve(state, event)
	}
	return state
}

func same(t *rapid.T, what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s is not what it was:\ngot  %+v\nwant %+v", what, got, want)
	}
}
