package commands

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
)

// Config sets the limits of a Handler. The zero value is ready for use.
type Config struct {
	// Attempts is how often a command is tried when other processes append to its stream first, or when the answer
	// of an append got lost. Default 5; 1 tries once.
	Attempts int
	// CacheSize is how many streams' last states are kept in memory. Default 10,000; negative keeps none.
	CacheSize int
	// MaxWaiting is how many commands of this process may be at work on or waiting for one stream. Default 1,000.
	// The next one is answered with an *eventstore.OverloadedError.
	MaxWaiting int
}

func (c Config) withDefaults() Config {
	if c.Attempts <= 0 {
		c.Attempts = 5
	}
	if c.CacheSize == 0 {
		c.CacheSize = 10_000
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = 1_000
	}
	return c
}

// Handler carries out the commands of one write model. It is safe for concurrent use. There should be one for each
// write model in a process: two do not know of each other's queues and states, as if they were in two processes.
type Handler[C Command, E eventstore.Payload, S any] struct {
	store   *eventstore.Store
	decider Decider[C, E, S]
	cfg     Config
	cache   *cache[S]
	lanes   *lanes
}

// NewHandler makes the handler of a write model, whose events must be in the store's registry.
func NewHandler[C Command, E eventstore.Payload, S any](
	store *eventstore.Store, decider Decider[C, E, S], cfg Config,
) *Handler[C, E, S] {
	cfg = cfg.withDefaults()
	return &Handler[C, E, S]{
		store:   store,
		decider: decider,
		cfg:     cfg,
		cache:   newCache[S](cfg.CacheSize),
		lanes:   newLanes(cfg.MaxWaiting),
	}
}

// task is one command on its way.
type task[C Command] struct {
	stream string
	cmd    C
	call   Call
	id     eventstore.CommandID
	create bool
}

// Handle carries out the command on the stream, which need not have events yet. A success without events has the receipt
// of the stream as it is.
//
// Errors: *ForbiddenError, when call.Who may not do this; *Rejection, a refusal by a rule; *eventstore.ConflictError, when the stream is not at call.ExpectedVersion, or
// when other processes came first on every attempt; *eventstore.ClaimTakenError; *eventstore.CommandIDReusedError;
// *eventstore.OverloadedError; *eventstore.HistoryError, when the log got another history on every attempt, or has another one
// than call.Epoch says; *eventstore.InvalidRequestError, when the command id or another part is over a limit of
// the log; *eventstore.UnknownOutcomeError, after which the same call with the same command id tells the truth. With any
// other error nothing was written.
func (h *Handler[C, E, S]) Handle(ctx context.Context, stream string, cmd C, call Call) (eventstore.Receipt, error) {
	if !h.owns(stream) {
		return eventstore.Receipt{}, h.refuseForeign(stream, cmd, call)
	}
	id, err := commandID(cmd, stream, call)
	if err != nil {
		return eventstore.Receipt{}, err
	}
	return h.run(ctx, task[C]{stream: stream, cmd: cmd, call: call, id: id})
}

// Create carries out the command on a new stream, without reading it first: if it has events already, the answer is a
// *eventstore.ConflictError. A caller who makes a fresh stream name for each call and repeats a command id gets the
// receipt, and so the stream, of the first. A name that is derived from something else, and may come again, is for
// Handle. The errors are those of Handle.
func (h *Handler[C, E, S]) Create(ctx context.Context, stream string, cmd C, call Call) (eventstore.Receipt, error) {
	if !h.owns(stream) {
		return eventstore.Receipt{}, h.refuseForeign(stream, cmd, call)
	}
	id, err := commandID(cmd, "", call)
	if err != nil {
		return eventstore.Receipt{}, err
	}
	return h.run(ctx, task[C]{stream: stream, cmd: cmd, call: call, id: id, create: true})
}

// owns reports whether the stream may hold events of this write model. Names come from clients: one that cannot be
// stored is that of no stream, and not a fault.
func (h *Handler[C, E, S]) owns(stream string) bool {
	id, ok := strings.CutPrefix(stream, h.decider.Category+"-")
	return ok && id != "" && storable(id)
}

func (h *Handler[C, E, S]) refuseForeign(stream string, cmd C, call Call) error {
	if _, err := h.decider.Judge(h.decider.Initial(stream), cmd, call.Who); err != nil {
		return err
	}
	return fmt.Errorf("command %s on stream %q, which is not in category %s", cmd.CommandType(), stream, h.decider.Category)
}

// run tries the task until it is answered, within the bound on attempts.
func (h *Handler[C, E, S]) run(ctx context.Context, t task[C]) (eventstore.Receipt, error) {
	leave, err := h.lanes.enter(ctx, t.stream)
	if err != nil {
		return eventstore.Receipt{}, fmt.Errorf("waiting for stream %s: %w", t.stream, err)
	}
	defer leave()

	var lost *eventstore.UnknownOutcomeError // the first answer that did not arrive
	for attempt := 1; ; attempt++ {
		receipt, err := h.try(ctx, t)
		if err == nil {
			return receipt, nil
		}
		if lost == nil {
			errors.As(err, &lost)
		}
		last := attempt >= h.cfg.Attempts || ctx.Err() != nil || t.overtaken(err)
		switch {
		case lost != nil && !settled(err):
			// A fault after a lost answer says nothing of what became of that append.
			if last || t.id.ID == "" {
				return eventstore.Receipt{}, &eventstore.UnknownOutcomeError{CommandID: t.call.CommandID, Err: err}
			}
			pause(ctx, attempt, 20*time.Millisecond)
		case h.mayRetry(t, err) && !last:
			pause(ctx, attempt, time.Millisecond)
		default:
			return eventstore.Receipt{}, err
		}
	}
}

// mayRetry reports whether the task can have another answer on the stream as it is now.
func (h *Handler[C, E, S]) mayRetry(t task[C], err error) bool {
	var conflict *eventstore.ConflictError
	var history *eventstore.HistoryError
	return errors.As(err, &history) || errors.As(err, &conflict) && t.call.ExpectedVersion == nil && !t.create
}

// overtaken reports whether what led to the task belongs to a history that the log may not have any more.
func (t task[C]) overtaken(err error) bool {
	var history *eventstore.HistoryError
	return t.call.Epoch != 0 && errors.As(err, &history)
}

// settled reports whether the error is an answer to the command, given by somebody who would know of an earlier append.
func settled(err error) bool {
	var (
		forbidden *ForbiddenError
		rejection *Rejection
		conflict  *eventstore.ConflictError
		taken     *eventstore.ClaimTakenError
		reused    *eventstore.CommandIDReusedError
	)
	return errors.As(err, &forbidden) || errors.As(err, &rejection) || errors.As(err, &conflict) || errors.As(err, &taken) || errors.As(err, &reused)
}

// pause waits a random time that grows with the attempts, so that those who collided do not collide again.
func pause(ctx context.Context, attempt int, unit time.Duration) {
	timer := time.NewTimer(rand.N(unit << min(attempt, 6)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
