package transport

import (
	"fmt"
	"net/http"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Codes of the errors that are the transports' own, in extensions.code.
const (
	CodeBadRequest      = "BAD_REQUEST"               // not a GraphQL request
	CodeMethod          = "METHOD_NOT_ALLOWED"        // neither GET nor POST, or a mutation by GET
	CodeNotAcceptable   = "NOT_ACCEPTABLE"            // Accept names no media type there is
	CodeMediaType       = "UNSUPPORTED_MEDIA_TYPE"    // the body is not JSON in UTF-8
	CodeTooLarge        = "REQUEST_TOO_LARGE"         // the body or the variables are
	CodeNeedsStream     = "SUBSCRIPTION_NEEDS_STREAM" // a subscription by a plain request
	CodeUnauthenticated = "UNAUTHENTICATED"
	CodeForbidden       = "FORBIDDEN"
	CodeOrigin          = "ORIGIN_NOT_TRUSTED" // the page that sends it is of another site
	CodeRateLimited     = "RATE_LIMITED"
	CodeTooManyStreams  = "TOO_MANY_STREAMS" // of the process, or operations on a socket
	CodeDraining        = "DRAINING"         // the server is going down
	CodeOverloaded      = "OVERLOADED"
	CodeSlowConsumer    = "SLOW_CONSUMER" // the client did not take results in time; extensions.lastPosition is where to go on
	CodeTimeout         = "TIMEOUT"
	CodeInternal        = "INTERNAL_SERVER_ERROR"
)

// refuse is an error whose text is fit for the client.
func refuse(code, format string, args ...any) *gqlerror.Error {
	return &gqlerror.Error{Message: fmt.Sprintf(format, args...), Extensions: map[string]any{"code": code}}
}

// presentable is an error that was made for the client, or one that hides another.
func presentable(err error, code, instead string) *gqlerror.Error {
	if e, ok := err.(*gqlerror.Error); ok { //nolint:errorlint // one that wraps another was not made for clients
		return e
	}
	return refuse(code, "%s", instead)
}

// status is the HTTP status of a response, the only place that decides on one. A response that has data, even null, is
// a success; one without is a refusal, whose status the new media type shows and the old one hides.
func status(mediaType string, response *graphql.Response) int {
	if response.Data != nil || mediaType == typeJSON {
		return http.StatusOK
	}
	return statusOf(response.Errors)
}

// statusOf is the status of a request that was refused with these errors.
func statusOf(errs gqlerror.List) int {
	if len(errs) == 0 {
		return http.StatusBadRequest
	}
	switch errs[0].Extensions["code"] {
	case CodeUnauthenticated:
		return http.StatusUnauthorized
	case CodeForbidden, CodeOrigin:
		return http.StatusForbidden
	case CodeMethod:
		return http.StatusMethodNotAllowed
	case CodeNotAcceptable, CodeNeedsStream:
		return http.StatusNotAcceptable
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeMediaType:
		return http.StatusUnsupportedMediaType
	case CodeRateLimited:
		return http.StatusTooManyRequests
	case CodeInternal:
		return http.StatusInternalServerError
	case CodeTooManyStreams, CodeDraining, CodeOverloaded, CodeTimeout:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}
