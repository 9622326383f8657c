package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// The headers that say for a whole request what fields can say in arguments. The request's extensions say the same, and
// go before the headers; a field's argument goes before both, but for the token, of which the highest counts.
const (
	headerAtLeast   = "Headrace-At-Least"
	headerWithin    = "Headrace-Within"
	headerOnTimeout = "Headrace-On-Timeout"
	headerFreshness = "Headrace-Freshness"
)

// reads finds out what an operation asks of its reads, before it is executed.
type reads struct {
	within    time.Duration // when a request does not say
	freshness bool          // always
}

var _ graphql.OperationContextMutator = reads{}

// ExtensionName names the extension to gqlgen.
func (reads) ExtensionName() string { return "Reads" }

// Validate lets gqlgen check the extension; there is nothing to check.
func (reads) Validate(graphql.ExecutableSchema) error { return nil }

// reading is what one operation asks of its reads, and what it was answered.
type reading struct {
	tokens    []eventstore.Token // different ones, the highest last
	within    time.Duration
	shortest  time.Duration // that any of the fields may take to wait
	onTimeout model.OnTimeout
	freshness bool
	began     time.Time // when waiting began for all fields at once; zero: each begins by itself
	primary   bool      // no replica may answer

	check   sync.Once // of all tokens but the highest
	checked error

	mu   sync.Mutex
	used map[string]used // by view
}

// used is how a view was found before it was read.
type used struct {
	queries.Freshness
	stale bool // what was asked for was not in it
}

// MutateOperationContext reads headers, extensions and the tokens of fields. What cannot be read is refused: an answer
// without it might be staler than the client can bear.
func (x reads) MutateOperationContext(_ context.Context, oc *graphql.OperationContext) *gqlerror.Error {
	r := &reading{within: x.within, shortest: model.MaxWait, onTimeout: model.OnTimeoutError, freshness: x.freshness}
	for _, name := range []string{headerAtLeast, headerWithin, headerOnTimeout, headerFreshness} {
		if values := oc.Headers[name]; len(values) > 0 {
			if err := r.set(name, values[0]); err != nil {
				return coded(codeBadUserInput, "the header %s is not right: %s", name, err)
			}
		}
	}
	if err := r.readExtensions(oc.Extensions); err != nil {
		return coded(codeBadUserInput, "%s", err)
	}
	if oc.Operation.Operation == ast.Query {
		for _, field := range graphql.CollectFields(oc, oc.Operation.SelectionSet, []string{"Query"}) {
			r.addArguments(field, oc.Variables)
		}
	}
	oc.Stats.SetExtension(x.ExtensionName(), r)
	return nil
}

func (r *reading) readExtensions(all map[string]any) error {
	value, given := all["headrace"]
	if !given {
		return nil
	}
	ours, ok := value.(map[string]any)
	if !ok {
		return errors.New("extensions.headrace is not an object")
	}
	headers := map[string]string{
		"atLeast": headerAtLeast, "within": headerWithin, "onTimeout": headerOnTimeout, "freshness": headerFreshness,
	}
	for name, value := range ours {
		header, known := headers[name]
		if !known {
			return fmt.Errorf("extensions.headrace has no %q; it may have atLeast, within, onTimeout and freshness", name)
		}
		if value == nil {
			continue
		}
		if err := r.set(header, value); err != nil {
			return fmt.Errorf("extensions.headrace.%s is not right: %s", name, err)
		}
	}
	return nil
}

// set reads one of the four, by its name as a header.
func (r *reading) set(name string, value any) error {
	switch name {
	case headerAtLeast:
		token, err := model.UnmarshalToken(value)
		r.add(token)
		return err
	case headerWithin:
		within, err := model.UnmarshalDuration(value)
		r.within = within
		return err
	case headerOnTimeout:
		text, _ := value.(string)
		r.onTimeout = model.OnTimeout(text)
		if r.onTimeout != model.OnTimeoutError && r.onTimeout != model.OnTimeoutStale {
			return fmt.Errorf("it is %s or %s", model.OnTimeoutError, model.OnTimeoutStale)
		}
		return nil
	}
	switch value {
	case true, "true":
		r.freshness = true
	case false, "false":
	default:
		return errors.New("it is true or false")
	}
	return nil
}

// addArguments takes over what a field says. What cannot be read fails its own field.
func (r *reading) addArguments(field graphql.CollectedField, variables map[string]any) {
	argument := func(name string) any {
		if a := field.Arguments.ForName(name); a != nil {
			if value, err := a.Value.Value(variables); err == nil {
				return value
			}
		}
		return nil
	}
	if token, err := model.UnmarshalToken(argument("atLeast")); err == nil {
		r.add(token)
	}
	if within, err := model.UnmarshalDuration(argument("within")); err == nil {
		r.shortest = min(r.shortest, within)
	} else {
		r.shortest = min(r.shortest, r.within)
	}
}

func (r *reading) add(token eventstore.Token) {
	if token == (eventstore.Token{}) || slices.Contains(r.tokens, token) {
		return
	}
	r.tokens = append(r.tokens, token)
	slices.SortStableFunc(r.tokens, func(a, b eventstore.Token) int { return int(max(-1, min(1, a.Position-b.Position))) })
}

// readingOf is what the operation asks of its reads.
func readingOf(ctx context.Context) *reading {
	if graphql.HasOperationContext(ctx) {
		if r, ok := graphql.GetOperationContext(ctx).Stats.GetExtension(reads{}.ExtensionName()).(*reading); ok {
			return r
		}
	}
	return &reading{onTimeout: model.OnTimeoutError}
}

// take says how fresh the views were that were used since the last response.
func (r *reading) take() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.used) == 0 {
		return nil
	}
	told := make(map[string]any, len(r.used))
	for view, u := range r.used {
		told[view] = map[string]any{
			"position": position(u.At.Position), "head": position(u.Head), "eventsBehind": u.EventsBehind(),
			"millisecondsBehind": u.Behind.Milliseconds(), "stale": u.stale, "parkedStreams": u.Parked,
		}
		if u.Replica {
			told[view].(map[string]any)["replica"] = true
		}
	}
	r.used = nil
	return told
}

// note keeps the oldest of what was seen of a view.
func (r *reading) note(f queries.Freshness, stale bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == nil {
		r.used = map[string]used{}
	}
	if before, known := r.used[f.Projection]; known {
		stale = stale || before.stale
		if before.At.Position <= f.At.Position {
			f = before.Freshness
		}
	}
	r.used[f.Projection] = used{f, stale}
}

func (r *reading) knows(view string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.used[view]
	return known
}

// judge refuses tokens of another history. Waiting judges the highest by itself; with that one in the log, a lower one
// that is of this history needs no waiting.
func (r *reading) judge(ctx context.Context, store *eventstore.Store) error {
	r.check.Do(func() {
		for _, token := range r.tokens[:max(0, len(r.tokens)-1)] {
			if store.Knows(token) {
				continue
			}
			if r.checked = store.CheckToken(ctx, token); r.checked != nil {
				return
			}
		}
	})
	return r.checked
}

// ready returns when a view includes what the request asked for and what own stands for, if anything. After that the view
// may be read, with the context that is returned: where replicas may answer, it waits only when none does.
func (r *root) ready(
	ctx context.Context, view string, within *time.Duration, onTimeout *model.OnTimeout, own eventstore.Token,
) (context.Context, error) {
	asked := readingOf(ctx)
	if r.Replicas == nil || asked.primary || own.Position > 0 || !isQuery(ctx) {
		return ctx, r.primaryReady(ctx, asked, view, within, onTimeout, own)
	}
	return r.Replicas.Offer(ctx, queries.Offer{
		View: view, Tokens: asked.tokens,
		Else: func(ctx context.Context) error { return r.primaryReady(ctx, asked, view, within, onTimeout, own) },
		Answered: func(f queries.Freshness) {
			if asked.freshness {
				asked.note(f, false)
			}
		},
	}), nil
}

// isQuery tells queries from mutations and subscriptions: the former read what they wrote, and the latter what they were
// told of, which replicas may lack.
func isQuery(ctx context.Context) bool {
	return graphql.HasOperationContext(ctx) && graphql.GetOperationContext(ctx).Operation.Operation == ast.Query
}

// primaryReady is ready for the primary.
func (r *root) primaryReady(
	ctx context.Context, asked *reading, view string, within *time.Duration, onTimeout *model.OnTimeout, own eventstore.Token,
) error {
	if onTimeout == nil {
		onTimeout = &asked.onTimeout
	}
	wanted, err := r.await(ctx, asked, view, within, own)
	stale := err != nil && *onTimeout == model.OnTimeoutStale && late(err)
	if err != nil && !stale {
		return err
	}
	if stale || (asked.freshness && !asked.knows(view)) {
		found, err := r.Progress.Freshness(ctx, view)
		if err != nil {
			return err
		}
		asked.note(found[0], stale && found[0].At.Position < wanted)
	}
	return nil
}

// await waits, and says up to which position.
func (r *root) await(ctx context.Context, asked *reading, view string, within *time.Duration, own eventstore.Token) (wanted int64, err error) {
	tokens := make([]eventstore.Token, 0, 2)
	if n := len(asked.tokens); n > 0 {
		tokens = append(tokens, asked.tokens[n-1])
	}
	if own.Position > 0 && !slices.Contains(tokens, own) {
		tokens = append(tokens, own)
	}
	if len(tokens) == 0 {
		return 0, nil
	}
	ctx, cancel := r.deadline(ctx, asked, within)
	defer cancel()
	if err := asked.judge(ctx, r.Store); err != nil {
		return 0, err
	}
	for _, token := range tokens {
		wanted = max(wanted, token.Position)
		err = errors.Join(err, r.Progress.Wait(ctx, view, token))
	}
	return wanted, err
}

// deadline bounds a wait by what the field, the request or the configuration says.
func (r *root) deadline(ctx context.Context, asked *reading, within *time.Duration) (context.Context, context.CancelFunc) {
	limit := asked.within
	if within != nil {
		limit = *within
	}
	if asked.began.IsZero() {
		return context.WithTimeout(ctx, limit)
	}
	return context.WithDeadline(ctx, asked.began.Add(limit))
}

// late tells whether an error of waiting says that the view is there and older than wanted.
func late(err error) bool {
	_, behind := errors.AsType[*queries.BehindError](err)
	_, halted := errors.AsType[*queries.HaltedError](err)
	_, crowded := errors.AsType[*queries.WaitersError](err)
	return (behind || halted || crowded) && !eventstore.Diverged(err)
}
