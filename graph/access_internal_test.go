package graph

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// Whoever adds a field or a type says in the table who may ask for it and see it, or this fails.
func TestEveryRootFieldAndEveryObjectHasARule(t *testing.T) {
	t.Parallel()
	schema, table := generated.NewExecutableSchema(generated.Config{}).Schema(), newRules()
	if missing := table.missing(schema); len(missing) > 0 {
		t.Errorf("these have no rule: say in rules.go who may ask for them or see them: %v", missing)
	}
	fields := map[string]bool{}
	for _, object := range []*ast.Definition{schema.Query, schema.Mutation, schema.Subscription} {
		for _, field := range object.Fields {
			name := object.Name + "." + field.Name
			if fields[name] = true; strings.HasPrefix(field.Name, "__") {
				continue
			}
			switch rule := table.fields[name]; {
			case object == schema.Mutation && rule != byDecider && rule != staffOnly && rule != signedIn:
				t.Errorf("%s has a rule that does not fit a mutation", name)
			case rule == byDecider && object != schema.Mutation:
				t.Errorf("%s is no command that a decider judges", name)
			case object == schema.Subscription && rule == byObject:
				t.Errorf("%s may be asked for by nobody in particular, who could keep streams open", name)
			}
		}
	}
	for name := range table.fields {
		if !fields[name] {
			t.Errorf("the rule for %s fits no field", name)
		}
	}
	kinds := map[string]bool{}
	for _, object := range schema.GetPossibleTypes(schema.Types["Node"]) {
		kinds[kindOf(object.Name)] = true
	}
	for kind := range table.objects {
		if !kinds[kind] {
			t.Errorf("the rule for %s fits no type", kind)
		}
	}
}

// An object must not be reached past its rule by a field of another: the connections, payloads, live lists and root fields go through
// the helpers that ask.
func TestObjectsAreReachedByGuardedFieldsOnly(t *testing.T) {
	t.Parallel()
	schema := generated.NewExecutableSchema(generated.Config{}).Schema()
	guarded := func(object string) bool {
		for _, suffix := range []string{"Connection", "Edge", "Payload", "sChange"} {
			if strings.HasSuffix(object, suffix) {
				return true
			}
		}
		return object == "Query" || object == "Subscription" || object == "HistoryEntry"
	}
	nodes := map[string]bool{"Node": true}
	for _, object := range schema.GetPossibleTypes(schema.Types["Node"]) {
		nodes[object.Name] = true
	}
	for name, object := range schema.Types {
		for _, field := range object.Fields {
			asks := name == "Order" && field.Name == "fulfilment"
			if object.Kind == ast.Object && nodes[field.Type.Name()] && !guarded(name) && !asks {
				t.Errorf("%s.%s leads to a %s: let its resolver ask visible, and name it here", name, field.Name, field.Type.Name())
			}
		}
	}
}

func TestAServerDoesNotStartWithoutARuleForEverything(t *testing.T) {
	t.Parallel()
	schema := generated.NewExecutableSchema(generated.Config{}).Schema()
	for remove, want := range map[string]string{"Query.cart": "Query.cart", "Subscription.events": "Subscription.events", "Mutation.addItem": "Mutation.addItem", eventKind: "Event", cartView: "Cart"} {
		table := newRules()
		delete(table.fields, remove)
		delete(table.objects, remove)
		if got := table.missing(schema); len(got) != 1 || got[0] != want {
			t.Errorf("without %s: %v", remove, got)
		}
	}
}

func TestWhatHasNoRuleIsDenied(t *testing.T) {
	t.Parallel()
	empty, all := &root{}, identity.Unrestricted("ada")
	ctx := identity.NewContext(t.Context(), all)
	if empty.rules.ask(all, "Query", "cart") == nil {
		t.Error("a field without a rule is answered")
	}
	if empty.sees(ctx, cartView, &cartview.Cart{OwnerID: "ada"}) {
		t.Error("an object without a rule is seen")
	}
	if _, err := narrowed(ctx, empty, cartView, cartview.Filter{}); err == nil {
		t.Error("a list without a rule is answered")
	}
	full := &root{rules: newRules()}
	for name, object := range map[string]any{"a value": cartview.Cart{OwnerID: "ada"}, "none": (*cartview.Cart)(nil), "another": &model.Event{}} {
		if full.sees(ctx, cartView, object) {
			t.Errorf("%s is seen as a cart", name)
		}
	}
	if _, err := narrowed(ctx, full, cartView, "another filter"); err == nil {
		t.Error("a filter of another type is narrowed")
	}
}

func TestWhoMayAskForARootField(t *testing.T) {
	t.Parallel()
	table := rules{fields: map[string]fieldRule{
		"Query.free": byObject, "Mutation.free": byDecider, "Query.mine": signedIn, "Query.raw": staffOnly,
	}}
	nobody, ada := identity.Identity{}, identity.Identity{Subject: "ada"}
	clerk := identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}
	for _, c := range []struct {
		who           identity.Identity
		object, field string
		want          any
	}{
		{nobody, "Query", "free", nil},
		{nobody, "Mutation", "free", nil},
		{nobody, "Query", "__typename", nil},
		{nobody, "Query", "mine", codeUnauthenticated},
		{nobody, "Query", "raw", codeUnauthenticated},
		{nobody, "Query", "other", codeUnauthenticated},
		{ada, "Query", "mine", nil},
		{ada, "Query", "raw", codeForbidden},
		{ada, "Query", "other", codeForbidden},
		{clerk, "Query", "raw", nil},
		{clerk, "Query", "mine", nil},
		{clerk, "Query", "other", codeForbidden},
		{clerk, "Mutation", "mine", codeForbidden},
	} {
		var got any
		if err := table.ask(c.who, c.object, c.field); err != nil {
			got = err.Extensions["code"]
		}
		if got != c.want {
			t.Errorf("%+v asks for %s.%s: %v, want %v", c.who, c.object, c.field, got, c.want)
		}
	}
}

// Rows change and identities run out while a stream is open: each value is judged when it comes.
func TestStreamsJudgeEachValue(t *testing.T) {
	t.Parallel()
	yieldAll := func(yield func(int, eventstore.Mark) bool) error {
		for n := range 5 {
			if !yield(n, eventstore.Mark{Position: int64(n)}) {
				return nil
			}
		}
		return nil
	}
	r := &root{Resolver: &Resolver{Store: &eventstore.Store{}}, rules: rules{objects: map[string]objectRule{
		"number": {see: func(who identity.Identity, n any) bool { return who.Is("ada") && n != 2 }},
	}}}
	for name, c := range map[string]struct {
		who  identity.Identity
		kind string
		want []int
		ends any
	}{
		"who sees some":        {identity.Identity{Subject: "ada"}, "number", []int{0, 1, 3, 4}, nil},
		"who sees none":        {identity.Identity{Subject: "eve"}, "number", nil, nil},
		"nobody":               {identity.Identity{}, "number", nil, nil},
		"a kind without rule":  {identity.Unrestricted("ada"), "letter", nil, nil},
		"who is out of time":   {identity.Identity{Subject: "ada", Expires: time.Now().Add(-time.Second)}, "number", nil, codeUnauthenticated},
		"who has time for all": {identity.Identity{Subject: "ada", Expires: time.Now().Add(time.Hour)}, "number", []int{0, 1, 3, 4}, nil},
	} {
		end := &streamEnd{}
		ctx := identity.NewContext(context.WithValue(t.Context(), streamEndKey{}, end), c.who)
		var got []int
		for n := range stream(ctx, r, c.kind, yieldAll) {
			got = append(got, n)
		}
		var ends any
		if end.err != nil {
			ends = (presenter{}).present(ctx, end.err).Extensions["code"]
		}
		if !reflect.DeepEqual(got, c.want) || ends != c.ends {
			t.Errorf("%s: got %v and %v, want %v and %v", name, got, ends, c.want, c.ends)
		}
	}
}

// Who saw an object and may no longer is told that this is over; who never saw it is told nothing.
func TestAnObjectThatIsNoLongerToBeSeenEndsItsSubscription(t *testing.T) {
	t.Parallel()
	r := &root{Resolver: &Resolver{Store: &eventstore.Store{}}, rules: newRules()}
	ctx := identity.NewContext(t.Context(), identity.Identity{Subject: "ada"})
	for name, c := range map[string]struct {
		owners []string
		told   int
		ends   bool
	}{
		"always ada's":    {[]string{"ada", "ada"}, 2, false},
		"given to eve":    {[]string{"ada", "eve", "ada"}, 1, true},
		"eve's at first":  {[]string{"eve", "eve", "ada"}, 1, false},
		"eve's all along": {[]string{"eve", "eve"}, 0, false},
		"given and got":   {[]string{"eve", "ada", "eve"}, 1, true},
	} {
		told := 0
		w := watching[cartview.Cart]{
			standing: r.stands(), view: cartView, at: func(c *cartview.Cart) int64 { return c.Position },
			yield: func(*cartview.Cart, eventstore.Mark) bool { told++; return true },
		}
		var err error
		for i, owner := range c.owners {
			if _, err = w.tell(ctx, 0, &cartview.Cart{OwnerID: owner, Position: int64(i + 1)}); err != nil {
				break
			}
		}
		if told != c.told || (err != nil) != c.ends {
			t.Errorf("%s: told %d, then %v", name, told, err)
		}
	}
}
