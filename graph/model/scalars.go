// Package model is the Go side of the GraphQL types that are not rows of a view: scalars, payloads, pages and events.
//
// It promises that what a scalar writes it also reads, and that what it refuses comes with a sentence fit for the
// client. It reads and writes no database itself; fields that need one call a function they were given.
package model

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/headrace/headrace/internal/eventstore"
)

// MaxMinorUnits is the greatest amount that JSON carries exactly to every client: 2^53-1.
const MaxMinorUnits = 1<<53 - 1

// MarshalPosition writes a position of the log as text, since JavaScript's numbers end at 2^53.
func MarshalPosition(position int64) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		var buf [24]byte
		_, _ = w.Write(AppendPosition(buf[:0], position))
	})
}

// AppendPosition is MarshalPosition for encoders; this and the others of its kind are found by their names.
func AppendPosition(b []byte, position int64) []byte {
	return append(strconv.AppendInt(append(b, '"'), position, 10), '"')
}

// UnmarshalPosition reads a position from decimal text or an integer, 0 or greater.
func UnmarshalPosition(v any) (int64, error) {
	position, err := integer(v, true)
	if err != nil || position < 0 {
		return 0, fmt.Errorf("a Position is an integer from 0, as text or number")
	}
	return position, nil
}

// MarshalMinorUnits writes an amount as a JSON integer.
func MarshalMinorUnits(amount int64) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		var buf [24]byte
		_, _ = w.Write(AppendMinorUnits(buf[:0], amount))
	})
}

// AppendMinorUnits is MarshalMinorUnits for encoders.
func AppendMinorUnits(b []byte, amount int64) []byte { return strconv.AppendInt(b, amount, 10) }

// UnmarshalMinorUnits reads an amount from an integer between -(2^53-1) and 2^53-1.
func UnmarshalMinorUnits(v any) (int64, error) {
	amount, err := integer(v, false)
	if err != nil || amount > MaxMinorUnits || amount < -MaxMinorUnits {
		return 0, fmt.Errorf("MinorUnits is a JSON integer between -(2^53-1) and 2^53-1")
	}
	return amount, nil
}

// integer reads what the parser, a JSON decoder with UseNumber or a Go caller give for an integer.
func integer(v any, text bool) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case int:
		return int64(v), nil
	case json.Number:
		return parseInteger(string(v))
	case string:
		if text {
			return parseInteger(v)
		}
	}
	return 0, strconv.ErrSyntax
}

// parseInteger refuses the signs and underscores that strconv lets through but JSON does not.
func parseInteger(s string) (int64, error) {
	digits := s
	if digits != "" && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}

// MarshalToken writes the text form of a token.
func MarshalToken(token eventstore.Token) graphql.Marshaler {
	return graphql.MarshalString(token.String())
}

// UnmarshalToken reads the text form of a token.
func UnmarshalToken(v any) (eventstore.Token, error) {
	if text, ok := v.(string); ok {
		if token, err := eventstore.ParseToken(text); err == nil {
			return token, nil
		}
	}
	return eventstore.Token{}, fmt.Errorf("a Token is a text that a receipt gave")
}

// MarshalTime writes a time in UTC.
func MarshalTime(t time.Time) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		var buf [40]byte
		_, _ = w.Write(AppendTime(buf[:0], t))
	})
}

// AppendTime is MarshalTime for encoders.
func AppendTime(b []byte, t time.Time) []byte {
	return append(t.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

// UnmarshalTime reads an RFC 3339 time.
func UnmarshalTime(v any) (time.Time, error) {
	if text, ok := v.(string); ok {
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("a Time is RFC 3339, such as 2006-01-02T15:04:05Z")
}

// MarshalJSONText writes JSON as it is.
func MarshalJSONText(text json.RawMessage) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) { _, _ = w.Write(AppendJSONText(nil, text)) })
}

// AppendJSONText is MarshalJSONText for encoders.
func AppendJSONText(b []byte, text json.RawMessage) []byte {
	if len(text) == 0 {
		return append(b, "null"...)
	}
	return append(b, text...)
}

// UnmarshalJSONText encodes whatever value was given.
func UnmarshalJSONText(v any) (json.RawMessage, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode JSON value: %w", err)
	}
	return text, nil
}
