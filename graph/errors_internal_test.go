package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

var errSecret = errors.New("password is hunter2")

func TestKnownErrorsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err     error
		code    string
		details map[string]any
	}{
		{&eventstore.UnknownOutcomeError{CommandID: "c1", Err: errSecret}, codeUnknownOutcome, map[string]any{"commandId": "c1"}},
		{&eventstore.UnknownOutcomeError{Err: context.DeadlineExceeded}, codeUnknownOutcome, nil},
		{&eventstore.OverloadedError{Queued: 9, RetryAfter: 250 * time.Millisecond}, codeOverloaded, map[string]any{"retryAfterMs": int64(250)}},
		{&queries.WaitersError{Projection: "cart", Waiting: 9}, codeOverloaded, nil},
		{&queries.BehindError{Projection: "cart", Position: 3, Wanted: 5, Head: 9}, codeProjectionBehind, map[string]any{
			"projection": "cart", "position": "3", "wanted": "5", "head": "9",
		}},
		{&queries.HaltedError{Projection: "cart", Position: 3, Reason: errSecret.Error()}, codeProjectionHalted, map[string]any{
			"projection": "cart", "position": "3", "paused": false,
		}},
		{&queries.HaltedError{Projection: "cart", Position: 3, Paused: true}, codeProjectionHalted, map[string]any{
			"projection": "cart", "position": "3", "paused": true,
		}},
		{&eventstore.BeyondHeadError{Position: 7, Head: 3}, codePositionBeyondHead, map[string]any{"head": "3"}},
		{&eventstore.DivergedError{Position: 7, Reason: errSecret.Error()}, codeLogDiverged, nil},
		{&queries.ArgumentError{Argument: "first", Reason: "must not be negative"}, codeBadUserInput, nil},
		{context.DeadlineExceeded, codeTimeout, nil},
		{context.Canceled, codeCancelled, nil},
	} {
		var log bytes.Buffer
		p := presenter{slog.New(slog.NewTextHandler(&log, nil))}
		for _, err := range []error{c.err, fmt.Errorf("doing it: %w", c.err), gqlerror.Wrap(c.err)} {
			got := p.present(t.Context(), err)
			if got.Extensions["code"] != c.code {
				t.Errorf("%T is %v, want %s", c.err, got.Extensions, c.code)
			}
			for name, want := range c.details {
				if got.Extensions[name] != want {
					t.Errorf("%s: %s is %v, want %v", c.code, name, got.Extensions[name], want)
				}
			}
			if strings.Contains(got.Error(), "hunter2") || got.Message == "" {
				t.Errorf("%s says %q", c.code, got.Message)
			}
		}
		if log.Len() > 0 {
			t.Errorf("%s was logged: %s", c.code, &log)
		}
	}
}

func TestUnknownErrorsAreMaskedAndLogged(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"plain":           fmt.Errorf("dial: %w", errSecret),
		"wrapped by path": &gqlerror.Error{Message: errSecret.Error(), Err: errSecret},
		"panic":           &panicError{cause: errSecret, stack: stack()},
		"unknown view":    &queries.UnknownProjectionError{Projection: "hunter2"},
		"unknown event":   &eventstore.UnknownEventError{Type: "hunter2"},
	} {
		var log bytes.Buffer
		ctx := context.WithValue(t.Context(), requestKey{}, &request{correlationID: "r-1"})
		got := presenter{slog.New(slog.NewTextHandler(&log, nil))}.present(ctx, err)
		id, _ := got.Extensions["id"].(string)
		if got.Extensions["code"] != codeInternal || id == "" || !strings.Contains(got.Message, id) {
			t.Errorf("%s goes out as %q %v", name, got.Message, got.Extensions)
		}
		if out := fmt.Sprint(got.Message, got.Extensions); strings.Contains(out, "hunter2") {
			t.Errorf("%s is told to the client: %s", name, out)
		}
		for _, part := range []string{id, "hunter2", "r-1"} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("%s: no %q in the log: %s", name, part, &log)
			}
		}
		if name == "panic" && !strings.Contains(log.String(), "errors_internal_test.go") {
			t.Errorf("no stack in the log: %s", &log)
		}
	}
}

func TestPanicsAreMaskedWhereTheyAreCaught(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	p := presenter{slog.New(slog.NewTextHandler(&log, nil))}
	caught := p.recovered(t.Context(), errSecret)
	shown := p.present(t.Context(), caught)
	if out := fmt.Sprint(caught, shown, shown.Extensions); strings.Contains(out, "hunter2") || shown.Extensions["code"] != codeInternal {
		t.Errorf("the client is told %s", out)
	}
	if n := strings.Count(log.String(), "hunter2"); n != 1 {
		t.Errorf("the panic is %d times in the log: %s", n, &log)
	}
}

// What is no refusal must not look like one: a client would take it for proof that nothing was written.
func TestOnlyRefusalsAreUserErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err         error
		code, field string
	}{
		{&commands.Rejection{Code: "CART_CLOSED", Message: "no"}, "CART_CLOSED", ""},
		{&commands.Rejection{Code: "REQUIRED", Message: "no", Field: "sku"}, "REQUIRED", "sku"},
		{&eventstore.ConflictError{Stream: "cart-1", Actual: 4}, codeVersionConflict, "expectedVersion"},
		{&eventstore.ClaimTakenError{Key: "email:hunter2", Owner: "user-1"}, codeClaimTaken, ""},
		{&eventstore.CommandIDReusedError{Actor: "hunter2", ID: "c1"}, codeCommandIDReused, "commandId"},
		{&eventstore.InvalidRequestError{Field: "events[0]", Reason: "too large"}, codeInvalidInput, ""},
	} {
		got, ok := userError(fmt.Errorf("handle: %w", c.err))
		if !ok || got.Code != c.code || text(got.Field) != c.field || got.Message == "" || strings.Contains(got.Message, "hunter2") {
			t.Errorf("%T is %+v, %v", c.err, got, ok)
		}
	}
	for _, err := range []error{
		&eventstore.UnknownOutcomeError{CommandID: "c1", Err: errSecret}, &eventstore.OverloadedError{}, &eventstore.BeyondHeadError{},
		context.Canceled, context.DeadlineExceeded, errSecret,
	} {
		if got, ok := userError(err); ok {
			t.Errorf("%T is the refusal %+v", err, got)
		}
	}
}

func TestErrorsInSubscriptionsBecomeTheirEnd(t *testing.T) {
	t.Parallel()
	for name, produce := range map[string]func(func(int, eventstore.Mark) bool) error{
		"error": func(yield func(int, eventstore.Mark) bool) error { yield(1, eventstore.Mark{}); return errSecret },
		"panic": func(yield func(int, eventstore.Mark) bool) error { yield(1, eventstore.Mark{}); panic(errSecret) },
	} {
		end := &streamEnd{}
		var got []int
		everybody := &root{Resolver: &Resolver{Store: &eventstore.Store{}}, rules: rules{objects: map[string]objectRule{"number": {see: func(identity.Identity, any) bool { return true }}}}}
		for v := range stream(context.WithValue(t.Context(), streamEndKey{}, end), everybody, "number", produce) {
			got = append(got, v)
		}
		if len(got) != 1 || end.err == nil || !strings.Contains(end.err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", name, got, end.err)
		}
	}
}
