// Package money is the amount type that carts and orders share: integer minor units and an ISO 4217 currency. It never
// rounds and never overflows: arithmetic that would is refused. It knows no exchange rates and no number of decimals.
package money

// Money is an amount in minor units (cents) of a currency. It is a value: operations return new ones.
type Money struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"` // ISO 4217, three capital letters
}
