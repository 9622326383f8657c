package money_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands/money"
)

func eur(amount int64) money.Money { return money.Money{Amount: amount, Currency: "EUR"} }

func TestPlusRefusesOtherCurrencies(t *testing.T) {
	t.Parallel()
	if _, err := eur(1).Plus(money.Money{Amount: 1, Currency: "USD"}); !errors.Is(err, money.ErrCurrencyMismatch) {
		t.Fatalf("got %v, want %v", err, money.ErrCurrencyMismatch)
	}
}

// Both operations agree with arithmetic that has no limits, or refuse; they never wrap around.
func TestArithmeticAgreesWithBigIntegersOrRefuses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		edge := rapid.SampledFrom([]int64{0, 1, money.MaxAmount, money.MaxAmount - 1, money.MaxAmount + 1, -1, math.MaxInt64, math.MinInt64})
		amount := rapid.OneOf(edge, rapid.Int64())
		a, b := amount.Draw(t, "a"), amount.Draw(t, "b")
		sum, err := eur(a).Plus(eur(b))
		check(t, sum, err, new(big.Int).Add(big.NewInt(a), big.NewInt(b)), a, b)

		n := rapid.OneOf(rapid.IntRange(0, 1000), rapid.Int()).Draw(t, "n")
		product, err := eur(a).Times(n)
		check(t, product, err, new(big.Int).Mul(big.NewInt(a), big.NewInt(int64(n))), a, int64(n))
	})
}

func check(t *rapid.T, got money.Money, err error, want *big.Int, operands ...int64) {
	possible := want.Sign() >= 0 && want.Cmp(big.NewInt(money.MaxAmount)) <= 0
	for _, operand := range operands {
		possible = possible && operand >= 0
	}
	for _, operand := range operands[:1] {
		possible = possible && operand <= money.MaxAmount
	}
	switch {
	case possible && err != nil:
		t.Fatalf("%v: refused %s: %v", operands, want, err)
	case !possible && err == nil:
		t.Fatalf("%v: got %s, want a refusal of %s", operands, got, want)
	case possible && got != eur(want.Int64()):
		t.Fatalf("%v: got %s, want %s", operands, got, want)
	}
}

func TestValidCurrency(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"EUR": true, "XCG": true,
		"": false, "EU": false, "EURO": false, "eur": false, "EÜR": false, "E R": false, "É1": false,
	} {
		if got := money.ValidCurrency(code); got != want {
			t.Errorf("ValidCurrency(%q) = %v, want %v", code, got, want)
		}
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	if got := eur(1250).String(); got != "1250 EUR" {
		t.Fatalf("got %q", got)
	}
	if got := money.Zero("JPY").String(); got != "0 JPY" {
		t.Fatalf("got %q", got)
	}
}
