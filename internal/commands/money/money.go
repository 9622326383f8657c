// Package money is the amount type that carts and orders share: integer minor units and an ISO 4217 currency. It never
// rounds and never overflows: arithmetic that would is refused. It knows no exchange rates and no number of decimals.
package money

import (
	"errors"
	"fmt"
)

// MaxAmount is the largest amount, in minor units: 2^53-1, the largest integer that every JSON reader keeps exact.
const MaxAmount = 1<<53 - 1

// ErrOutOfRange says that an amount would be negative or above MaxAmount.
var ErrOutOfRange = errors.New("the amount is out of range")

// ErrCurrencyMismatch says that amounts of two currencies were to be added.
var ErrCurrencyMismatch = errors.New("the currencies differ")

// Money is an amount in minor units (cents) of a currency. It is a value: operations return new ones.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"` // ISO 4217, three capital letters
}

// Zero is no money, in a currency.
func Zero(currency string) Money { return Money{Currency: currency} }

// Plus is the sum. It fails with ErrCurrencyMismatch or ErrOutOfRange.
func (m Money) Plus(other Money) (Money, error) {
	if m.Currency != other.Currency {
		return Money{}, fmt.Errorf("adding %s to %s: %w", other.Currency, m.Currency, ErrCurrencyMismatch)
	}
	if !inRange(m.Amount) || !inRange(other.Amount) || m.Amount > MaxAmount-other.Amount {
		return Money{}, fmt.Errorf("adding %d to %d: %w", other.Amount, m.Amount, ErrOutOfRange)
	}
	return Money{Amount: m.Amount + other.Amount, Currency: m.Currency}, nil
}

// Times is the amount taken n times. It fails with ErrOutOfRange, also for a negative n.
func (m Money) Times(n int) (Money, error) {
	if !inRange(m.Amount) || n < 0 || (n > 0 && m.Amount > MaxAmount/int64(n)) {
		return Money{}, fmt.Errorf("taking %d times %d: %w", n, m.Amount, ErrOutOfRange)
	}
	return Money{Amount: m.Amount * int64(n), Currency: m.Currency}, nil
}

// String is the amount in minor units with its currency, for logs: "1250 EUR".
func (m Money) String() string { return fmt.Sprintf("%d %s", m.Amount, m.Currency) }

// ValidCurrency reports whether code has the form of an ISO 4217 code: three capital letters. Whether it is in
// circulation is not checked: the standard's list changes, and an old copy of it would refuse real money.
func ValidCurrency(code string) bool {
	if len(code) != 3 {
		return false
	}
	for _, letter := range []byte(code) {
		if letter < 'A' || letter > 'Z' {
			return false
		}
	}
	return true
}

func inRange(amount int64) bool { return amount >= 0 && amount <= MaxAmount }
