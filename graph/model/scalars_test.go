package model_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/headrace/headrace/graph/model"
)

func TestDurationIsReadInBothForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"2s": 2 * time.Second, "PT2S": 2 * time.Second, "PT1.5S": 1500 * time.Millisecond, "PT0,25S": 250 * time.Millisecond,
		"P1DT1H": 25 * time.Hour, "P1W": 168 * time.Hour, "1m30s": 90 * time.Second, "0s": 0,
	} {
		if got, err := model.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "P", "PT", "-1s", "P-1D", "P1Y", "P1M", "PT1S2S", "PT1S1M", "2", "PT1e3S", "PTS"} {
		if got, err := model.ParseDuration(text); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
	if _, err := model.UnmarshalDuration("31s"); err == nil {
		t.Error("31s is let through")
	}
}

func TestIntegers(t *testing.T) {
	t.Parallel()
	for _, v := range []any{"7", int64(7), json.Number("7")} {
		if got, err := model.UnmarshalPosition(v); err != nil || got != 7 {
			t.Errorf("position %v is %d, %v", v, got, err)
		}
	}
	for _, v := range []any{"-1", "+1", "1_0", "", "1.0", json.Number("1e3"), 1.5, true, "9223372036854775808"} {
		if got, err := model.UnmarshalPosition(v); err == nil {
			t.Errorf("position %v is %d, want an error", v, got)
		}
	}
	for _, v := range []any{int64(model.MaxMinorUnits + 1), "7", json.Number("9007199254740992"), 0.5} {
		if got, err := model.UnmarshalMinorUnits(v); err == nil {
			t.Errorf("amount %v is %d, want an error", v, got)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	f.Add("PT1H2M3.5S")
	f.Add("P9999999999W")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := model.ParseDuration(text); err == nil && d < 0 {
			t.Fatalf("%q is %v", text, d)
		}
	})
}
