package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// document is a request as clients send it: the body of a POST, the parameters of a GET, the payload of subscribe.
type document struct {
	Query         *string         `json:"query"`
	DocumentID    *string         `json:"documentId"`
	OperationName *string         `json:"operationName"`
	Variables     json.RawMessage `json:"variables"`
	Extensions    json.RawMessage `json:"extensions"`
}

// params are the parameters for the executor. Without a query the request has to name a document that the server knows,
// by documentId, which is handed on in the extensions, or by extensions.persistedQuery.
func (d *document) params(header http.Header, maxVariables int) (*graphql.RawParams, *gqlerror.Error) {
	p := &graphql.RawParams{Headers: header}
	if d.Query != nil {
		p.Query = *d.Query
	}
	if d.OperationName != nil {
		p.OperationName = *d.OperationName
	}
	if len(d.Variables) > maxVariables {
		return nil, refuse(CodeTooLarge, "the variables must have at most %d bytes", maxVariables)
	}
	if decode(d.Variables, &p.Variables) != nil {
		return nil, refuse(CodeBadRequest, "variables are not a JSON object")
	}
	if decode(d.Extensions, &p.Extensions) != nil {
		return nil, refuse(CodeBadRequest, "extensions are not a JSON object")
	}
	if d.DocumentID != nil {
		if p.Extensions == nil {
			p.Extensions = map[string]any{}
		}
		p.Extensions["documentId"] = *d.DocumentID
	}
	if p.Query == "" && p.Extensions["documentId"] == nil && p.Extensions["persistedQuery"] == nil {
		return nil, refuse(CodeBadRequest, "the request has no query")
	}
	return p, nil
}

// decode reads an object, or null, and keeps numbers as they are written.
func decode(text []byte, into *map[string]any) error {
	if len(text) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// readRequest takes the parameters from an HTTP request.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, *gqlerror.Error) {
	start := graphql.Now()
	var d document
	var refused *gqlerror.Error
	if r.Method == http.MethodGet {
		refused = readQuery(r.URL.RawQuery, &d)
	} else {
		refused = s.readBody(w, r, &d)
	}
	if refused != nil {
		return nil, refused
	}
	params, refused := d.params(r.Header, s.cfg.MaxVariablesBytes)
	if refused != nil {
		return nil, refused
	}
	params.ReadTime = graphql.TraceTiming{Start: start, End: graphql.Now()}
	return params, nil
}

// readBody never tells the client what it sent: that may be shown by a page of another origin.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, d *document) *gqlerror.Error {
	if !isJSON(r.Header.Get("Content-Type")) {
		return refuse(CodeMediaType, "the content type must be application/json, in UTF-8")
	}
	body := buffers.Get().(*bytes.Buffer)
	defer recycle(body)
	limit := int64(s.cfg.MaxBodyBytes)
	if r.ContentLength > limit {
		return refuse(CodeTooLarge, "the body must have at most %d bytes", limit)
	}
	if n := r.ContentLength; n > 0 {
		body.Grow(int(n) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuse(CodeTooLarge, "the body must have at most %d bytes", limit)
	}
	if err != nil {
		return refuse(CodeBadRequest, "the body could not be read")
	}
	if json.Unmarshal(body.Bytes(), d) != nil {
		return refuse(CodeBadRequest, "the body is not a GraphQL request in JSON")
	}
	return nil
}

func isJSON(contentType string) bool {
	if contentType == typeJSON {
		return true
	}
	mediaType, options, err := mime.ParseMediaType(contentType)
	charset := options["charset"]
	return err == nil && mediaType == typeJSON && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

func readQuery(text string, d *document) *gqlerror.Error {
	query, err := url.ParseQuery(text)
	if err != nil {
		return refuse(CodeBadRequest, "the parameters in the URL cannot be read")
	}
	given := func(name string) *string {
		if values := query[name]; len(values) > 0 && values[0] != "" {
			return &values[0]
		}
		return nil
	}
	d.Query, d.DocumentID, d.OperationName = given("query"), given("documentId"), given("operationName")
	d.Variables, d.Extensions = json.RawMessage(query.Get("variables")), json.RawMessage(query.Get("extensions"))
	return nil
}

// buffers serve one request or response each, and are left to the collector when that was large.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const maxRecycled = 64 << 10

func recycle(b *bytes.Buffer) {
	if b.Cap() <= maxRecycled {
		b.Reset()
		buffers.Put(b)
	}
}
