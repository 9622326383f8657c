package decidertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

type put struct{ Text string }

func (put) CommandType() string { return "list.put" }

type added struct {
	Text string `json:"text"`
}

func (added) EventType() string { return "list.added" }

func list() commands.Decider[put, added, []string] {
	return commands.Decider[put, added, []string]{
		Category: "list",
		Initial:  func(string) []string { return nil },
		May: func(_ []string, _ put, who identity.Identity) error {
			if who.Subject == "eve" {
				return commands.Forbidden("not eve")
			}
			return nil
		},
		Decide: func(texts []string, c put) ([]added, error) {
			if slices.Contains(texts, c.Text) {
				return nil, &commands.Rejection{Code: "TWICE", Message: "it is there", Field: "text"}
			}
			if c.Text == "" {
				return nil, errors.New("a fault")
			}
			return []added{{c.Text}}, nil
		},
		Evolve: func(texts []string, e added) []string { return append(slices.Clip(texts), e.Text) },
		Effects: func(before []string, events []added) commands.Effects {
			return commands.Effects{Release: []string{fmt.Sprintf("%d+%d", len(before), len(events))}}
		},
	}
}

// recorder is a testing.TB that notes failures instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Fatal(...any)          { r.failed = true; panic(r) }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }

func (r *recorder) Name() string        { return "recorder" }
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Log(...any)          {}
func (r *recorder) Failed() bool        { return r.failed }
func (r *recorder) FailNow()            { r.failed = true; panic(r) }

func fails(check func(t testing.TB)) bool {
	r := &recorder{}
	func() {
		defer func() {
			if v := recover(); v != nil && v != any(r) {
				panic(v)
			}
		}()
		check(r)
	}()
	return r.failed
}

func TestOutcomesAreToldApart(t *testing.T) {
	t.Parallel()
	type outcome = Outcome[put, added, []string]
	success, refusal := Given(list(), added{"a"}).When(put{"b"}), Given(list(), added{"a"}).When(put{"a"})
	fault := Given(list()).When(put{""})
	forbidden := Given(list(), added{"a"}).As(identity.Identity{Subject: "eve"}).When(put{"b"})
	then := func(o outcome, want ...added) func(testing.TB) {
		return func(t testing.TB) { o.Then(t, want...) }
	}
	rejected := func(o outcome, code string) func(testing.TB) {
		return func(t testing.TB) { o.ThenRejected(t, code) }
	}
	for name, test := range map[string]struct {
		check func(testing.TB)
		fails bool
	}{
		"as expected":       {then(success, added{"b"}), false},
		"other event":       {then(success, added{"c"}), true},
		"no event":          {then(success), true},
		"more events":       {then(success, added{"b"}, added{"b"}), true},
		"refused":           {then(refusal, added{"b"}), true},
		"refused, none":     {then(refusal), true},
		"right code":        {rejected(refusal, "TWICE"), false},
		"wrong code":        {rejected(refusal, "OTHER"), true},
		"not refused":       {rejected(success, "TWICE"), true},
		"fault, no refusal": {rejected(fault, "TWICE"), true},
		"forbidden":         {func(t testing.TB) { forbidden.ThenForbidden(t) }, false},
		"forbidden, others": {func(t testing.TB) { refusal.ThenForbidden(t) }, true},
		"not forbidden":     {func(t testing.TB) { success.ThenForbidden(t) }, true},
		"effects refused":   {func(t testing.TB) { refusal.Effects(t) }, true},
	} {
		if got := fails(test.check); got != test.fails {
			t.Errorf("%s: failed %v, want %v", name, got, test.fails)
		}
	}
	if got := success.Effects(t).Release; !slices.Equal(got, []string{"1+1"}) {
		t.Errorf("got %q", got)
	}
}

func TestZeroFieldsAreFound(t *testing.T) {
	t.Parallel()
	type inner struct{ N int }
	type outer struct {
		S  string
		In []inner
	}
	for want, value := range map[string]any{
		"":           outer{"s", []inner{{1}}},
		"x.S":        outer{"", []inner{{1}}},
		"x.In":       outer{"s", nil},
		"x.In[0].N":  outer{"s", []inner{{0}}},
		"x.In[0].N ": outer{"s", []inner{{0}, {1}}},
	} {
		if got := zeroField("x", reflect.ValueOf(value)); got != strings.TrimSpace(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestGoldenFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv(UpdateVariable, "1")
	definitions := []eventstore.Definition{eventstore.Define[added](1)}
	CheckGolden(t, definitions, added{"a"})
	data, err := os.ReadFile(filepath.Join(dir, "testdata", "list.added.v1.json"))
	if err != nil || string(data) != "{\n  \"text\": \"a\"\n}\n" {
		t.Fatalf("got %s, %v", data, err)
	}
	t.Setenv(UpdateVariable, "")
	CheckGolden(t, definitions, added{"a"})
	if !fails(func(tb testing.TB) {
		compare(tb, filepath.Join("testdata", "list.added.v1.json"), []byte(`{"name":"a"}`))
	}) {
		t.Error("a renamed field goes unnoticed")
	}
	if !fails(func(tb testing.TB) { compare(tb, filepath.Join("testdata", "list.added.v2.json"), nil) }) {
		t.Error("a missing file goes unnoticed")
	}
}

func TestFileNames(t *testing.T) {
	t.Parallel()
	if typ, version, ok := parseName("testdata/cart.item_added.v12.json"); typ != "cart.item_added" || version != 12 || !ok {
		t.Errorf("got %q, %d, %v", typ, version, ok)
	}
	for _, bad := range []string{"cart.json", "cart.vx.json"} {
		if _, _, ok := parseName(bad); ok {
			t.Errorf("%q is taken for a golden file", bad)
		}
	}
}

func TestImpureModelsAreFound(t *testing.T) {
	t.Chdir(t.TempDir()) // rapid leaves a file beside a failed test
	texts := rapid.Custom(func(t *rapid.T) put { return put{rapid.StringN(1, 3, -1).Draw(t, "text")} })
	CheckPure(t, list(), texts, nil)

	sharing, sorting, counting := list(), list(), list()
	sharing.Evolve = func(texts []string, e added) []string {
		if texts == nil {
			texts = make([]string, 0, 100)
		}
		return append(texts, e.Text) // into memory that every successor of the state shares
	}
	sorting.Decide = func(texts []string, c put) ([]added, error) {
		slices.Sort(texts)
		return []added{{c.Text}}, nil
	}
	calls := 0
	counting.Decide = func([]string, put) ([]added, error) {
		calls++
		return []added{{fmt.Sprint(calls)}}, nil
	}
	for name, decider := range map[string]commands.Decider[put, added, []string]{
		"sharing": sharing, "sorting": sorting, "counting": counting,
	} {
		if !fails(func(tb testing.TB) { CheckPure(tb, decider, texts, nil) }) {
			t.Errorf("the %s model passes for pure", name)
		}
	}
}
