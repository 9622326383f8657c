package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	openCart = `mutation($owner: ID!) { openCart(input: {ownerId: $owner, currency: "EUR"}) {
		receipt { stream version } userErrors { code } } }`
	addItem = `mutation($input: AddItemInput!) { addItem(input: $input) {
		cart { version items { sku quantity } total { amount } } receipt { version token } userErrors { code } } }`
	checkOut = `mutation($cart: ID!) { checkOutCart(input: {cartId: $cart}) {
		orderId order { status } userErrors { code } } }`
)

type payload struct {
	Receipt *struct {
		Stream, Token string
		Version       int
	}
	Cart *struct {
		Version int
		Items   []struct {
			SKU      string
			Quantity int
		}
		Total struct{ Amount int }
	}
	OrderID    string
	Order      *struct{ Status string }
	UserErrors []struct{ Code, Field string }
}

func (s *server) open(t *testing.T) (cart string) {
	t.Helper()
	var got struct{ OpenCart payload }
	s.ask(t, openCart, map[string]any{"owner": "ada"}, &got)
	return got.OpenCart.Receipt.Stream
}

func (s *server) add(t *testing.T, cart string, quantity int) payload {
	t.Helper()
	var got struct{ AddItem payload }
	s.ask(t, addItem, map[string]any{"input": item(cart, quantity)}, &got)
	return got.AddItem
}

func item(cart string, quantity int) map[string]any {
	return map[string]any{
		"cartId": cart, "sku": "FLOUR", "name": "Flour", "quantity": quantity,
		"unitPrice": map[string]any{"amount": 250, "currency": "EUR"},
	}
}

func (s *server) checkOut(t *testing.T, cart string) payload {
	t.Helper()
	var got struct{ CheckOutCart payload }
	s.ask(t, checkOut, map[string]any{"cart": cart}, &got)
	return got.CheckOutCart
}

func TestFromCartToPaidOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	cart := s.open(t)
	added := s.add(t, cart, 2)
	if added.Cart == nil || added.Cart.Version != 2 || added.Cart.Total.Amount != 500 {
		t.Fatalf("the payload's cart does not show its own command: %+v", added)
	}
	var read struct {
		Cart *struct{ Items []struct{ Quantity int } }
	}
	s.ask(t, `query($id: ID!, $token: Token!) { cart(id: $id, atLeast: $token) { items { quantity } } }`,
		map[string]any{"id": cart, "token": added.Receipt.Token}, &read)
	if read.Cart == nil || len(read.Cart.Items) != 1 || read.Cart.Items[0].Quantity != 2 {
		t.Fatalf("got %+v", read)
	}
	out := s.checkOut(t, cart)
	if out.OrderID == "" || out.Order == nil || out.Order.Status != "PLACED" {
		t.Fatalf("the policy placed no order: %+v", out)
	}
	var paid struct{ PayOrder payload }
	s.ask(t, `mutation($id: ID!) { payOrder(input: {orderId: $id, reference: "r-1"}) { order { status } userErrors { code } } }`,
		map[string]any{"id": out.OrderID}, &paid)
	if paid.PayOrder.Order == nil || paid.PayOrder.Order.Status != "PAID" {
		t.Fatalf("got %+v", paid)
	}
}

func TestAnEmailAddressIsTakenOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	const register = `mutation($email: String!) { registerUser(input: {email: $email, name: "Ada"}) {
		receipt { stream } userErrors { code field } } }`
	var first, second struct{ RegisterUser payload }
	s.ask(t, register, map[string]any{"email": "Ada@example.org"}, &first)
	s.ask(t, register, map[string]any{"email": " ada@EXAMPLE.org"}, &second)
	if first.RegisterUser.Receipt == nil {
		t.Fatalf("got %+v", first)
	}
	if refusal := second.RegisterUser.UserErrors; len(refusal) != 1 || refusal[0].Code != "EMAIL_TAKEN" || refusal[0].Field != "email" {
		t.Fatalf("got %+v", second)
	}
}

func TestAnUnpaidOrderIsCancelledAndAPaidOneIsNot(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{CancelUnpaidAfter: time.Hour})
	status := func(order string) string {
		var got struct{ Order *struct{ Status string } }
		s.ask(t, `query($id: ID!) { order(id: $id) { status } }`, map[string]any{"id": order}, &got)
		if got.Order == nil {
			return ""
		}
		return got.Order.Status
	}
	paid := s.place(t)
	var pay struct{ PayOrder payload }
	s.ask(t, `mutation($id: ID!) { payOrder(input: {orderId: $id, reference: "r-1"}) { userErrors { code } } }`,
		map[string]any{"id": paid}, &pay)
	if len(pay.PayOrder.UserErrors) != 0 {
		t.Fatalf("the order was cancelled before it could be paid: %+v", pay)
	}
	unpaid := s.place(t)
	const untilPaid = `select count(*) from outbox where topic = 'fulfilment.deadline' and payload->>'name' = 'payment'`
	if n := s.count(t, untilPaid+` and available_at between now() + interval '30 minutes' and now() + interval '1 hour'`); n != 2 {
		t.Fatalf("%d of 2 orders have an hour to be paid", n)
	}
	s.timeToPayPasses(t, paid)
	s.timeToPayPasses(t, unpaid)
	until(t, "the unpaid order to be cancelled", func() bool { return status(unpaid) == "CANCELLED" })
	until(t, "no message to be due any more", func() bool { return s.count(t, untilPaid) == 0 })
	if got := status(paid); got != "PAID" {
		t.Fatalf("the paid order is %s", got)
	}
}

func TestReadyzNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	until(t, "the server to be ready", func() bool { code, _ := get(t, s.url+"/readyz"); return code == http.StatusOK })
	if code, _ := get(t, s.url+"/healthz"); code != http.StatusOK {
		t.Fatalf("healthz answers %d", code)
	}
	if code, _ := get(t, s.url+"/"); code != http.StatusNotFound {
		t.Fatalf("GraphiQL is served in production: %d", code)
	}
	// A projection cannot handle an event whose data is not what its type says.
	s.corrupt(t)
	until(t, "the halt to show", func() bool {
		code, body := get(t, s.url+"/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "projection activity: halted at position 1")
	})
}

// corrupt puts two events into the log behind everybody's back, the second with data that no cart has.
func (s *server) corrupt(t *testing.T) {
	t.Helper()
	_, err := s.app.pool.Exec(t.Context(), `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata) values
	(1, 1, now(), gen_random_uuid(), 'cart-x', 'cart.opened', 1, '{"ownerId": "ada", "currency": "EUR"}', '{}'),
	(2, 2, now(), gen_random_uuid(), 'cart-x', 'cart.item_added', 1, '{"quantity": "many"}', '{}')`)
	if err != nil {
		t.Fatal(err)
	}
}

func TestDrainAnswersWhatCameAndGivesLeasesBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	cart := s.open(t)
	s.add(t, cart, 1)
	if err := s.end(); err != nil {
		t.Fatalf("draining: %v", err)
	}
	var held int
	err := s.app.pool.QueryRow(t.Context(), "select count(*) from checkpoints where lease_until > clock_timestamp()").Scan(&held)
	if err != nil || held != 0 {
		t.Fatalf("%d leases are still held, %v", held, err)
	}
}
