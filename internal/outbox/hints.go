package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// hintChannel is the channel of the database on which nodes tell each other.
const hintChannel = "headrace"

// What a hint may be of.
const (
	hintCommit = "commit" // the log has come so far
	hintLeases = "leases" // a lease is free, or a node has come or gone
	hintCheck  = "check"  // a node wants to hear itself
)

// hint is what nodes tell each other. It says where to look, and is never the truth.
type hint struct {
	kind, node string
	position   int64
}

func (h hint) String() string { return fmt.Sprintf("%s %d %s", h.kind, h.position, h.node) }

func parseHint(payload string) (h hint, ok bool) {
	var position string
	h.kind, payload, _ = strings.Cut(payload, " ")
	position, h.node, ok = strings.Cut(payload, " ")
	at, err := strconv.ParseInt(position, 10, 64)
	h.position = at
	return h, ok && err == nil
}

// announce tells the other nodes, if there are any, after commits of this process: at once, and then no more often than
// the debounce allows.
func (n *Node) announce(ctx context.Context) {
	told, _ := n.store.Committed()
	for ctx.Err() == nil {
		head, next := n.store.Committed()
		if head == told || n.Status().Others == 0 {
			told = head
			select {
			case <-next:
			case <-ctx.Done():
			}
			continue
		}
		told = head
		n.send(ctx, hint{kind: hintCommit, node: n.cfg.ID, position: head})
		pause(ctx, n.cfg.Debounce)
	}
}

// tell tells the other nodes, if there are any.
func (n *Node) tell(ctx context.Context, kind string) {
	if n.Status().Others > 0 {
		n.send(ctx, hint{kind: kind, node: n.cfg.ID})
	}
}

// send sends a hint in a transaction of its own. One that is lost is made good for by polling.
func (n *Node) send(ctx context.Context, h hint) {
	bounded, cancel := context.WithTimeout(ctx, n.cfg.CheckTimeout)
	defer cancel()
	if _, err := n.pool.Exec(bounded, sqlNotify, hintChannel, h.String()); err != nil && ctx.Err() == nil {
		n.cfg.Logger.Warn("other processes were not told; they will see by themselves", "of", h.kind, "error", err)
	}
}

// listen hears hints until ctx ends. Whenever it begins anew, what was said meanwhile is looked for.
func (n *Node) listen(ctx context.Context) {
	retry := pace{least: 100 * time.Millisecond, most: n.cfg.Check}
	said := false
	for ctx.Err() == nil {
		heard, err := n.hear(ctx)
		n.setHears(false)
		if ctx.Err() != nil {
			return
		}
		if heard {
			retry.reset()
			said = false
		}
		if !said {
			said = true // once, not with each attempt
			n.cfg.Logger.Warn("other processes' hints do not arrive; the log is polled meanwhile, and the connection for them made anew",
				"error", err)
		}
		retry.sleep(ctx)
	}
}

// errDeaf says that a hint to itself did not come back.
var errDeaf = errors.New("what is sent on the channel does not come back: the connection is dead, or a pooler in transaction " +
	"mode stands before the database (give a URL around it)")

// hear hears hints over one connection until that fails. Heard tells whether any came.
func (n *Node) hear(ctx context.Context) (heard bool, err error) {
	conn, err := n.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ending)
	}()
	hearing, stop := context.WithCancelCause(ctx)
	var checking sync.WaitGroup
	defer checking.Wait() // or it might take the next connection's own hint for its own
	defer stop(nil)
	checking.Go(func() { n.check(hearing, stop) })
	for {
		note, err := conn.WaitForNotification(hearing)
		if err != nil {
			if cause := context.Cause(hearing); cause != nil {
				err = cause
			}
			return heard, err
		}
		if !heard {
			heard = true
			n.setHears(true)
		}
		n.heed(note.Payload)
	}
}

func (n *Node) connect(ctx context.Context) (*pgx.Conn, error) {
	config := n.pool.Config().ConnConfig.Copy()
	if n.cfg.ListenURL != "" {
		var err error
		if config, err = pgx.ParseConfig(n.cfg.ListenURL); err != nil {
			return nil, fmt.Errorf("reading the URL for hints: %w", err)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, n.cfg.CheckTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(bounded, config)
	if err != nil {
		return nil, fmt.Errorf("connecting for hints: %w", err)
	}
	if _, err = conn.Exec(bounded, "listen "+hintChannel); err != nil {
		_ = conn.Close(bounded)
		return nil, fmt.Errorf("asking for hints: %w", err)
	}
	n.store.Wake() // whatever was committed before
	n.beatNow()
	return conn, nil
}

// check sends a hint to itself now and then, and calls stop when one does not come back.
func (n *Node) check(ctx context.Context, stop context.CancelCauseFunc) {
	select {
	case <-n.checked:
	default:
	}
	for ctx.Err() == nil {
		n.send(ctx, hint{kind: hintCheck, node: n.cfg.ID})
		timer := time.NewTimer(n.cfg.CheckTimeout)
		select {
		case <-n.checked:
		case <-timer.C:
			stop(errDeaf)
		case <-ctx.Done():
		}
		timer.Stop()
		pause(ctx, n.cfg.Check)
	}
}

// heed lets those look whom a hint concerns.
func (n *Node) heed(payload string) {
	h, ok := parseHint(payload)
	switch {
	case !ok:
	case h.kind == hintCheck && h.node == n.cfg.ID:
		signal(n.checked)
	case h.node == n.cfg.ID:
	case h.kind == hintCommit:
		n.store.Wake()
	case h.kind == hintLeases:
		n.beatNow()
	}
}

func (n *Node) setHears(hears bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hears = hears
}

// lookOut polls the head of the log for the whole process while there are other nodes whose hints do not arrive.
func (n *Node) lookOut(ctx context.Context) {
	poll := pace{least: n.cfg.PollMin, most: n.cfg.PollMax}
	for pause(ctx, poll.step()) {
		if s := n.Status(); s.Hears || s.Others == 0 {
			continue
		}
		head, err := n.store.Head(ctx)
		if err == nil && n.saw(head.Position) {
			poll.reset()
		}
	}
}
