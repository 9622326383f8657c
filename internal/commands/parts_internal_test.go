package commands

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

func TestCacheNeverGoesBack(t *testing.T) {
	t.Parallel()
	c := newCache[string](2)
	c.put("a", snapshot[string]{state: "new", version: 5})
	c.put("a", snapshot[string]{state: "old", version: 4})
	if got, ok := c.get("a"); !ok || got.state != "new" {
		t.Fatalf("got %+v", got)
	}
	c.drop("a")
	if _, ok := c.get("a"); ok {
		t.Fatal("a dropped state is kept")
	}
	c.put("a", snapshot[string]{state: "old", version: 4})
	if got, _ := c.get("a"); got.version != 4 {
		t.Fatalf("got %+v", got)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache[int](2)
	for _, stream := range []string{"a", "b", "c"} {
		c.put(stream, snapshot[int]{version: 1})
	}
	if _, ok := c.get("a"); ok || c.lru.Len() != 2 {
		t.Fatalf("%d streams are kept", c.lru.Len())
	}
	off := newCache[int](-1)
	off.put("a", snapshot[int]{version: 1})
	off.drop("a")
	if _, ok := off.get("a"); ok {
		t.Fatal("a cache that is off keeps something")
	}
}

func TestLanesAreOrderedBoundedAndForgotten(t *testing.T) {
	t.Parallel()
	l := newLanes(2)
	leave, err := l.enter(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	leaveOther, err := l.enter(t.Context(), "b")
	if err != nil {
		t.Fatal("one stream holds up another")
	}
	leaveOther()

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.enter(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	second := make(chan func())
	go func() {
		leave, err := l.enter(context.Background(), "a")
		if err != nil {
			t.Error(err)
		}
		second <- leave
	}()
	leave()
	(<-second)()
	if len(l.streams) != 0 {
		t.Fatalf("%d lanes are left", len(l.streams))
	}
}

type probe struct {
	Type string `json:"-"`
	A, B string
}

func (p probe) CommandType() string { return p.Type }

type unencodable struct{ F func() }

func (unencodable) CommandType() string { return "x" }

func TestCommandHashTellsCommandsApart(t *testing.T) {
	t.Parallel()
	seen := make(map[[32]byte]string)
	for name, c := range map[string]struct {
		cmd    probe
		stream string
	}{
		"plain": {probe{Type: "t", A: "1"}, "s"}, "type": {probe{Type: "u", A: "1"}, "s"},
		"input": {probe{Type: "t", B: "1"}, "s"}, "stream": {probe{Type: "t", A: "1"}, "s2"},
		"create": {probe{Type: "t", A: "1"}, ""}, "moved border": {probe{Type: "t1:", A: "1"}, "s"},
	} {
		id, err := commandID(c.cmd, c.stream, Call{CommandID: "c", Who: identity.Identity{Subject: "a"}})
		if err != nil || id.ID != "c" || id.Actor != "a" {
			t.Fatalf("%s: got %+v, %v", name, id, err)
		}
		if other, twice := seen[id.Hash]; twice {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[id.Hash] = name
		if again, _ := commandID(c.cmd, c.stream, Call{CommandID: "c", Who: identity.Identity{Subject: "a"}}); again != id {
			t.Errorf("%s has two hashes", name)
		}
	}
	if id, err := commandID(unencodable{}, "s", Call{}); err != nil || id != (eventstore.CommandID{}) {
		t.Errorf("without an id: got %+v, %v", id, err)
	}
	if _, err := commandID(unencodable{}, "s", Call{CommandID: "c"}); err == nil {
		t.Error("a command that is no JSON has a hash")
	}
}

func TestCheckText(t *testing.T) {
	t.Parallel()
	for value, code := range map[string]string{
		"": CodeRequired, "ok": "", strings.Repeat("é", 5): "", strings.Repeat("é", 6): CodeTooLong,
		"a\x00": CodeInvalidText, "a\xff": CodeInvalidText,
	} {
		got := ""
		if rejection, ok := errors.AsType[*Rejection](CheckText("f", value, 10)); ok {
			got = rejection.Code
			if rejection.Field != "f" || rejection.Error() == "" {
				t.Errorf("%q: got %+v", value, rejection)
			}
		}
		if got != code {
			t.Errorf("%q: got %q, want %q", value, got, code)
		}
	}
	if err := CheckOptionalText("f", "", 10); err != nil {
		t.Error(err)
	}
}
