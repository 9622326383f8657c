// Package cart is the write model of shopping carts: opened, filled, then checked out or abandoned, after which nothing
// changes any more. A cart is in one currency; amounts are integers and no sum of them ever wraps around.
//
// It does not know prices or stock: name and unit price of an item are what the caller says when it is first added.
package cart

import (
	"fmt"
	"slices"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
)

// Category is that of the carts' streams, whose names are the carts' ids.
const Category = "cart"

// Limits of a cart and of the texts in it.
const (
	MaxQuantity     = 999           // of one item
	MaxLines        = 100           // different items
	MaxUnitPrice    = 1_000_000_000 // in minor units
	MaxOwnerIDBytes = 100
	MaxSKUBytes     = 100
	MaxNameBytes    = 200
)

// Codes of refusals, beside those that package commands has for texts.
const (
	CodeNotFound           = "CART_NOT_FOUND"        // no cart has this id
	CodeExists             = "CART_EXISTS"           // the cart was opened before
	CodeClosed             = "CART_CLOSED"           // the cart was checked out or abandoned
	CodeEmpty              = "EMPTY_CART"            // there is nothing to check out
	CodeItemNotFound       = "ITEM_NOT_FOUND"        // the cart holds no such item
	CodeTooManyLines       = "TOO_MANY_LINES"        // the cart holds MaxLines different items already
	CodeQuantityOutOfRange = "QUANTITY_OUT_OF_RANGE" // not 1 to MaxQuantity, or an item would come to hold more
	CodePriceOutOfRange    = "PRICE_OUT_OF_RANGE"    // not 0 to MaxUnitPrice
	CodeAmountTooLarge     = "AMOUNT_TOO_LARGE"      // a line or the cart would come to more than money.MaxAmount
	CodeInvalidCurrency    = "INVALID_CURRENCY"      // not three capital letters
	CodeCurrencyMismatch   = "CURRENCY_MISMATCH"     // not the cart's currency
)

// State is what deciding needs to know of a cart. Its items are never changed in place.
type State struct {
	ID       string
	OwnerID  string
	Currency string
	Opened   bool
	Closed   string // what the cart was when it ended, "checked out" or "abandoned"; empty while it is open
	Items    []Item // in the order in which they were first added
}

// NewID makes the id of a new cart, which is the name of its stream.
func NewID() string { return eventstore.StreamID(Category) }

// Events are the definitions of all that carts record.
func Events() []eventstore.Definition {
	return []eventstore.Definition{
		eventstore.Define[Opened](1),
		eventstore.Define[ItemAdded](1),
		eventstore.Define[QuantityChanged](1),
		eventstore.Define[ItemRemoved](1),
		eventstore.Define[CheckedOut](1),
		eventstore.Define[Abandoned](1),
	}
}

// Decider is the write model.
func Decider() commands.Decider[Command, Event, State] {
	return commands.Decider[Command, Event, State]{
		Category: Category,
		Initial:  func(stream string) State { return State{ID: stream} },
		May:      may,
		Decide:   decide,
		Evolve:   evolve,
	}
}

func evolve(s State, event Event) State {
	switch e := event.(type) {
	case Opened:
		s.Opened, s.OwnerID, s.Currency = true, e.OwnerID, e.Currency
	case ItemAdded:
		s.Items = withAdded(s.Items, Item(e))
	case QuantityChanged:
		s.Items = withQuantity(s.Items, e.SKU, e.Quantity)
	case ItemRemoved:
		s.Items = slices.DeleteFunc(slices.Clone(s.Items), func(item Item) bool { return item.SKU == e.SKU })
	case CheckedOut:
		s.Closed = "checked out"
	case Abandoned:
		s.Closed = "abandoned"
	}
	return s
}

func decide(s State, command Command) ([]Event, error) {
	if _, opens := command.(Open); !opens {
		if err := mayChange(s); err != nil {
			return nil, err
		}
	}
	switch c := command.(type) {
	case Open:
		return open(s, c)
	case AddItem:
		return addItem(s, c)
	case ChangeQuantity:
		return changeQuantity(s, c)
	case RemoveItem:
		return removeItem(s, c)
	case CheckOut:
		return checkOut(s)
	case Abandon:
		return []Event{Abandoned{}}, nil
	}
	return nil, fmt.Errorf("command %T is none of a cart's", command)
}

func open(s State, c Open) ([]Event, error) {
	if s.Opened {
		return nil, &commands.Rejection{Code: CodeExists, Message: "the cart was opened before"}
	}
	if err := commands.CheckText("ownerId", c.OwnerID, MaxOwnerIDBytes); err != nil {
		return nil, err
	}
	if err := checkCurrency("currency", c.Currency); err != nil {
		return nil, err
	}
	return []Event{Opened(c)}, nil
}

func mayChange(s State) error {
	if !s.Opened {
		return &commands.Rejection{Code: CodeNotFound, Field: "cartId", Message: "there is no cart with this id"}
	}
	if s.Closed != "" {
		return &commands.Rejection{Code: CodeClosed, Message: fmt.Sprintf("the cart was %s and no longer changes", s.Closed)}
	}
	return nil
}

func addItem(s State, c AddItem) ([]Event, error) {
	if err := checkItem(s, c); err != nil {
		return nil, err
	}
	added := ItemAdded(c)
	if held, ok := find(s.Items, c.SKU); ok {
		// What the event says is what is in the cart: the name and price under which the item was first added.
		added.Name, added.UnitPrice = held.Name, held.UnitPrice
		if c.Quantity > MaxQuantity-held.Quantity {
			return nil, &commands.Rejection{
				Code: CodeQuantityOutOfRange, Field: "quantity",
				Message: fmt.Sprintf("the cart holds %d of %s already, and may hold at most %d",
					held.Quantity, c.SKU, MaxQuantity),
			}
		}
	} else if len(s.Items) >= MaxLines {
		return nil, &commands.Rejection{
			Code: CodeTooManyLines, Field: "sku",
			Message: fmt.Sprintf("the cart holds %d different items, which is the most it may", len(s.Items)),
		}
	}
	if err := checkTotal("quantity", s.Currency, withAdded(s.Items, Item(added))); err != nil {
		return nil, err
	}
	return []Event{added}, nil
}

func changeQuantity(s State, c ChangeQuantity) ([]Event, error) {
	held, ok := find(s.Items, c.SKU)
	if !ok {
		return nil, noSuchItem(c.SKU)
	}
	if err := checkQuantity(c.Quantity); err != nil {
		return nil, err
	}
	if c.Quantity == held.Quantity {
		return nil, nil
	}
	if err := checkTotal("quantity", s.Currency, withQuantity(s.Items, c.SKU, c.Quantity)); err != nil {
		return nil, err
	}
	return []Event{QuantityChanged(c)}, nil
}

func removeItem(s State, c RemoveItem) ([]Event, error) {
	if _, ok := find(s.Items, c.SKU); !ok {
		return nil, noSuchItem(c.SKU)
	}
	return []Event{ItemRemoved(c)}, nil
}

func checkOut(s State) ([]Event, error) {
	if len(s.Items) == 0 {
		return nil, &commands.Rejection{Code: CodeEmpty, Message: "the cart holds nothing that could be checked out"}
	}
	total, err := Total(s.Currency, s.Items)
	if err != nil {
		return nil, amountTooLarge("", err)
	}
	return []Event{CheckedOut{
		OrderID:  order.ForCart(s.ID),
		OwnerID:  s.OwnerID,
		Currency: s.Currency,
		Items:    slices.Clone(s.Items),
		Total:    total,
	}}, nil
}

// Total is the sum of the items' quantities times their unit prices. It fails with the errors of package money.
func Total(currency string, items []Item) (money.Money, error) {
	total := money.Zero(currency)
	for _, item := range items {
		line, err := item.UnitPrice.Times(item.Quantity)
		if err != nil {
			return money.Money{}, fmt.Errorf("%s: %w", item.SKU, err)
		}
		if total, err = total.Plus(line); err != nil {
			return money.Money{}, fmt.Errorf("%s: %w", item.SKU, err)
		}
	}
	return total, nil
}

func find(items []Item, sku string) (Item, bool) {
	for _, item := range items {
		if item.SKU == sku {
			return item, true
		}
	}
	return Item{}, false
}

// withAdded is a copy of items with one added, or with the quantity raised of the one that is there.
func withAdded(items []Item, added Item) []Item {
	if held, ok := find(items, added.SKU); ok {
		return withQuantity(items, added.SKU, held.Quantity+added.Quantity)
	}
	return append(slices.Clip(items), added)
}

// withQuantity is a copy of items in which one has another quantity.
func withQuantity(items []Item, sku string, quantity int) []Item {
	items = slices.Clone(items)
	for i := range items {
		if items[i].SKU == sku {
			items[i].Quantity = quantity
		}
	}
	return items
}
