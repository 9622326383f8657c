package transport

import (
	"context"
	"strconv"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// operation is one that answers by messages.
type operation struct {
	stream
	id      []byte // as JSON; of an event stream's there is none
	cancel  context.CancelFunc
	stopped atomic.Bool // by the client, who wants to hear no more of it

	told    noted // of the last result that was queued
	hasTold bool
}

// sink is where an operation's results go.
type sink struct {
	queue   *queue
	encode  func(o *operation, response *graphql.Response, id string) []byte
	failing func() // is called before a response without data, which is an operation's last
}

// run executes the operation that start gives, or tells the response that it was refused with, and queues the results. It
// reports how it ended: slow means that a result could not be queued in time.
func (s *Server) run(
	ctx context.Context, exec graphql.GraphExecutor, o *operation, to sink,
	start func() (*graphql.OperationContext, *graphql.Response),
) (end outcome) {
	tell := func(response *graphql.Response) outcome {
		at, noted := o.take()
		if response.Data == nil {
			to.failing()
		}
		end := to.queue.put(message{operation: o, text: to.encode(o, response, at.id)}, s.cfg.SlowAfter, ctx.Done())
		if end == queued && noted {
			o.told, o.hasTold = at, true
		}
		return end
	}
	defer func() {
		if cause := recover(); cause != nil {
			end = tell(s.recovered(ctx, cause))
		}
	}()
	oc, refused := start()
	if refused != nil {
		return tell(refused)
	}
	if oc.Operation.Operation != ast.Subscription {
		limited := withTimeout(ctx, s.cfg.RequestTimeout)
		defer limited.cancel()
		responses, ctx := exec.DispatchOperation(limited, oc)
		return tell(orTimeout(responses(ctx)))
	}
	responses, ctx := exec.DispatchOperation(ctx, oc)
	for {
		response := responses(ctx)
		if response == nil {
			return queued
		}
		if end := tell(response); end != queued || response.Data == nil {
			return end
		}
	}
}

// orTimeout stands for what the executor did not come to answer.
func orTimeout(response *graphql.Response) *graphql.Response {
	if response == nil {
		return &graphql.Response{Errors: gqlerror.List{refuse(CodeTimeout, "the request took too long")}}
	}
	return response
}

// slowError says to a slow consumer where it can go on.
func (o *operation) slowError() *graphql.Response {
	e := refuse(CodeSlowConsumer, "the results were not taken in time")
	if o.hasTold {
		e.Extensions["lastPosition"] = strconv.FormatInt(o.told.position, 10)
	}
	return &graphql.Response{Errors: gqlerror.List{e}}
}
