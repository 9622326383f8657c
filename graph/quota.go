package graph

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/identity"
)

// quota bounds the subscriptions that are open at once: those of the process, and those of one subject on all of its
// connections together. Who has no subject is bounded by the process and by the connection alone. It is safe for
// concurrent use.
type quota struct {
	cfg *Config

	mu   sync.Mutex
	open int
	of   map[string]int // by subject
}

func newQuota(cfg *Config) *quota { return &quota{cfg: cfg, of: map[string]int{}} }

func (q *quota) take(subject string) *gqlerror.Error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open >= q.cfg.MaxSubscriptions {
		return coded(transport.CodeTooManyStreams, "at most %d subscriptions may be open at this server", q.cfg.MaxSubscriptions)
	}
	if subject != "" {
		if q.of[subject] >= q.cfg.MaxSubjectSubscriptions {
			return coded(transport.CodeTooManyStreams, "at most %d subscriptions may be open on your behalf", q.cfg.MaxSubjectSubscriptions)
		}
		q.of[subject]++
	}
	q.open++
	return nil
}

func (q *quota) giveBack(subject string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open--
	if subject == "" {
		return
	}
	if q.of[subject]--; q.of[subject] == 0 {
		delete(q.of, subject)
	}
}

// aroundStreams refuses a subscription that is one too many. The operation's context ends with it.
func (q *quota) aroundStreams(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	subject := identity.FromContext(ctx).Subject
	if refused := q.take(subject); refused != nil {
		return graphql.OneShot(&graphql.Response{Errors: gqlerror.List{refused}})
	}
	context.AfterFunc(ctx, func() { q.giveBack(subject) })
	return next(ctx)
}
