package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/outbox"
)

// Fulfilment says how the example's orders are paid and shipped.
type Fulfilment struct {
	ShipWithin time.Duration  `name:"ship-within" env:"SHIP_WITHIN" default:"168h" help:"How long after its payment an order that is not shipped is given up, and the payment refunded."`
	Simulate   *time.Duration `name:"simulate-outside" env:"SIMULATE_OUTSIDE" placeholder:"DURATION" help:"Answer, this long after, in the place of a payment provider and a carrier; 0 answers nothing. Only in development with BROKER=local, and then 20s unless given."`
}

func (f *Fulfilment) validate(environment string, shared bool) error {
	if f.ShipWithin <= 0 {
		return fmt.Errorf("SHIP_WITHIN (--ship-within) is %v: give a time above zero, such as 168h", f.ShipWithin)
	}
	if f.Simulate != nil && *f.Simulate != 0 && (*f.Simulate < 0 || shared || environment == production) {
		return errors.New("SIMULATE_OUTSIDE (--simulate-outside) is for development with BROKER=local: give a time such as 20s there, or unset it")
	}
	return nil
}

// simulate is how long after a request the outside is simulated; 0: not at all.
func (c *Config) simulate() time.Duration {
	switch {
	case c.shared() || !c.development():
		return 0
	case c.Simulate != nil:
		return *c.Simulate
	default:
		return 20 * time.Second
	}
}

type (
	orderHandler      = commands.Handler[order.Command, order.Event, order.State]
	fulfilmentHandler = commands.Handler[fulfilment.Command, fulfilment.Event, fulfilment.State]
)

// fulfil runs the process manager of orders: what it hears of the log, of the clock and of the outside.
func (a *app) fulfil(consume consumers, registry *eventstore.Registry, messages pubSub, orders *orderHandler, processes *fulfilmentHandler) []outbox.InboxRoute {
	// From now: orders that were placed before the process manager was there are not to be paid again.
	consume.react(fulfilment.Name, reactAll(registry, outbox.FromNow, fulfilment.Types(), func(ctx context.Context, e eventstore.Event, p eventstore.Payload) (err error) {
		process, ofOrder := fulfilment.React(p)
		switch {
		case process != nil:
			_, err = processes.Handle(ctx, fulfilment.ForOrder(e.Stream), process, commands.React(fulfilment.Name, e))
		case ofOrder != nil:
			_, err = orders.Handle(ctx, fulfilment.OrderOf(e.Stream), ofOrder, commands.React(fulfilment.Name, e))
		}
		var refused *commands.Rejection
		if errors.As(err, &refused) && fulfilment.ForAPerson(ofOrder, refused) {
			return fmt.Errorf("refused with %s: %w", refused.Code, err) // parks the stream, where it is seen
		}
		return unlessRefused(err)
	}))
	a.receive(messages, fulfilment.TopicDeadline, receive(func(ctx context.Context, m *message.Message, d commands.Deadline) error {
		_, err := processes.Handle(ctx, d.Stream, fulfilment.Expire{Deadline: d.Name},
			commands.Call{CommandID: m.UUID, Who: identity.System(identity.SystemPrefix + fulfilment.Name), CausationID: m.UUID})
		return unlessRefused(err)
	}))
	a.provide(messages, fulfilment.TopicPaymentRequested, fulfilment.TopicRefundRequested, fulfilment.TopicShipmentRequested)
	if !a.config.shared() {
		a.simulateOutside(messages)
	}
	var routes []outbox.InboxRoute
	for _, topic := range fulfilment.Topics() {
		routes = append(routes, outbox.InboxRoute{Topic: topic, Handle: func(ctx context.Context, m outbox.Incoming) error {
			var answer fulfilment.Answer
			if err := json.Unmarshal(m.Data, &answer); err != nil {
				return outbox.Dead(fmt.Errorf("reading the content: %w", err))
			}
			if !strings.HasPrefix(answer.OrderID, order.Category+"-") {
				return outbox.Dead(fmt.Errorf("%q is no order's id", answer.OrderID))
			}
			_, err := processes.Handle(ctx, fulfilment.ForOrder(answer.OrderID), answer.Command(topic),
				commands.Call{CommandID: m.ID, Who: identity.Inbox(topic), CausationID: m.ID})
			return deadIfRefused(err, fulfilment.CodeNotFound)
		}})
	}
	return routes
}

// simulateOutside receives what is meant for a payment provider and a carrier where no broker leads to any. It logs what they
// are asked for, and answers in their place if that is wanted.
func (a *app) simulateOutside(messages pubSub) {
	stand := func(asked, answer string, with func(r fulfilment.Request, id string) fulfilment.Answer) {
		a.receive(messages, asked, receive(func(ctx context.Context, m *message.Message, r fulfilment.Request) error {
			after := a.config.simulate()
			a.log.Info("the outside is asked", "topic", asked, "order", r.OrderID, "message", m.UUID, "simulated", after.String())
			if after == 0 {
				return nil
			}
			content, err := json.Marshal(with(r, m.UUID))
			if err != nil {
				return err
			}
			_, err = outbox.SendReceived(ctx, a.pool, answer, m.UUID, content, after)
			return err
		}))
	}
	stand(fulfilment.TopicPaymentRequested, fulfilment.TopicPaymentCaptured, func(r fulfilment.Request, id string) fulfilment.Answer {
		return fulfilment.Answer{OrderID: r.OrderID, Reference: "simulated-" + id, Amount: *r.Amount}
	})
	stand(fulfilment.TopicShipmentRequested, fulfilment.TopicShipmentDispatched, func(r fulfilment.Request, id string) fulfilment.Answer {
		return fulfilment.Answer{OrderID: r.OrderID, TrackingCode: "simulated-" + id}
	})
	stand(fulfilment.TopicRefundRequested, fulfilment.TopicPaymentRefunded, func(r fulfilment.Request, _ string) fulfilment.Answer {
		return fulfilment.Answer{OrderID: r.OrderID, Reference: r.Reference}
	})
}
