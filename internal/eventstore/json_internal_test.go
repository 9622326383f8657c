package eventstore

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/pgtest"
)

func TestJSONThatPostgresWouldRefuse(t *testing.T) {
	t.Parallel()
	s := &Store{cfg: Config{MaxEventBytes: 200}.withDefaults()}
	for data, wanted := range map[string]string{
		`{"a":"\u0000"}`:               "NUL",
		`{"\u0000":1}`:                 "NUL",
		`"\ud800"`:                     "surrogate",
		`"\udc00"`:                     "surrogate",
		`"\uD83D\u0041"`:               "surrogate",
		`"\ufffd"`:                     "UTF-8",
		"\"\xff\"":                     "UTF-8",
		strings.Repeat("[", 65):        "deeper",
		`"` + strings.Repeat("a", 200): "limit",
		`"\ud83d\ude00"`:               "",
		`"\\u0000"`:                    "",
		`{"a":["\"[[[",{}]}`:           "",
		strings.Repeat("[", 64):        "",
	} {
		if got := s.checkJSON([]byte(data)); (wanted == "") != (got == "") || !strings.Contains(got, wanted) {
			t.Errorf("%s: got %q, want %q", data, got, wanted)
		}
	}
}

// What the guard lets through, Postgres takes; what Postgres refuses, the guard found.
func TestTheGuardAgreesWithPostgres(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := &Store{cfg: Config{}.withDefaults()}
	piece := rapid.SampledFrom([]string{
		`\u0000`, `\ud83d`, `\ude00`, `\uD83D\uDE00`, `\\`, `\"`, `\n`, `\u00e9`, "a", "é", "\xff", "0", "{", "u0000",
	})
	rapid.Check(t, func(t *rapid.T) {
		data := `{"k":"` + strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces"), "") + `"}`
		if !json.Valid([]byte(data)) {
			t.Skip("not JSON")
		}
		reason := s.checkJSON([]byte(data))
		var stored []byte
		err := pool.QueryRow(t.Context(), "select $1::jsonb::text", []byte(data)).Scan(&stored)
		if (reason == "") != (err == nil) {
			t.Fatalf("%q: the guard says %q, Postgres says %v", data, reason, err)
		}
	})
}
