package commands

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Codes of refusals that any noun may give for a text.
const (
	CodeRequired    = "REQUIRED"     // the field is empty
	CodeTooLong     = "TOO_LONG"     // the field has more bytes than its limit
	CodeInvalidText = "INVALID_TEXT" // the field is not UTF-8, or holds the character U+0000, which cannot be stored
)

// Rejection is a refusal by a rule. It is written for the client: nothing was stored, and the same command will be
// refused again as long as the state is what it is.
type Rejection struct {
	Code    string // stable, such as CART_CLOSED
	Message string // a sentence
	Field   string // the path of the input field at fault, such as unitPrice.amount; empty when it is none in particular

	cause error
}

func (r *Rejection) Error() string { return r.Message }

// Unwrap returns the *eventstore.ClaimTakenError behind the refusal when a unique key was the reason, else nil.
func (r *Rejection) Unwrap() error { return r.cause }

// because is a copy of the refusal that names its cause.
func (r *Rejection) because(err error) *Rejection {
	with := *r
	with.cause = err
	return &with
}

// CheckText refuses what is empty, longer than maxBytes, or cannot be stored as text.
func CheckText(field, value string, maxBytes int) error {
	if value == "" {
		return &Rejection{Code: CodeRequired, Field: field, Message: field + " must not be empty"}
	}
	return CheckOptionalText(field, value, maxBytes)
}

// CheckOptionalText is CheckText for a field that may be empty.
func CheckOptionalText(field, value string, maxBytes int) error {
	if len(value) > maxBytes {
		return &Rejection{
			Code: CodeTooLong, Field: field,
			Message: fmt.Sprintf("%s must have at most %d bytes, and has %d", field, maxBytes, len(value)),
		}
	}
	if !storable(value) {
		return &Rejection{
			Code: CodeInvalidText, Field: field,
			Message: field + " must be UTF-8 text without the character U+0000",
		}
	}
	return nil
}

func storable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}
