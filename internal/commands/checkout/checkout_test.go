package checkout_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/checkout"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

func TestPlaceIsDerivedFromTheEventAlone(t *testing.T) {
	t.Parallel()
	price := money.Money{Amount: 250, Currency: "EUR"}
	total := money.Money{Amount: 500, Currency: "EUR"}
	event := eventstore.Event{
		ID: uuid.MustParse("01890000-0000-7000-8000-000000000001"), Stream: "cart-1",
		Metadata: json.RawMessage(`{"actor":"ada","correlationId":"request-1","traceparent":"00-1","tracestate":"a=1"}`),
	}
	stream, cmd, call := checkout.Place(event, cart.CheckedOut{
		OrderID: "order-1", OwnerID: "ada", Currency: "EUR", Total: total,
		Items: []cart.Item{{SKU: "pen", Name: "Pen", Quantity: 2, UnitPrice: price}},
	})
	wantCmd := order.Place{
		CartID: "cart-1", OwnerID: "ada", Total: total,
		Items: []order.Item{{SKU: "pen", Name: "Pen", Quantity: 2, UnitPrice: price}},
	}
	wantCall := commands.Call{
		CommandID: "checkout:01890000-0000-7000-8000-000000000001", Who: identity.System("policy:checkout"),
		CorrelationID: "request-1", CausationID: "01890000-0000-7000-8000-000000000001",
		Trace: eventstore.Trace{Parent: "00-1", State: "a=1"},
	}
	if stream != "order-1" || !reflect.DeepEqual(cmd, wantCmd) || !reflect.DeepEqual(call, wantCall) {
		t.Fatalf("got %s, %+v, %+v", stream, cmd, call)
	}
	decidertest.Given(order.Decider()).When(cmd).Then(t, order.Placed(cmd))
}

func TestPlaceDoesNotNeedTheMetadata(t *testing.T) {
	t.Parallel()
	stream, _, call := checkout.Place(eventstore.Event{Metadata: json.RawMessage(`[]`)}, cart.CheckedOut{OrderID: "order-1"})
	if stream != "order-1" || call.CorrelationID != "" || call.CommandID == "" {
		t.Fatalf("got %s, %+v", stream, call)
	}
}
