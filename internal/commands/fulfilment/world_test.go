package fulfilment_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// stream is a stream with its write model, and how much of it the process manager has reacted to.
type stream[C commands.Command, E eventstore.Payload, S any] struct {
	decider commands.Decider[C, E, S]
	state   S
	events  []eventstore.Payload
	settled []bool // by event: what it led to was carried out, and its command id is known
	reacted int
	parked  bool
}

func begin[C commands.Command, E eventstore.Payload, S any](decider commands.Decider[C, E, S]) stream[C, E, S] {
	return stream[C, E, S]{decider: decider, state: decider.Initial(decidertest.Stream(decider.Category))}
}

func (s *stream[C, E, S]) handle(command C, who identity.Identity) ([]eventstore.Message, error) {
	before := s.state
	events, err := s.decider.Judge(before, command, who)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	for _, e := range events {
		s.state = s.decider.Evolve(s.state, e)
		s.events, s.settled = append(s.events, e), append(s.settled, false)
	}
	if s.decider.Effects == nil {
		return nil, nil
	}
	return s.decider.Effects(before, events).Messages, nil
}

// letter is a message that lies in the inbox, or a deadline.
type letter struct {
	what    string
	command fulfilment.Command
	who     identity.Identity
}

// world is an order, its process, and all who talk to them: the customer, staff, the payment provider, the carrier and the
// clock. What one says is heard by another whenever the draw has it.
type world struct {
	*rapid.T
	order   stream[order.Command, order.Event, order.State]
	process stream[fulfilment.Command, fulfilment.Event, fulfilment.State]
	letters []letter

	taken, asked []string // payments that were made, and those that the provider was asked to give back
	gone         bool     // the goods are
	alarms       []string // what a person was told: dead letters, and streams that were parked
}

var program = identity.System("policy:" + fulfilment.Name)

func (w *world) outside(topic string, answer fulfilment.Answer) {
	w.letters = append(w.letters, letter{topic + " " + answer.Reference, answer.Command(topic), identity.Inbox(topic)})
}

// send is what the outside, and the clock, make of what the process sends.
func (w *world) send(messages []eventstore.Message) {
	for _, m := range messages {
		var r fulfilment.Request
		var d commands.Deadline
		if err := errors.Join(json.Unmarshal(m.Payload, &r), json.Unmarshal(m.Payload, &d)); err != nil {
			w.Fatal(err)
		}
		switch m.Topic {
		case fulfilment.TopicDeadline:
			w.letters = append(w.letters, letter{"deadline " + d.Name, fulfilment.Expire{Deadline: d.Name}, program})
		case fulfilment.TopicRefundRequested:
			if slices.Contains(w.asked, r.Reference) || !slices.Contains(w.taken, r.Reference) {
				w.Fatalf("asked for %s, having %v and having asked for %v", r.Reference, w.taken, w.asked)
			}
			w.asked = append(w.asked, r.Reference)
			w.outside(fulfilment.TopicPaymentRefunded, fulfilment.Answer{Reference: r.Reference})
		case fulfilment.TopicShipmentRequested:
			for _, topic := range rapid.SampledFrom([][]string{
				{},
				{fulfilment.TopicShipmentDispatched},
				{fulfilment.TopicShipmentFailed},
				{fulfilment.TopicShipmentFailed, fulfilment.TopicShipmentDispatched},
			}).Draw(w.T, "the carrier") {
				w.gone = w.gone || topic == fulfilment.TopicShipmentDispatched
				w.outside(topic, fulfilment.Answer{})
			}
		}
	}
}

// people are what the customer and staff do, and what the provider does unasked. What the order refuses did not happen.
func (w *world) people() map[string]func() {
	ask := func(c order.Command) bool {
		_, err := w.order.handle(c, program)
		return err == nil
	}
	pay := func(reference string) {
		if ask(order.Pay{Reference: reference}) && !slices.Contains(w.taken, reference) {
			w.taken = append(w.taken, reference)
		}
	}
	capture := func(reference string) {
		if !slices.Contains(w.taken, reference) {
			w.taken = append(w.taken, reference)
		}
		w.outside(fulfilment.TopicPaymentCaptured, fulfilment.Answer{Reference: reference, Amount: eur(500)})
	}
	return map[string]func(){
		"pay p-1":     func() { pay("p-1") },
		"pay p-2":     func() { pay("p-2") },
		"capture p-1": func() { capture("p-1") },
		"capture p-2": func() { capture("p-2") },
		"capture p-3": func() { capture("p-3") },
		"refuse":      func() { w.outside(fulfilment.TopicPaymentRefused, fulfilment.Answer{Reason: "no funds"}) },
		"ship":        func() { w.gone = ask(order.Ship{}) || w.gone },
		"deliver":     func() { ask(order.Deliver{}) },
		"cancel":      func() { ask(order.Cancel{Reason: "dear"}) },
	}
}

// open has the process hear a letter.
func (w *world) open(i int) {
	l := w.letters[i]
	w.letters = slices.Delete(w.letters, i, i+1)
	messages, err := w.process.handle(l.command, l.who)
	var refused *commands.Rejection
	if errors.As(err, &refused) {
		w.alarms = append(w.alarms, l.what+": "+refused.Code)
	} else if err != nil {
		w.Fatal(err)
	}
	w.send(messages)
}

// react hands event i of a stream to the process manager, for the first time or again.
func (w *world) react(events []eventstore.Payload, settled []bool, i int) (forAPerson bool) {
	if settled[i] {
		return false
	}
	toProcess, toOrder := fulfilment.React(events[i])
	var messages []eventstore.Message
	var err error
	switch {
	case toProcess != nil:
		messages, err = w.process.handle(toProcess, program)
	case toOrder != nil:
		_, err = w.order.handle(toOrder, program)
	}
	var refused *commands.Rejection
	if errors.As(err, &refused) {
		return fulfilment.ForAPerson(toOrder, refused)
	}
	if err != nil {
		w.Fatal(err)
	}
	settled[i] = true
	w.send(messages)
	return false
}

// follow are the steps that the process manager may take with a stream.
func follow[C commands.Command, E eventstore.Payload, S any](w *world, s *stream[C, E, S]) map[string]func() {
	name := s.decider.Category
	steps := map[string]func(){}
	switch {
	case s.parked:
		steps["skip "+name] = func() { s.parked, s.reacted = false, s.reacted+1 }
	case s.reacted < len(s.events):
		steps["react to "+name] = func() {
			if s.parked = w.react(s.events, s.settled, s.reacted); s.parked {
				w.alarms = append(w.alarms, s.events[s.reacted].EventType()+" parked")
				return
			}
			s.reacted++
		}
	}
	return steps
}

// again has the process manager begin anew somewhere before, as one does that was killed before it noted where it was.
func again[C commands.Command, E eventstore.Payload, S any](w *world, s *stream[C, E, S]) {
	for i := rapid.IntRange(0, s.reacted).Draw(w.T, "from"); i < s.reacted; i++ {
		w.react(s.events, s.settled, i)
	}
}

// steps are all that may happen next, by name. With no wishes left only what was begun goes on.
func (w *world) steps(wishes *int) map[string]func() {
	steps := follow(w, &w.order)
	maps.Copy(steps, follow(w, &w.process))
	if w.process.state.Status != "" { // the inbox tries again what is before its time
		for i, l := range w.letters {
			steps[fmt.Sprintf("open %d, %s", i, l.what)] = func() { w.open(i) }
		}
	}
	if *wishes == 0 {
		return steps
	}
	for name, step := range w.people() {
		steps[name] = func() { *wishes--; step() }
	}
	steps["begin anew"] = func() { *wishes--; again(w, &w.order); again(w, &w.process) }
	for i, l := range w.letters {
		steps[fmt.Sprintf("say %d again, %s", i, l.what)] = func() { *wishes--; w.letters = append(w.letters, l) }
	}
	return steps
}

// Whoever hears what and when: at the end the money that was taken and not asked back is what the order says, all that is to
// go back went back, nothing waits for ever, and goods that are gone without an order are known to somebody. A refund that
// staff record is none of the process's, and of a payment of another amount a person is told.
func TestTheMoneyIsRightWhateverIsHeardWhen(t *testing.T) {
	t.Parallel()
	world := func(rt *rapid.T) {
		w := &world{T: rt, order: begin(order.Decider()), process: begin(fulfilment.Decider(fulfilment.Config{}))}
		place := order.Place{CartID: "cart-1", OwnerID: "ada", Total: eur(500), Items: []order.Item{{SKU: "a", Quantity: 1, UnitPrice: eur(500)}}}
		if _, err := w.order.handle(place, program); err != nil {
			rt.Fatal(err)
		}
		wishes := rapid.IntRange(0, 8).Draw(rt, "wishes")
		for steps := w.steps(&wishes); len(steps) > 0; steps = w.steps(&wishes) {
			steps[rapid.SampledFrom(slices.Sorted(maps.Keys(steps))).Draw(rt, "step")]()
		}
		w.check()
	}
	for range 20 { // what goes wrong takes several steps in a certain order
		rapid.Check(t, world)
	}
}

func (w *world) check() {
	o, p := w.order.state, w.process.state
	kept, end := 0, fulfilment.Ended
	switch {
	case o.Status == order.StatusShipped, o.Status == order.StatusDelivered:
		kept, end = 1, fulfilment.Finished
	case o.Status == order.StatusRefunded, o.Status == order.StatusCancelled && o.Reference == "":
	default:
		w.Fatalf("the order stays %s, paid with %q", o.Status, o.Reference)
	}
	if p.Status != end || len(p.Owed) > 0 {
		w.Fatalf("the order is %s, and the process stays %s, owing %v", o.Status, p.Status, p.Owed)
	}
	if len(w.taken)-len(w.asked) != kept {
		w.Fatalf("the order is %s; taken were %v, and asked back %v", o.Status, w.taken, w.asked)
	}
	if w.gone && kept == 0 && len(w.alarms) == 0 {
		w.Fatalf("the goods are gone, the order is %s, and nobody was told", o.Status)
	}
	if parked := slices.ContainsFunc(w.alarms, func(a string) bool { return strings.HasSuffix(a, " parked") }); parked && (kept == 1 || !w.gone) {
		w.Fatalf("a person was called for nothing: %v", w.alarms)
	}
	if kept == 1 && !w.gone {
		w.Fatalf("the order is %s, and the goods are there", o.Status)
	}
}
