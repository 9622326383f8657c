package graph_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/ast"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/graph/direct"
	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// rows is what root fields answer with, in the place of resolvers.
type rows struct {
	carts  []cartview.Cart
	events []eventstore.Event
}

func (r *rows) resolve(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if fc.Object != "Query" {
		return next(ctx)
	}
	switch fc.Field.Name {
	case "carts":
		slice := queries.Slice[cartview.Cart]{Rows: r.carts, HasNext: true}
		for i := range r.carts {
			slice.Cursors = append(slice.Cursors, fmt.Sprint("cursor", i))
		}
		return model.NewConnection(slice, func(context.Context) (int64, error) { return int64(len(r.carts)), nil }), nil
	case "cart":
		if len(r.carts) == 0 {
			return nil, nil
		}
		return &r.carts[0], nil
	case "events":
		return &model.EventConnection{Page: eventstore.Page{Events: r.events, ScannedTo: 7, Head: 9}, After: 3}, nil
	case "nodes":
		nodes := []model.Node{nil}
		for i := range r.carts {
			nodes = append(nodes, &r.carts[i])
		}
		for _, e := range r.events {
			nodes = append(nodes, &model.Event{Event: e})
		}
		return nodes, nil
	}
	return nil, fmt.Errorf("no rows for %s", fc.Field.Name)
}

// answerer executes documents over rows, and keeps the documents as the server does.
type answerer struct{ executor *executor.Executor }

func newAnswerer(from *rows, extensions ...graphql.HandlerExtension) *answerer {
	a := &answerer{executor.New(generated.NewExecutableSchema(generated.Config{}))}
	a.executor.SetQueryCache(lru.New[*ast.QueryDocument](100))
	a.executor.AroundFields(from.resolve)
	for _, e := range extensions {
		a.executor.Use(e)
	}
	return a
}

func (a *answerer) answer(t interface{ Fatalf(string, ...any) }, document string, variables map[string]any) string {
	ctx := graphql.StartOperationTrace(context.Background())
	oc, errs := a.executor.CreateOperationContext(ctx, &graphql.RawParams{Query: document, Variables: variables})
	if errs != nil {
		t.Fatalf("%s: %v", document, errs)
	}
	responses, ctx := a.executor.DispatchOperation(ctx, oc)
	response := responses(ctx)
	var errors []string
	for _, e := range response.Errors {
		errors = append(errors, e.Error())
	}
	slices.Sort(errors) // the executor reports those of a list in any order
	return string(response.Data) + "\n" + strings.Join(errors, "\n")
}

// Whatever is selected of whatever rows, the direct way writes the same bytes and reports the same errors as the
// executor alone, however often and under whatever conditions the same document is executed.
func TestDirectAnswersEqualTheExecutors(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := &rows{}
		plain, quick := newAnswerer(from), newAnswerer(from, new(direct.Extension))
		schema := generated.NewExecutableSchema(generated.Config{}).Schema()
		s := &selector{t: t, schema: schema}
		document := s.document()
		for range 3 {
			from.carts = rapid.SliceOfN(rapid.Custom(drawCart), 0, 3).Draw(t, "carts")
			from.events = rapid.SliceOfN(rapid.Custom(drawEvent), 0, 3).Draw(t, "events")
			variables := map[string]any{}
			for i := range s.variables {
				variables[fmt.Sprint("v", i)] = rapid.Bool().Draw(t, "variable")
			}
			want, got := plain.answer(t, document, variables), quick.answer(t, document, variables)
			if got != want {
				t.Fatalf("%s\nwith %v is\n%s\nand should be\n%s", document, variables, got, want)
			}
		}
	})
}

// selector draws documents.
type selector struct {
	t         *rapid.T
	schema    *ast.Schema
	variables int
	fragments []string
}

func (s *selector) document() string {
	var roots []string
	for range rapid.IntRange(1, 3).Draw(s.t, "roots") {
		switch rapid.IntRange(0, 3).Draw(s.t, "root") {
		case 0:
			roots = append(roots, "carts "+s.set("CartConnection", 4))
		case 1:
			roots = append(roots, `cart(id: "c") `+s.set("Cart", 4))
		case 2:
			roots = append(roots, "events "+s.set("EventConnection", 4))
		case 3:
			roots = append(roots, `nodes(ids: ["c"]) `+s.set("Node", 4))
		}
	}
	head := "query"
	for i := range s.variables {
		head += map[bool]string{true: "(", false: ", "}[i == 0] + fmt.Sprintf("$v%d: Boolean!", i)
	}
	if s.variables > 0 {
		head += ")"
	}
	return head + " { " + strings.Join(roots, " ") + " }" + strings.Join(s.fragments, "")
}

// set draws a selection on a type. Equal names always stand for equal fields, since a document must not contradict itself.
func (s *selector) set(name string, depth int) string {
	out := []string{"__typename"}
	for range rapid.IntRange(0, 5).Draw(s.t, "selections") {
		out = append(out, s.selection(name, depth))
	}
	return "{ " + strings.Join(out, " ") + " }"
}

func (s *selector) selection(name string, depth int) string {
	switch kind := rapid.IntRange(0, 9).Draw(s.t, "kind"); {
	case kind == 0 && depth > 0:
		condition := s.condition(name)
		return "... on " + condition + s.directive() + " " + s.set(condition, depth-1)
	case kind == 1 && depth > 0:
		set := s.set(name, depth-1)
		fragment := fmt.Sprint("F", len(s.fragments))
		s.fragments = append(s.fragments, " fragment "+fragment+" on "+name+" "+set)
		return "..." + fragment + s.directive()
	case name == "Node" && depth > 0:
		concrete := rapid.SampledFrom([]string{"Cart", "Event"}).Draw(s.t, "concrete")
		return "... on " + concrete + " " + s.set(concrete, depth-1)
	}
	fields := slices.DeleteFunc(slices.Clone(s.schema.Types[name].Fields), func(f *ast.FieldDefinition) bool {
		leaf := s.schema.Types[f.Type.Name()].Fields == nil
		return strings.HasPrefix(f.Name, "__") || (!leaf && depth == 0)
	})
	if len(fields) == 0 {
		return "__typename"
	}
	field := rapid.SampledFrom(fields).Draw(s.t, "field")
	text := field.Name + s.directive()
	if alias := rapid.IntRange(0, 3).Draw(s.t, "alias"); alias < 2 {
		text = fmt.Sprintf("a%d_%s_%s: %s", alias, name, field.Name, text) // of one type, since scalars of two may differ
	}
	if below := s.schema.Types[field.Type.Name()]; below.Fields != nil {
		text += " " + s.set(below.Name, depth-1)
	}
	return text
}

// condition is the type itself, or the interface that it may have.
func (s *selector) condition(name string) string {
	return rapid.SampledFrom(append(slices.Clone(s.schema.Types[name].Interfaces), name)).Draw(s.t, "condition")
}

func (s *selector) directive() string {
	if rapid.IntRange(0, 5).Draw(s.t, "conditional") > 0 {
		return ""
	}
	directive := rapid.SampledFrom([]string{"@skip", "@include"}).Draw(s.t, "directive")
	if rapid.Bool().Draw(s.t, "literal") {
		return fmt.Sprintf(" %s(if: %v)", directive, rapid.Bool().Draw(s.t, "if"))
	}
	// Few documents have more variables than plans are kept for, and some should.
	v := rapid.IntRange(0, min(s.variables, 6)).Draw(s.t, "which")
	s.variables = max(s.variables, v+1)
	return fmt.Sprintf(" %s(if: $v%d)", directive, v)
}

var (
	anyText = rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "\xff\xc3", "\u2028<&>", "𝄞é"}))
	anyTime = rapid.Custom(func(t *rapid.T) time.Time {
		zone := time.FixedZone("", rapid.IntRange(-50_000, 50_000).Draw(t, "zone"))
		return time.Unix(rapid.Int64Range(0, 1<<36).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).In(zone)
	})
	anyInt = rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, math.MinInt64, math.MaxInt64}))
)

func drawCart(t *rapid.T) cartview.Cart {
	c := cartview.Cart{
		ID: anyText.Draw(t, "id"), OwnerID: anyText.Draw(t, "owner"), Status: cartview.Status(anyText.Draw(t, "status")),
		Currency: anyText.Draw(t, "currency"), TotalAmount: anyInt.Draw(t, "total"), Version: anyInt.Draw(t, "version"),
		Position: anyInt.Draw(t, "position"), OpenedAt: anyTime.Draw(t, "opened"), UpdatedAt: anyTime.Draw(t, "updated"),
	}
	if rapid.Bool().Draw(t, "ordered") {
		id := anyText.Draw(t, "order")
		c.OrderID = &id
	}
	for range rapid.IntRange(0, 2).Draw(t, "items") {
		c.Items = append(c.Items, cartview.Item{
			SKU: anyText.Draw(t, "sku"), Name: anyText.Draw(t, "name"), Quantity: int(anyInt.Draw(t, "quantity")),
			UnitPrice: money.Money{Amount: anyInt.Draw(t, "price"), Currency: anyText.Draw(t, "unit")},
		})
	}
	return c
}

// drawEvent draws broken ones, too: their metadata is an error where it is selected, and their missing data a null
// where the schema has none.
func drawEvent(t *rapid.T) eventstore.Event {
	broken := []string{`{}`, `{"actor":"a","command_id":"c"}`, `{"actor":"é"}`, `{"actor":`, ``}
	e := eventstore.Event{
		Position: anyInt.Draw(t, "position"), Version: anyInt.Draw(t, "version"), RecordedAt: anyTime.Draw(t, "recorded"),
		ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), Stream: anyText.Draw(t, "stream"), Type: anyText.Draw(t, "type"),
		SchemaVersion: rapid.IntRange(0, 9).Draw(t, "schema"), Metadata: json.RawMessage(rapid.SampledFrom(broken).Draw(t, "metadata")),
	}
	if data := rapid.SampledFrom([]string{"", `{}`, `{"a":[1,"é"]}`}).Draw(t, "data"); data != "" {
		e.Data = json.RawMessage(data)
	}
	return e
}

// What the executor does for each field it does not do for those of rows: they are written directly, in lists, in
// fragments, below fields that are not, and under every condition.
func TestFieldsOfRowsPassTheExecutorBy(t *testing.T) {
	t.Parallel()
	from := &rows{carts: []cartview.Cart{{ID: "a", Items: []cartview.Item{{SKU: "x"}}}, {ID: "b"}}}
	for document, want := range map[string]int{ // fields below the root that come to be resolved
		`{ carts { nodes { id total { amount } items { sku } } pageInfo { endCursor } } }`:          0,
		`{ carts { totalCount nodes { id } edges { node { id } } } }`:                               3, // counting is work
		`{ carts { nodes { ...f } } } fragment f on Cart { ... on Node { id } b: openedAt }`:        0,
		`query($v: Boolean = true) { carts { nodes { id @skip(if: $v) b: id @include(if: $v) } } }`: 0,
		`{ cart(id: "a") { id } }`: 0,
	} {
		a := newAnswerer(from, new(direct.Extension))
		var fields atomic.Int64
		a.executor.AroundFields(func(ctx context.Context, next graphql.Resolver) (any, error) {
			fields.Add(1)
			return next(ctx)
		})
		for range 2 { // with a plan that is made, and with one that is found
			fields.Store(0)
			a.answer(t, document, nil)
			if got := int(fields.Load()); got != want {
				t.Errorf("%s: the executor resolved %d fields, want %d", document, got, want)
			}
		}
	}
}
