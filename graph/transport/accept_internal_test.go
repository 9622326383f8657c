package transport

import (
	"net/http"
	"testing"
)

func TestAcceptIsReadWithItsWeights(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]accepted{
		"":                                  {json: typeJSON},
		"*/*":                               {json: typeJSON},
		"application/*":                     {json: typeJSON},
		"application/json":                  {json: typeJSON},
		"application/json; charset=utf-8":   {json: typeJSON},
		"APPLICATION/JSON":                  {json: typeJSON},
		"application/graphql-response+json": {json: typeResponse},
		"application/graphql-response+json, application/json":             {json: typeResponse},
		"application/json, application/graphql-response+json":             {json: typeResponse},
		"application/json, application/graphql-response+json;q=0.9":       {json: typeJSON},
		"application/graphql-response+json;q=0.5, application/json;q=0.4": {json: typeResponse},
		"application/graphql-response+json, */*;q=0.1":                    {json: typeResponse},
		"application/graphql-response+json;q=0, */*":                      {json: typeJSON},
		"application/json;q=0, application/*":                             {json: typeResponse},
		"application/json;q=0":                                            {},
		"*/*;q=0":                                                         {},
		"application/json;q=2":                                            {}, // no weight
		"application/json;q=x, application/graphql-response+json;q=0.1":   {json: typeResponse},
		"application/json ; Q=0.3":                                        {json: typeJSON},
		"text/html":                                                       {},
		"text/html, */*;q=0.8":                                            {json: typeJSON},
		"applicationx/json, json, /, ,":                                   {},
		"text/event-stream":                                               {events: true, prefer: true},
		"text/*":                                                          {events: true, prefer: true},
		"text/event-stream;q=0":                                           {},
		"text/event-stream, */*;q=0.1":                                    {json: typeJSON, events: true, prefer: true},
		"text/event-stream, application/json":                             {json: typeJSON, events: true},
		"text/event-stream;q=0.1, application/json":                       {json: typeJSON, events: true},
		"application/graphql-response+json, application/json, text/event-stream, multipart/mixed":       {json: typeResponse, events: true},
		"application/json;q=0.5, text/event-stream;q=0.8, application/graphql-response+json;q=0.7":      {json: typeResponse, events: true, prefer: true},
		"multipart/mixed;deferSpec=20220824, application/graphql-response+json, application/json;q=0.9": {json: typeResponse},
	} {
		if got := negotiate(http.Header{"Accept": {accept}}); got != want {
			t.Errorf("%q is read as %+v, want %+v", accept, got, want)
		}
	}
	if got := negotiate(http.Header{}); got != (accepted{json: typeJSON}) {
		t.Errorf("none is read as %+v", got)
	}
	if got := negotiate(http.Header{"Accept": {"text/html", typeResponse}}); got != (accepted{json: typeResponse}) {
		t.Errorf("two lines are read as %+v", got)
	}
}
