package direct

import (
	"runtime"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

var shapes = Types{
	"Cart": {Satisfies: []string{"Cart"}, Fields: map[string]Field{"id": {Index: 0}, "lines": {Index: 1, Type: "Line"}}},
	"Line": {Satisfies: []string{"Line"}, Fields: map[string]Field{"sku": {Index: 0}}},
}

// plan executes as much of a document as leads to the plan of its first selection as a cart.
func plan(t *testing.T, x *Extension, document *ast.QueryDocument, variables map[string]any) *Plan {
	t.Helper()
	operation := document.Operations[0]
	oc := &graphql.OperationContext{Doc: document, Operation: operation, Variables: variables}
	if err := x.MutateOperationContext(t.Context(), oc); err != nil {
		t.Fatal(err)
	}
	return PlanOf(oc, shapes, "Cart", operation.SelectionSet)
}

func parse(t *testing.T, text string) *ast.QueryDocument {
	t.Helper()
	document, err := parser.ParseQuery(&ast.Source{Input: text})
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestAPlanIsMadeOnceForEachCondition(t *testing.T) {
	t.Parallel()
	x := &Extension{}
	document := parse(t, `query($a: Boolean!) { id ...f @skip(if: $a) } fragment f on Cart { lines { sku } }`)
	with := plan(t, x, document, map[string]any{"a": false})
	without := plan(t, x, document, map[string]any{"a": true})
	if with == nil || without == nil || len(with.Steps) != 2 || len(without.Steps) != 1 {
		t.Fatalf("the plans are %+v and %+v", with, without)
	}
	if plan(t, x, document, map[string]any{"a": false}) != with || plan(t, x, document, map[string]any{"a": true}) != without {
		t.Fatal("a plan was made twice")
	}
	if unknown := plan(t, x, parse(t, `{ id lines { sku total } }`), nil); unknown != nil {
		t.Fatalf("a field that no encoder knows has the plan %+v", unknown)
	}
}

func TestManyConditionsKeepNoPlans(t *testing.T) {
	t.Parallel()
	x := &Extension{}
	document := parse(t, `query($a: Boolean!, $b: Boolean!, $c: Boolean!, $d: Boolean!, $e: Boolean!) {
		a: id @skip(if: $a) b: id @skip(if: $b) c: id @skip(if: $c) d: id @skip(if: $d) e: id @skip(if: $e) }`)
	variables := map[string]any{"a": true, "b": false, "c": true, "d": false, "e": true}
	first, second := plan(t, x, document, variables), plan(t, x, document, variables)
	if first == second || len(first.Steps) != 2 || len(second.Steps) != 2 {
		t.Fatalf("the plans are %+v and %+v", first, second)
	}
}

func TestPlansGoWithTheirDocuments(t *testing.T) {
	t.Parallel()
	x := &Extension{}
	kept := parse(t, `{ id lines { sku } }`)
	plan(t, x, kept, nil)
	for range 100 {
		plan(t, x, parse(t, `{ id ...f } fragment f on Cart { lines { sku } }`), nil)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		runtime.GC()
		left := 0
		x.documents.Range(func(any, any) bool { left++; return true })
		if left == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d documents are left", left)
		}
	}
	runtime.KeepAlive(kept)
}
