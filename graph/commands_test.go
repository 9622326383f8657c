package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

// outcome is what a mutation answered.
type outcome struct {
	t        *testing.T
	object   map[string]any
	receipt  map[string]any
	refusals []any
	answer   answer
}

// command sends a mutation that selects, of the object, what the last argument says.
func (b *bundle) command(name string, input map[string]any, object string) outcome {
	b.t.Helper()
	field, _, _ := strings.Cut(object, " ")
	document := fmt.Sprintf(`mutation($in: %s%sInput!) { %s(input: $in) {
		receipt { commandId stream version position token duplicate } userErrors { code message field } %s } }`,
		strings.ToUpper(name[:1]), name[1:], name, object)
	a := b.post(document, map[string]any{"in": input})
	if a.code() != nil {
		b.t.Fatalf("%s: %s", name, a.raw)
	}
	out := outcome{t: b.t, answer: a}
	out.refusals = a.at(b.t, name, "userErrors").([]any)
	out.receipt, _ = a.at(b.t, name, "receipt").(map[string]any)
	out.object, _ = a.at(b.t, name, field).(map[string]any)
	if (len(out.refusals) > 0) == (out.receipt != nil) || (out.receipt != nil) != (out.object != nil) {
		b.t.Fatalf("%s is neither carried out nor refused: %s", name, a.raw)
	}
	return out
}

// done demands that the command was carried out and brought its stream to a version.
func (o outcome) done(version int) outcome {
	o.t.Helper()
	if o.receipt == nil {
		o.t.Fatalf("refused: %v", o.refusals)
	}
	equal(o.t, "version", o.receipt["version"], float64(version))
	return o
}

// refused demands one refusal with this code, of this field; "" stands for none.
func (o outcome) refused(code, field string) {
	o.t.Helper()
	if len(o.refusals) != 1 {
		o.t.Fatalf("%d refusals, want %s: %s", len(o.refusals), code, o.answer.raw)
	}
	refusal := o.refusals[0].(map[string]any)
	equal(o.t, "code", refusal["code"], any(code))
	got, _ := refusal["field"].(string)
	equal(o.t, code+"'s field", got, field)
	if refusal["message"] == "" {
		o.t.Fatalf("%s says nothing to people", code)
	}
}

type in = map[string]any

const someCart = "cart { id status version position orderId items { sku quantity } total { amount } }"

func TestCartCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.command("openCart", in{"ownerId": "ada", "currency": "EUR"}, someCart).done(1).object["id"]
	item := func(sku string, quantity, price int, currency string) in {
		return in{"cartId": id, "sku": sku, "name": sku, "quantity": quantity, "unitPrice": in{"amount": price, "currency": currency}}
	}
	b.command("checkOutCart", in{"cartId": id}, someCart).refused("EMPTY_CART", "")
	b.command("addItem", item("tea", 2, 450, "EUR"), someCart).done(2)
	b.command("addItem", item("cup", 1, 900, "EUR"), someCart).done(3)
	b.command("addItem", item("pot", 1, 1_000_000_000, "EUR"), someCart).done(4)
	b.command("addItem", item("pan", 1, 1_000_000_001, "EUR"), someCart).refused("PRICE_OUT_OF_RANGE", "unitPrice.amount")
	b.command("addItem", item("pan", 1, 1, "USD"), someCart).refused("CURRENCY_MISMATCH", "unitPrice.currency")
	b.command("addItem", item("pan", 0, 1, "EUR"), someCart).refused("QUANTITY_OUT_OF_RANGE", "quantity")
	b.command("addItem", item("", 1, 1, "EUR"), someCart).refused("REQUIRED", "sku")
	b.command("addItem", item("a\x00b", 1, 1, "EUR"), someCart).refused("INVALID_TEXT", "sku")
	b.command("removeItem", in{"cartId": id, "sku": "pot"}, someCart).done(5)
	b.command("removeItem", in{"cartId": id, "sku": "pot"}, someCart).refused("ITEM_NOT_FOUND", "sku")
	changed := b.command("changeQuantity", in{"cartId": id, "sku": "tea", "quantity": 3, "expectedVersion": 5}, someCart).done(6)
	equal(t, "total", changed.object["total"].(map[string]any)["amount"], any(2250.0))
	equal(t, "lines", len(changed.object["items"].([]any)), 2)
	b.command("changeQuantity", in{"cartId": id, "sku": "tea", "quantity": 4, "expectedVersion": 5}, someCart).refused("VERSION_CONFLICT", "expectedVersion")
	b.command("changeQuantity", in{"cartId": id, "sku": "tea", "quantity": 1000}, someCart).refused("QUANTITY_OUT_OF_RANGE", "quantity")
	b.command("changeQuantity", in{"cartId": "cart-none", "sku": "tea", "quantity": 1}, someCart).refused("CART_NOT_FOUND", "cartId")
	abandoned := b.command("abandonCart", in{"cartId": id}, someCart).done(7)
	equal(t, "status", abandoned.object["status"], any("ABANDONED"))
	equal(t, "position", abandoned.object["position"], abandoned.receipt["position"])
	b.command("addItem", item("tea", 1, 1, "EUR"), someCart).refused("CART_CLOSED", "")
	b.command("openCart", in{"ownerId": "ada", "currency": "euro"}, someCart).refused("INVALID_CURRENCY", "currency")
	b.command("openCart", in{"ownerId": "", "currency": "EUR"}, someCart).refused("REQUIRED", "ownerId")
	b.command("openCart", in{"ownerId": "ada", "currency": "EUR", "commandId": ""}, someCart).refused("REQUIRED", "commandId")
}

const someOrder = "order { id status version position trackingCode reason paymentReference }"

func TestOrderCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	_, orders, _ := b.fill(3)
	pay := func(id, reference string) outcome {
		return b.command("payOrder", in{"orderId": id, "reference": reference}, someOrder)
	}
	status := func(o outcome, want string) { t.Helper(); equal(t, "status", o.object["status"], any(want)) }

	// paid, shipped, delivered, given back
	id := orders[0]
	b.command("shipOrder", in{"orderId": id}, someOrder).refused("ORDER_NOT_PAID", "")
	b.command("deliverOrder", in{"orderId": id}, someOrder).refused("ORDER_NOT_SHIPPED", "")
	status(pay(id, "r-1").done(2), "PAID")
	status(pay(id, "r-1").done(2), "PAID")
	pay(id, "r-2").refused("ORDER_ALREADY_PAID", "reference")
	b.command("shipOrder", in{"orderId": id, "expectedVersion": 1}, someOrder).refused("VERSION_CONFLICT", "expectedVersion")
	shipped := b.command("shipOrder", in{"orderId": id, "trackingCode": "T1", "expectedVersion": 2}, someOrder).done(3)
	status(shipped, "SHIPPED")
	equal(t, "tracking code", shipped.object["trackingCode"], any("T1"))
	b.command("cancelOrder", in{"orderId": id, "reason": "late"}, someOrder).refused("ORDER_ALREADY_SHIPPED", "")
	status(b.command("deliverOrder", in{"orderId": id}, someOrder).done(4), "DELIVERED")
	b.command("deliverOrder", in{"orderId": id}, someOrder).refused("ORDER_ALREADY_DELIVERED", "")
	refunded := b.command("refundOrder", in{"orderId": id, "reason": "broken"}, someOrder).done(5)
	status(refunded, "REFUNDED")
	equal(t, "reason", refunded.object["reason"], any("broken"))

	// shipped without a tracking code
	pay(orders[1], "r-3").done(2)
	b.command("refundOrder", in{"orderId": orders[1], "reason": "x"}, someOrder).refused("ORDER_NOT_REFUNDABLE", "")
	equal(t, "no code", b.command("shipOrder", in{"orderId": orders[1]}, someOrder).done(3).object["trackingCode"], nil)

	// cancelled
	cancelled := b.command("cancelOrder", in{"orderId": orders[2], "reason": "changed my mind"}, someOrder).done(2)
	status(cancelled, "CANCELLED")
	pay(orders[2], "r-4").refused("ORDER_CANCELLED", "")

	for name, input := range map[string]in{
		"payOrder": {"reference": "r"}, "shipOrder": {}, "deliverOrder": {}, "cancelOrder": {"reason": "r"}, "refundOrder": {"reason": "r"},
	} {
		input["orderId"] = "order-none"
		b.command(name, input, someOrder).refused("ORDER_NOT_FOUND", "orderId")
	}
}

const someUser = "user { id email name status version position }"

func TestUserCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	ada := b.command("registerUser", in{"email": "Ada@Example.org", "name": "Ada"}, someUser).done(1).object["id"]
	eve := b.command("registerUser", in{"email": "eve@example.org", "name": "Eve"}, someUser).done(1).object["id"]
	b.command("registerUser", in{"email": "nobody", "name": "N"}, someUser).refused("INVALID_EMAIL", "email")
	b.command("registerUser", in{"email": " ADA@example.org", "name": "A2"}, someUser).refused("EMAIL_TAKEN", "email")
	b.command("changeEmail", in{"userId": eve, "email": "ada@example.org"}, someUser).refused("EMAIL_TAKEN", "email")

	renamed := b.command("renameUser", in{"userId": ada, "name": "Ada L."}, someUser).done(2)
	equal(t, "name", renamed.object["name"], any("Ada L."))
	b.command("renameUser", in{"userId": ada, "name": ""}, someUser).refused("REQUIRED", "name")
	moved := b.command("changeEmail", in{"userId": ada, "email": "lady@example.org"}, someUser).done(3)
	equal(t, "address", moved.object["email"], any("lady@example.org"))
	b.command("changeEmail", in{"userId": eve, "email": "ada@example.org"}, someUser).done(2) // free again

	gone := b.command("deactivateUser", in{"userId": ada, "reason": "moved away"}, someUser).done(4)
	equal(t, "status", gone.object["status"], any("DEACTIVATED"))
	b.command("renameUser", in{"userId": ada, "name": "x"}, someUser).refused("USER_DEACTIVATED", "")
	b.command("registerUser", in{"email": "lady@example.org", "name": "Lady"}, someUser).done(1)
	for name, input := range map[string]in{"renameUser": {"name": "x"}, "changeEmail": {"email": "x@example.org"}, "deactivateUser": {}} {
		input["userId"] = "user-none"
		b.command(name, input, someUser).refused("USER_NOT_FOUND", "userId")
	}
}

func TestCheckOutNamesTheOrderAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.post(addItem, in{"cart": id, "price": 1})
	b.stop() // no policy places the order any more
	document := `mutation($c: ID!) { checkOutCart(input: {cartId: $c}) { receipt { version } userErrors { code } orderId order(within: "50ms") { id } } }`
	a := b.post(document, in{"c": id})
	equal(t, "version", a.at(t, "checkOutCart", "receipt", "version"), 3.0)
	equal(t, "order's id", a.at(t, "checkOutCart", "orderId"), any("order-"+strings.TrimPrefix(id, "cart-")))
	equal(t, "order", a.at(t, "checkOutCart", "order"), nil)
	equal(t, "error", a.code(), nil)
	again := b.post(document, in{"c": id})
	equal(t, "refusal", again.at(t, "checkOutCart", "userErrors", 0, "code"), any("CART_CLOSED"))
	equal(t, "refused: order's id", again.at(t, "checkOutCart", "orderId"), nil)
	equal(t, "refused: order", again.at(t, "checkOutCart", "order"), nil)
}
