package commands

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/headrace/headrace/internal/eventstore"
)

// try judges the command once, on the kept state if there is one, and once more on the newest state where the first
// judgement is none that the log would check.
func (h *Handler[C, E, S]) try(ctx context.Context, t task[C]) (eventstore.Receipt, error) {
	at, kept, err := h.load(ctx, t)
	if err != nil {
		return eventstore.Receipt{}, err
	}
	events, refusal := h.judge(at, t)
	if kept && (refusal != nil || len(events) == 0) {
		if at, err = h.catchUp(ctx, t.stream, at); err != nil {
			return eventstore.Receipt{}, err
		}
		events, refusal = h.judge(at, t)
	}
	switch {
	case refusal != nil:
		return h.unlessDone(ctx, t, refusal)
	case len(events) == 0:
		return h.confirm(ctx, t, at)
	default:
		return h.append(ctx, t, at, events)
	}
}

// load is the state to judge on, and whether it is one that was kept and so may be old.
func (h *Handler[C, E, S]) load(ctx context.Context, t task[C]) (at snapshot[S], kept bool, err error) {
	epoch, _ := h.store.Epoch() // before the reading: what is read may be of a newer one, and never of an older
	if t.call.Epoch != 0 && t.call.Epoch != epoch {
		return at, false, &eventstore.HistoryError{Stream: t.stream, Epoch: epoch}
	}
	empty := snapshot[S]{state: h.decider.Initial(t.stream), epoch: epoch}
	if t.create {
		return empty, false, nil
	}
	if at, ok := h.cache.get(t.stream); ok && at.epoch == epoch {
		return at, true, nil
	}
	at, err = h.catchUp(ctx, t.stream, empty)
	return at, false, err
}

// catchUp evolves the snapshot over what the stream holds after it, and keeps it.
func (h *Handler[C, E, S]) catchUp(ctx context.Context, stream string, at snapshot[S]) (snapshot[S], error) {
	from := at.version
	at, err := h.evolve(at, stream, h.store.Stream(ctx, stream, from))
	if err != nil {
		return at, err
	}
	if at.version > from {
		h.cache.put(stream, at)
	}
	return at, nil
}

// evolve is the snapshot after the events of its stream that follow it.
func (h *Handler[C, E, S]) evolve(
	at snapshot[S], stream string, events iter.Seq2[eventstore.Event, error],
) (snapshot[S], error) {
	for recorded, err := range events {
		if err != nil {
			return at, fmt.Errorf("reading stream %s: %w", stream, err)
		}
		payload, err := h.store.Registry().Decode(recorded)
		if err != nil {
			return at, fmt.Errorf("reading stream %s, version %d: %w", stream, recorded.Version, err)
		}
		event, ok := payload.(E)
		if !ok {
			return at, fmt.Errorf("reading stream %s, version %d: a %s is no event of category %s",
				stream, recorded.Version, recorded.Type, h.decider.Category)
		}
		at = snapshot[S]{
			state:    h.decider.Evolve(at.state, event),
			version:  recorded.Version,
			position: recorded.Position,
			eventID:  recorded.ID,
			epoch:    at.epoch,
		}
	}
	return at, nil
}

// judge decides, once it is sure that the client may ask and meant this version. In this order, so that a version is told
// to nobody who may not know it.
func (h *Handler[C, E, S]) judge(at snapshot[S], t task[C]) ([]E, error) {
	if h.decider.May != nil {
		if err := h.decider.May(at.state, t.cmd, t.call.Who); err != nil {
			return nil, err
		}
	}
	if expected := t.call.ExpectedVersion; expected != nil && *expected != at.version {
		return nil, &eventstore.ConflictError{
			Stream: t.stream, Expected: eventstore.Exact(*expected), Actual: at.version,
		}
	}
	return h.decider.Decide(at.state, t.cmd)
}

// unlessDone answers with the refusal, unless the command was carried out before under its id.
func (h *Handler[C, E, S]) unlessDone(ctx context.Context, t task[C], refusal error) (eventstore.Receipt, error) {
	if t.id.ID == "" {
		return eventstore.Receipt{}, refusal
	}
	receipt, found, err := h.store.FindReceipt(ctx, t.id)
	if err != nil {
		return eventstore.Receipt{}, fmt.Errorf("looking up command id %q: %w", t.id.ID, err)
	}
	if !found {
		return eventstore.Receipt{}, refusal
	}
	return receipt, nil
}

// confirm answers a success without events: with a stored receipt when there is an id to store it under, else with the
// stream as it is.
func (h *Handler[C, E, S]) confirm(ctx context.Context, t task[C], at snapshot[S]) (eventstore.Receipt, error) {
	if t.id.ID != "" {
		return h.append(ctx, t, at, nil)
	}
	receipt := eventstore.Receipt{Stream: t.stream, Version: at.version}
	if at.version == 0 {
		return receipt, nil // the zero token: every state includes it
	}
	head, err := h.store.Head(ctx)
	if err != nil {
		return eventstore.Receipt{}, fmt.Errorf("reading the head of the log: %w", err)
	}
	receipt.Token = eventstore.Token{
		LogID: head.LogID, Epoch: head.Epoch, Position: at.position, EventID: at.eventID,
	}
	return receipt, nil
}

// append writes the decision with the version it was made at, and keeps the state that follows.
func (h *Handler[C, E, S]) append(
	ctx context.Context, t task[C], at snapshot[S], events []E,
) (eventstore.Receipt, error) {
	request, claims := h.request(t, at, events)
	receipt, err := h.store.Append(ctx, request)
	if err != nil {
		return h.refused(ctx, t, claims, err)
	}
	if receipt.Duplicate || len(events) == 0 {
		return receipt, nil
	}
	next := at.state
	for _, event := range events {
		next = h.decider.Evolve(next, event)
	}
	h.cache.put(t.stream, snapshot[S]{
		state: next, version: receipt.Version, position: receipt.Token.Position, eventID: receipt.Token.EventID,
		epoch: at.epoch,
	})
	return receipt, nil
}

func (h *Handler[C, E, S]) request(t task[C], at snapshot[S], events []E) (eventstore.Request, []Claim) {
	request := eventstore.Request{
		Stream:    t.stream,
		Expected:  eventstore.Exact(at.version),
		Metadata:  t.call.metadata(),
		CommandID: t.id,
		Epoch:     at.epoch,
	}
	if len(events) == 0 {
		return request, nil
	}
	request.Events = make([]eventstore.Payload, len(events))
	for i, event := range events {
		request.Events[i] = event
	}
	if h.decider.Effects == nil {
		return request, nil
	}
	effects := h.decider.Effects(at.state, events)
	for _, claim := range effects.Claim {
		request.Claim = append(request.Claim, claim.Key)
	}
	request.Release = effects.Release
	request.Messages = effects.Messages
	return request, effects.Claim
}

// refused makes the answer of an append that failed. The state that it was judged on is kept only when the failure says
// nothing against it.
func (h *Handler[C, E, S]) refused(
	ctx context.Context, t task[C], claims []Claim, err error,
) (eventstore.Receipt, error) {
	var (
		overloaded *eventstore.OverloadedError
		conflict   *eventstore.ConflictError
		taken      *eventstore.ClaimTakenError
	)
	if !errors.As(err, &overloaded) {
		h.cache.drop(t.stream)
	}
	switch {
	case errors.As(err, &taken):
		return h.unlessDone(ctx, t, nameTaken(claims, taken))
	case errors.As(err, &conflict):
		return h.unlessDone(ctx, t, conflict)
	default:
		return eventstore.Receipt{}, fmt.Errorf("appending to stream %s: %w", t.stream, err)
	}
}

// nameTaken is the refusal in the words of the write model, where it has any.
func nameTaken(claims []Claim, taken *eventstore.ClaimTakenError) error {
	for _, claim := range claims {
		if claim.Key == taken.Key && claim.Taken != nil {
			return claim.Taken.because(taken)
		}
	}
	return taken
}
