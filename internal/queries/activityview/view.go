package activityview

import (
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// Projection declares the lines: a sentence for each type of event. Whom a line concerns is said by the event that
// begins a stream; the others find it in the lines that are there.
func Projection(registry *eventstore.Registry) (queries.Projection, error) {
	return queries.NewProjection(
		registry, Name, 1,
		line(func(p cart.Opened) (string, string) { return p.OwnerID, "opened a cart in " + p.Currency }),
		line(func(p cart.ItemAdded) (string, string) {
			return "", fmt.Sprintf("put %d × %s in the cart", p.Quantity, p.Name)
		}),
		line(func(p cart.QuantityChanged) (string, string) {
			return "", fmt.Sprintf("changed the quantity of %s to %d", p.SKU, p.Quantity)
		}),
		line(func(p cart.ItemRemoved) (string, string) { return "", "took " + p.SKU + " out of the cart" }),
		line(func(p cart.CheckedOut) (string, string) {
			return p.OwnerID, "checked out the cart with " + lines(len(p.Items))
		}),
		line(func(cart.Abandoned) (string, string) { return "", "abandoned the cart" }),

		line(func(p order.Placed) (string, string) { return p.OwnerID, "placed an order of " + lines(len(p.Items)) }),
		line(func(p order.Paid) (string, string) { return "", "paid the order, reference " + p.Reference }),
		line(func(p order.Shipped) (string, string) {
			return "", with("the order was shipped", ", tracking code ", p.TrackingCode)
		}),
		line(func(order.Delivered) (string, string) { return "", "the order was delivered" }),
		line(func(p order.Cancelled) (string, string) { return "", with("the order was cancelled", ": ", p.Reason) }),
		line(func(p order.Refunded) (string, string) { return "", with("the order was refunded", ": ", p.Reason) }),

		own(func(p user.Registered) string { return "registered as " + p.Name }),
		own(func(p user.Renamed) string { return "is now called " + p.Name }),
		own(func(user.EmailChanged) string { return "changed the e-mail address" }),
		own(func(p user.Deactivated) string { return with("was deactivated", ": ", p.Reason) }),
	)
}

// line queues a line of an event whose payload says the owner (empty: unknown here) and the sentence.
func line[P eventstore.Payload](say func(P) (owner, summary string)) queries.Handler {
	return queries.On(func(e eventstore.Event, p P, q *queries.Queue) {
		owner, summary := say(p)
		add(q, e, owner, summary)
	})
}

// own queues a line of a user's own stream.
func own[P eventstore.Payload](say func(P) string) queries.Handler {
	return queries.On(func(e eventstore.Event, p P, q *queries.Queue) { add(q, e, e.Stream, say(p)) })
}

func add(q *queries.Queue, e eventstore.Event, owner, summary string) {
	var known *string
	if owner != "" {
		known = &owner
	}
	// Metadata that cannot be read costs the line its actor, and not the view its progress.
	metadata, _ := e.ParseMetadata()
	roles := []byte("[]")
	if len(metadata.Roles) > 0 {
		roles, _ = json.Marshal(metadata.Roles) // texts always encode
	}
	q.Row(sqlAdd, e.Position, e.RecordedAt, known, e.Stream, e.Type, metadata.Actor, summary, string(roles), metadata.RequestID())
}

func lines(n int) string {
	if n == 1 {
		return "1 line"
	}
	return fmt.Sprintf("%d lines", n)
}

func with(sentence, before, detail string) string {
	if detail == "" {
		return sentence
	}
	return sentence + before + detail
}
