// Package transport carries GraphQL operations between clients and gqlgen's executor: over HTTP as the GraphQL-over-HTTP
// draft says, over server-sent events in the distinct connections mode of graphql-sse, and over WebSockets by
// graphql-transport-ws.
//
// The three share one reader of requests, one encoder and one function that gives statuses. They promise that whatever
// comes from outside has a limit; that a client which does not take its results loses its subscription, and is told
// where to go on, but never misses a result in between and never slows another client; and that a stream ends in a
// way its client understands: to come again, or not. What is inside an operation they do not know, and nothing of the
// domain: who asks, what is admitted and what an answer's ETag is are functions of Config. Whoever puts a Server behind
// an address keeps the pages of other sites out before, from WebSockets too, which browsers open for any page.
package transport

// The media types of answers.
const (
	typeJSON     = "application/json"
	typeResponse = "application/graphql-response+json"
	typeEvents   = "text/event-stream"
)
