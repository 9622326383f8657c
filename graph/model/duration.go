package model

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// MaxWait is the longest Duration that may be asked for.
const MaxWait = 30 * time.Second

var errDuration = errors.New("a Duration is written as 1.5s, 250ms or PT1.5S, and is not negative")

// MarshalDuration writes a length of time as Go does.
func MarshalDuration(d time.Duration) graphql.Marshaler { return graphql.MarshalString(d.String()) }

// UnmarshalDuration reads a length of time between 0 and MaxWait, in Go's form or in ISO 8601's.
func UnmarshalDuration(v any) (time.Duration, error) {
	text, ok := v.(string)
	if !ok {
		return 0, errDuration
	}
	d, err := ParseDuration(text)
	if err != nil {
		return 0, err
	}
	if d > MaxWait {
		return 0, fmt.Errorf("a Duration is at most %s", MaxWait)
	}
	return d, nil
}

// ParseDuration reads a length of time that is not negative, in Go's form or in ISO 8601's. Years and months are
// refused, since they have no fixed length.
func ParseDuration(text string) (time.Duration, error) {
	if rest, iso := strings.CutPrefix(text, "P"); iso {
		return parseISO(rest)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errDuration
	}
	return d, nil
}

var (
	isoDate = []isoUnit{{'W', 7 * 24 * time.Hour}, {'D', 24 * time.Hour}}
	isoTime = []isoUnit{{'H', time.Hour}, {'M', time.Minute}, {'S', time.Second}}
)

type isoUnit struct {
	letter byte
	length time.Duration
}

func parseISO(text string) (time.Duration, error) {
	date, clock, hasClock := strings.Cut(text, "T")
	if text == "" || (hasClock && clock == "") {
		return 0, errDuration
	}
	days, err := sumISO(date, isoDate)
	if err != nil {
		return 0, err
	}
	time, err := sumISO(clock, isoTime)
	if err != nil || days > math.MaxInt64-time {
		return 0, errDuration
	}
	return days + time, nil
}

// sumISO adds numbers with letters, each letter at most once and in the order of the units.
func sumISO(text string, units []isoUnit) (time.Duration, error) {
	var sum time.Duration
	for _, unit := range units {
		end := strings.IndexByte(text, unit.letter)
		if end < 0 {
			continue
		}
		length, err := scaleISO(strings.Replace(text[:end], ",", ".", 1), unit.length)
		if err != nil || sum > math.MaxInt64-length {
			return 0, errDuration
		}
		sum += length
		text = text[end+1:]
	}
	if text != "" {
		return 0, errDuration
	}
	return sum, nil
}

func scaleISO(number string, unit time.Duration) (time.Duration, error) {
	if strings.Trim(number, "0123456789.") != "" {
		return 0, errDuration // what ParseFloat lets through beside decimal numbers
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n*float64(unit) >= math.MaxInt64 {
		return 0, errDuration
	}
	return time.Duration(math.Round(n * float64(unit))), nil
}
