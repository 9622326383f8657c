package transport

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// encode leaves data out when there is none, as a request error must, and does not check again what the executor wrote.
func encode(b *bytes.Buffer, response *graphql.Response) {
	separator := byte('{')
	part := func(name string, text []byte) {
		b.WriteByte(separator)
		b.WriteString(name)
		b.Write(text)
		separator = ','
	}
	if len(response.Errors) > 0 {
		part(`"errors":`, encodeErrors(response.Errors))
	}
	if response.Data != nil {
		part(`"data":`, response.Data)
	}
	if len(response.Extensions) > 0 {
		if text, err := json.Marshal(response.Extensions); err == nil {
			part(`"extensions":`, text)
		}
	}
	if separator == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
}

func encodeErrors(errs gqlerror.List) []byte {
	text, err := json.Marshal(errs)
	if err != nil { // an extension that does not encode
		text = []byte(`[{"message":"the error could not be encoded"}]`)
	}
	return text
}

// buffered is how much of a response net/http keeps back, and counts by itself.
const buffered = 2048

// write sends a response with its length.
func write(w http.ResponseWriter, status int, mediaType string, response *graphql.Response) {
	b := buffers.Get().(*bytes.Buffer)
	defer recycle(b)
	encode(b, response)
	header := w.Header()
	if mediaType == typeJSON { // spares two allocations of the many
		header["Content-Type"] = headerJSON
	} else {
		header["Content-Type"] = headerResponse
	}
	if b.Len() >= buffered {
		header.Set("Content-Length", strconv.Itoa(b.Len()))
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

var (
	headerJSON     = []string{typeJSON + "; charset=utf-8"}
	headerResponse = []string{typeResponse + "; charset=utf-8"}
)

// Refuse answers a request that is not even to be looked at, with the status of the error's code.
func Refuse(w http.ResponseWriter, refused *gqlerror.Error) {
	errs := gqlerror.List{refused}
	write(w, statusOf(errs), typeJSON, &graphql.Response{Errors: errs})
}

// writeRefusal answers a request that does not come to be executed, in a media type that the client takes if it takes
// any.
func (s *Server) writeRefusal(w http.ResponseWriter, mediaType string, refused *gqlerror.Error) {
	errs := gqlerror.List{refused}
	code := statusOf(errs)
	switch code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", s.cfg.Challenge)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	write(w, code, or(mediaType, typeJSON), &graphql.Response{Errors: errs})
}
