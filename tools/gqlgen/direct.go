package main

import (
	_ "embed"
	"go/types"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/99designs/gqlgen/codegen"
	"github.com/99designs/gqlgen/codegen/config"
	"github.com/99designs/gqlgen/codegen/templates"
	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed direct.gotpl
var directTemplate string

// direct is a plugin of gqlgen that writes an encoder for every object type with fields that need neither arguments
// nor a context nor a resolver, and takes over the functions that gqlgen marshals such objects with: they ask the
// encoder first, and do what gqlgen's own do when it cannot.
type direct struct{}

// Name names the plugin to gqlgen.
func (direct) Name() string { return "direct" }

// GenerateCode runs before gqlgen generates its own code, so that what it takes out of data is not generated there.
func (direct) GenerateCode(data *codegen.Data) error {
	out := &output{Package: path.Dir(data.Config.Exec.ImportPath()) + "/direct"}
	if len(data.AllDirectives.LocationDirectives("FIELD")) == 0 { // such a directive may stand on any field
		out.collect(data)
	}
	for key, reference := range data.ReferencedTypes {
		if m, ok := out.marshaler(data, reference); ok {
			out.Marshalers = append(out.Marshalers, m)
			delete(data.ReferencedTypes, key)
		}
	}
	slices.SortFunc(out.Marshalers, func(a, b marshaler) int {
		return strings.Compare(a.Type.MarshalFunc(), b.Type.MarshalFunc())
	})
	return templates.Render(templates.Options{
		PackageName:     data.Config.Exec.Package,
		Filename:        directFile(data.Config),
		Template:        directTemplate,
		GeneratedHeader: true,
		Data:            out,
		Packages:        data.Config.Packages,
		Funcs:           map[string]any{"value": newValue, "next": func(v value) value { return v.next() }},
	})
}

// output is what the template shows.
type output struct {
	Package    string // that has the encoder
	Objects    []object
	Marshalers []marshaler
	known      map[string]bool // the names of Objects
}

// object is an object type, with those of its fields that can be encoded directly.
type object struct {
	*codegen.Object
	Direct []*codegen.Field
}

// marshaler is a function that gqlgen's code marshals an object or a list of such with.
type marshaler struct {
	Type  *config.TypeReference
	Limit uint // of goroutines that marshal a list
}

// collect looks for objects until no more are found: fields may lead to objects that are found later.
func (o *output) collect(data *codegen.Data) {
	o.known = map[string]bool{}
	for _, candidate := range data.Objects {
		_, named := types.Unalias(candidate.Type).(*types.Named)
		o.known[candidate.Name] = named && !candidate.Root && !candidate.IsReserved() && !candidate.IsMap() &&
			!config.IsNilable(candidate.Type) && !data.HasBatchFields(candidate.Name)
	}
	for again := true; again; {
		again = false
		o.Objects = nil
		for _, candidate := range data.Objects {
			if !o.known[candidate.Name] {
				continue
			}
			fields := o.fields(candidate)
			if len(fields) == 0 {
				o.known[candidate.Name], again = false, true
				continue
			}
			o.Objects = append(o.Objects, object{candidate, fields})
		}
	}
	maps.DeleteFunc(o.known, func(_ string, is bool) bool { return !is })
}

func (o *output) fields(of *codegen.Object) []*codegen.Field {
	var fields []*codegen.Field
	for _, f := range of.Fields {
		plain := !f.IsResolver && !f.IsBatch() && !f.IsMap() && !f.Stream && !f.HasHaser && !f.VOkFunc &&
			len(f.Args) == 0 && !f.MethodHasContext && !f.HasDirectives() && (f.IsMethod() || f.IsVariable())
		if plain && o.encodes(f.TypeReference) {
			fields = append(fields, f)
		}
	}
	return fields
}

// encodes reports whether values of the type can be written without gqlgen's help.
func (o *output) encodes(t *config.TypeReference) bool {
	switch {
	case t.IsPtrToPtr() || t.IsPtrToSlice() || t.IsPtrToIntf() || t.IsOmittable || t.IsContext:
		return false
	case t.IsSlice():
		return o.encodes(t.Elem())
	case t.GQL.Elem != nil:
		return false
	case t.Definition.Kind == ast.Object:
		return o.known[t.Definition.Name]
	case t.Definition.Kind == ast.Scalar, t.Definition.Kind == ast.Enum:
		// A pointer that the marshaler itself takes is a shape that no scalar here has.
		return !t.HasEnumValues() && (t.Marshaler != nil || t.IsMarshaler) && (!t.IsTargetNilable() || !t.IsPtr())
	}
	return false
}

func (o *output) marshaler(data *codegen.Data, t *config.TypeReference) (marshaler, bool) {
	fits := t.Definition != nil && t.Definition.Kind == ast.Object && o.known[t.Definition.Name] &&
		!t.IsMarshaler && t.Marshaler == nil && o.encodes(t) && (!t.IsSlice() || !t.Elem().IsSlice())
	return marshaler{Type: t, Limit: data.Config.Exec.WorkerLimit}, fits
}

// value is an expression of Go, and the type that it has.
type value struct {
	Expression string
	Type       *config.TypeReference
	Plan       string // the variable that holds the plan of its objects
	Depth      int    // of lists around it, which tells their indices apart
}

func newValue(expression string, t *config.TypeReference, plan string) value {
	return value{Expression: expression, Type: t, Plan: plan}
}

// Index names the variable that counts through the value's elements.
func (v value) Index() string { return string(rune('i' + v.Depth)) }

// next is an element of the value.
func (v value) next() value {
	return value{Expression: v.Expression + "[" + v.Index() + "]", Type: v.Type.Elem(), Plan: v.Plan, Depth: v.Depth + 1}
}

// Object reports whether the value is an object, and not a scalar.
func (v value) Object() bool { return v.Type.Definition.Kind == ast.Object }

// Address is the value as a pointer.
func (v value) Address() string {
	if v.Type.IsPtr() {
		return v.Expression
	}
	return "&" + v.Expression
}

// Plain is the value that the scalar's marshaler takes.
func (v value) Plain() string {
	if v.Type.IsPtr() {
		return "*" + v.Expression
	}
	return v.Expression
}

// Method is the encoder's method for the scalar, if it has one: the names of those of gqlgen's marshalers.
func (v value) Method() string {
	m := v.Type.Marshaler
	if m == nil || m.Pkg().Path() != "github.com/99designs/gqlgen/graphql" {
		return ""
	}
	return map[string]string{
		"MarshalString": "String", "MarshalID": "String", "MarshalInt": "Int", "MarshalInt64": "Int64", "MarshalBoolean": "Boolean",
	}[m.Name()]
}

// Append is the function beside the scalar's marshaler that appends the same text to a slice, if there is one: to
// MarshalTime belongs AppendTime.
func (v value) Append() *types.Func {
	m := v.Type.Marshaler
	if m == nil {
		return nil
	}
	name, ok := strings.CutPrefix(m.Name(), "Marshal")
	if !ok {
		return nil
	}
	f, _ := m.Pkg().Scope().Lookup("Append" + name).(*types.Func)
	return f
}
