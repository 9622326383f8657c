package cart_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
)

type scenario = decidertest.Scenario[cart.Command, cart.Event, cart.State]

func given(events ...cart.Event) scenario { return decidertest.Given(cart.Decider(), events...) }

func eur(amount int64) money.Money { return money.Money{Amount: amount, Currency: "EUR"} }

var opened = cart.Opened{OwnerID: "ada", Currency: "EUR"}

func added(sku string, quantity int) cart.ItemAdded {
	return cart.ItemAdded{SKU: sku, Name: "The " + sku, Quantity: quantity, UnitPrice: eur(250)}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	given().When(cart.Open{OwnerID: "ada", Currency: "EUR"}).Then(t, opened)
	given().When(cart.Open{OwnerID: strings.Repeat("é", 50), Currency: "EUR"}).
		Then(t, cart.Opened{OwnerID: strings.Repeat("é", 50), Currency: "EUR"})
	given(opened).When(cart.Open{OwnerID: "ada", Currency: "EUR"}).ThenRejected(t, cart.CodeExists)
}

func TestAddItem(t *testing.T) {
	t.Parallel()
	given(opened).When(cart.AddItem(added("pen", 2))).Then(t, added("pen", 2))
	given(opened).When(cart.AddItem{SKU: "free", Name: "Gift", Quantity: 999, UnitPrice: eur(0)}).
		Then(t, cart.ItemAdded{SKU: "free", Name: "Gift", Quantity: 999, UnitPrice: eur(0)})
}

func TestAddingAgainKeepsNameAndPriceOfTheFirstTime(t *testing.T) {
	t.Parallel()
	given(opened, added("pen", 2)).
		When(cart.AddItem{SKU: "pen", Name: "Another", Quantity: 3, UnitPrice: eur(999)}).
		Then(t, added("pen", 3))
	given(opened, added("pen", 2), added("pen", 3)).When(cart.ChangeQuantity{SKU: "pen", Quantity: 5}).Then(t)
}

func TestAddItemLimits(t *testing.T) {
	t.Parallel()
	full := []cart.Event{opened}
	for i := range cart.MaxLines {
		full = append(full, added(fmt.Sprintf("sku-%d", i), 1))
	}
	given(full...).When(cart.AddItem(added("one-more", 1))).ThenRejected(t, cart.CodeTooManyLines)
	given(full...).When(cart.AddItem(added("sku-7", 1))).Then(t, added("sku-7", 1))
	given(opened, added("pen", 998)).When(cart.AddItem(added("pen", 1))).Then(t, added("pen", 1))
	given(opened, added("pen", 998)).When(cart.AddItem(added("pen", 2))).ThenRejected(t, cart.CodeQuantityOutOfRange)
}

// Prices above today's limit may stand in the log from a time when it was higher; sums over them still do not wrap.
func TestTotalsNeverOverflow(t *testing.T) {
	t.Parallel()
	dear := cart.ItemAdded{SKU: "dear", Name: "Dear", Quantity: 1, UnitPrice: eur(money.MaxAmount)}
	given(opened, dear).When(cart.AddItem(added("pen", 1))).ThenRejected(t, cart.CodeAmountTooLarge)
	given(opened, dear).When(cart.AddItem(cart.AddItem{SKU: "dear", Name: "Dear", Quantity: 1, UnitPrice: eur(1)})).
		ThenRejected(t, cart.CodeAmountTooLarge)
	given(opened, dear).When(cart.ChangeQuantity{SKU: "dear", Quantity: 2}).ThenRejected(t, cart.CodeAmountTooLarge)
	given(opened, dear, added("pen", 1)).When(cart.CheckOut{}).ThenRejected(t, cart.CodeAmountTooLarge)
}

func TestFieldsAreNamedInRefusals(t *testing.T) {
	t.Parallel()
	item := func(change func(*cart.AddItem)) cart.AddItem {
		c := cart.AddItem(added("pen", 1))
		change(&c)
		return c
	}
	for _, test := range []struct {
		given   []cart.Event
		when    cart.Command
		code    string
		inField string
	}{
		{nil, cart.Open{Currency: "EUR"}, commands.CodeRequired, "ownerId"},
		{nil, cart.Open{OwnerID: strings.Repeat("é", 51), Currency: "EUR"}, commands.CodeTooLong, "ownerId"},
		{nil, cart.Open{OwnerID: "a\x00", Currency: "EUR"}, commands.CodeInvalidText, "ownerId"},
		{nil, cart.Open{OwnerID: "a\xff", Currency: "EUR"}, commands.CodeInvalidText, "ownerId"},
		{nil, cart.Open{OwnerID: "ada", Currency: "eur"}, cart.CodeInvalidCurrency, "currency"},
		{nil, cart.CheckOut{}, cart.CodeNotFound, "cartId"},
		{nil, cart.AddItem{}, cart.CodeNotFound, "cartId"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.SKU = "" }), commands.CodeRequired, "sku"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.SKU = strings.Repeat("x", 101) }), commands.CodeTooLong, "sku"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.Name = "" }), commands.CodeRequired, "name"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.Name = strings.Repeat("x", 201) }), commands.CodeTooLong, "name"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.Quantity = 0 }), cart.CodeQuantityOutOfRange, "quantity"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.Quantity = -1 }), cart.CodeQuantityOutOfRange, "quantity"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.Quantity = 1000 }), cart.CodeQuantityOutOfRange, "quantity"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.UnitPrice.Amount = -1 }), cart.CodePriceOutOfRange, "unitPrice.amount"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.UnitPrice.Amount = cart.MaxUnitPrice + 1 }), cart.CodePriceOutOfRange, "unitPrice.amount"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.UnitPrice.Currency = "€" }), cart.CodeInvalidCurrency, "unitPrice.currency"},
		{[]cart.Event{opened}, item(func(c *cart.AddItem) { c.UnitPrice.Currency = "USD" }), cart.CodeCurrencyMismatch, "unitPrice.currency"},
		{[]cart.Event{opened, added("pen", 1)}, cart.ChangeQuantity{SKU: "pen"}, cart.CodeQuantityOutOfRange, "quantity"},
		{[]cart.Event{opened, added("pen", 1)}, cart.ChangeQuantity{SKU: "ink", Quantity: 1}, cart.CodeItemNotFound, "sku"},
		{[]cart.Event{opened, added("pen", 1)}, cart.RemoveItem{SKU: "ink"}, cart.CodeItemNotFound, "sku"},
	} {
		if got := given(test.given...).When(test.when).ThenRejected(t, test.code).Field; got != test.inField {
			t.Errorf("%#v: refused field %q, want %q", test.when, got, test.inField)
		}
	}
}

func TestChangeAndRemove(t *testing.T) {
	t.Parallel()
	filled := given(opened, added("pen", 2), added("ink", 1))
	filled.When(cart.ChangeQuantity{SKU: "pen", Quantity: 999}).Then(t, cart.QuantityChanged{SKU: "pen", Quantity: 999})
	filled.When(cart.ChangeQuantity{SKU: "pen", Quantity: 2}).Then(t)
	filled.When(cart.RemoveItem{SKU: "pen"}).Then(t, cart.ItemRemoved{SKU: "pen"})
	given(opened, added("pen", 2), cart.ItemRemoved{SKU: "pen"}).
		When(cart.RemoveItem{SKU: "pen"}).ThenRejected(t, cart.CodeItemNotFound)
}

func TestCheckOutCarriesAllThatTheOrderNeeds(t *testing.T) {
	t.Parallel()
	given(opened, added("pen", 2), added("ink", 1), added("pen", 1), cart.QuantityChanged{SKU: "ink", Quantity: 4}).
		When(cart.CheckOut{}).
		Then(t, cart.CheckedOut{
			OrderID: order.ForCart(decidertest.Stream(cart.Category)), OwnerID: "ada", Currency: "EUR",
			Items: []cart.Item{cart.Item(added("pen", 3)), cart.Item(added("ink", 4))},
			Total: eur(7 * 250),
		})
	given(opened).When(cart.CheckOut{}).ThenRejected(t, cart.CodeEmpty)
	given(opened, added("pen", 1), cart.ItemRemoved{SKU: "pen"}).When(cart.CheckOut{}).ThenRejected(t, cart.CodeEmpty)
}

func TestNothingChangesAfterTheEnd(t *testing.T) {
	t.Parallel()
	given(opened).When(cart.Abandon{}).Then(t, cart.Abandoned{})
	for _, end := range []cart.Event{cart.CheckedOut{}, cart.Abandoned{}} {
		ended := given(opened, added("pen", 1), end)
		for _, command := range []cart.Command{
			cart.AddItem(added("pen", 1)),
			cart.ChangeQuantity{SKU: "pen", Quantity: 2},
			cart.RemoveItem{SKU: "pen"},
			cart.CheckOut{},
			cart.Abandon{},
		} {
			ended.When(command).ThenRejected(t, cart.CodeClosed)
		}
		ended.When(cart.Open{OwnerID: "ada", Currency: "EUR"}).ThenRejected(t, cart.CodeExists)
	}
}

func TestDeciderIsPureAndKeepsItsLimits(t *testing.T) {
	t.Parallel()
	sku := rapid.SampledFrom([]string{"pen", "ink", "nib", ""})
	quantity := rapid.OneOf(rapid.IntRange(1, 5), rapid.SampledFrom([]int{0, 500, 999, 1000}))
	command := rapid.Custom(func(t *rapid.T) cart.Command {
		switch rapid.IntRange(0, 12).Draw(t, "kind") {
		case 0, 1, 2:
			return cart.Open{OwnerID: "ada", Currency: "EUR"}
		case 3, 4, 5, 6:
			return cart.AddItem{SKU: sku.Draw(t, "sku"), Name: "x", Quantity: quantity.Draw(t, "quantity"), UnitPrice: eur(5)}
		case 7, 8:
			return cart.ChangeQuantity{SKU: sku.Draw(t, "sku"), Quantity: quantity.Draw(t, "quantity")}
		case 9, 10:
			return cart.RemoveItem{SKU: sku.Draw(t, "sku")}
		case 11:
			return cart.CheckOut{}
		default:
			return cart.Abandon{}
		}
	})
	decidertest.CheckPure(t, cart.Decider(), command, func(t *rapid.T, s cart.State) {
		seen := make(map[string]bool)
		for _, item := range s.Items {
			if item.Quantity < 1 || item.Quantity > cart.MaxQuantity || seen[item.SKU] {
				t.Fatalf("the cart holds %+v", s.Items)
			}
			seen[item.SKU] = true
		}
	})
}

func TestTotalRefusesForeignItems(t *testing.T) {
	t.Parallel()
	item := cart.Item{SKU: "pen", Quantity: 1, UnitPrice: money.Money{Amount: 1, Currency: "USD"}}
	if _, err := cart.Total("EUR", []cart.Item{item}); !errors.Is(err, money.ErrCurrencyMismatch) {
		t.Fatalf("got %v", err)
	}
}

func TestRecordedJSON(t *testing.T) {
	t.Parallel()
	item := cart.Item{SKU: "pen", Name: "Pen", Quantity: 2, UnitPrice: eur(250)}
	decidertest.CheckGolden(
		t, cart.Events(),
		opened,
		cart.ItemAdded(item),
		cart.QuantityChanged{SKU: "pen", Quantity: 3},
		cart.ItemRemoved{SKU: "pen"},
		cart.CheckedOut{
			OrderID: "order-01890000-0000-7000-8000-000000000000", OwnerID: "ada", Currency: "EUR",
			Items: []cart.Item{item}, Total: eur(500),
		},
		cart.Abandoned{},
	)
}

func TestNewIDsAreOfTheCategory(t *testing.T) {
	t.Parallel()
	a, b := cart.NewID(), cart.NewID()
	if a == b || !strings.HasPrefix(a, cart.Category+"-") {
		t.Fatalf("got %q and %q", a, b)
	}
}
