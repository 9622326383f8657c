package cart

import (
	"fmt"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/money"
)

func checkItem(s State, c AddItem) error {
	if err := commands.CheckText("sku", c.SKU, MaxSKUBytes); err != nil {
		return err
	}
	if err := commands.CheckText("name", c.Name, MaxNameBytes); err != nil {
		return err
	}
	if err := checkQuantity(c.Quantity); err != nil {
		return err
	}
	if c.UnitPrice.Amount < 0 || c.UnitPrice.Amount > MaxUnitPrice {
		return &commands.Rejection{
			Code: CodePriceOutOfRange, Field: "unitPrice.amount",
			Message: fmt.Sprintf("the unit price must be 0 to %d minor units, and is %d", MaxUnitPrice, c.UnitPrice.Amount),
		}
	}
	if err := checkCurrency("unitPrice.currency", c.UnitPrice.Currency); err != nil {
		return err
	}
	if c.UnitPrice.Currency != s.Currency {
		return &commands.Rejection{
			Code: CodeCurrencyMismatch, Field: "unitPrice.currency",
			Message: fmt.Sprintf("the cart is in %s, and the price in %s", s.Currency, c.UnitPrice.Currency),
		}
	}
	return nil
}

func checkQuantity(quantity int) error {
	if quantity >= 1 && quantity <= MaxQuantity {
		return nil
	}
	return &commands.Rejection{
		Code: CodeQuantityOutOfRange, Field: "quantity",
		Message: fmt.Sprintf("the quantity must be 1 to %d, and is %d", MaxQuantity, quantity),
	}
}

func checkCurrency(field, code string) error {
	if money.ValidCurrency(code) {
		return nil
	}
	return &commands.Rejection{
		Code: CodeInvalidCurrency, Field: field,
		Message: fmt.Sprintf("the currency must be three capital letters such as EUR, and is %.10q", code),
	}
}

func checkTotal(field, currency string, items []Item) error {
	if _, err := Total(currency, items); err != nil {
		return amountTooLarge(field, err)
	}
	return nil
}

func amountTooLarge(field string, err error) error {
	return &commands.Rejection{
		Code: CodeAmountTooLarge, Field: field,
		Message: fmt.Sprintf("the cart would come to more than %d minor units (%v)", int64(money.MaxAmount), err),
	}
}

func noSuchItem(sku string) error {
	return &commands.Rejection{
		Code: CodeItemNotFound, Field: "sku",
		Message: fmt.Sprintf("the cart holds no item %.100q", sku),
	}
}
