package graph

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
)

func TestATraceContextGoesAlongAndAMalformedOneDoesNot(t *testing.T) {
	t.Parallel()
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const parent = "00-" + trace + "-" + span + "-01"
	for name, c := range map[string]struct {
		parents, states []string
		want            eventstore.Trace
	}{
		"none":                        {},
		"a parent":                    {[]string{parent}, nil, eventstore.Trace{Parent: parent}},
		"with a state":                {[]string{parent}, []string{"a=1,b=2"}, eventstore.Trace{Parent: parent, State: "a=1,b=2"}},
		"a state in two headers":      {[]string{parent}, []string{"a=1", "b=2"}, eventstore.Trace{Parent: parent, State: "a=1,b=2"}},
		"a malformed state":           {[]string{parent}, []string{"no state"}, eventstore.Trace{Parent: parent}},
		"a state of 513 bytes":        {[]string{parent}, []string{"a=" + strings.Repeat("1", 200) + ",b=" + strings.Repeat("1", 200) + ",c=" + strings.Repeat("1", 106)}, eventstore.Trace{Parent: parent}},
		"a state alone":               {nil, []string{"a=1"}, eventstore.Trace{}},
		"two parents":                 {[]string{parent, parent}, nil, eventstore.Trace{}},
		"of a later version":          {[]string{"01-" + trace + "-" + span + "-01-more"}, nil, eventstore.Trace{Parent: parent}},
		"with more than there is":     {[]string{parent + "-more"}, nil, eventstore.Trace{}},
		"in capitals":                 {[]string{strings.ToUpper(parent)}, nil, eventstore.Trace{}},
		"without a trace":             {[]string{"00-" + strings.Repeat("0", 32) + "-" + span + "-01"}, nil, eventstore.Trace{}},
		"without a span":              {[]string{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01"}, nil, eventstore.Trace{}},
		"of a version that is none":   {[]string{"ff-" + trace + "-" + span + "-01"}, nil, eventstore.Trace{}},
		"a megabyte of a later one":   {[]string{"01-" + trace + "-" + span + "-01-" + strings.Repeat("x", 1<<20)}, nil, eventstore.Trace{Parent: parent}},
		"what would be another field": {[]string{parent + "\r\nX: y"}, nil, eventstore.Trace{}},
	} {
		r := &http.Request{Header: http.Header{headerTraceparent: c.parents, headerTracestate: c.states}}
		if got := newRequest(r).trace; got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}
