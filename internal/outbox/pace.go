package outbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
)

// pace is a time that doubles between two bounds: the time between polls while idle, or between attempts that fail.
type pace struct {
	least, most time.Duration
	next        time.Duration
}

func (p *pace) reset() { p.next = 0 }

// step returns the time to wait now, and doubles it for the next call.
func (p *pace) step() time.Duration {
	now := min(max(p.next, p.least), p.most)
	p.next = 2 * now
	return now
}

// sleep waits for the next step, with up to half of it more or less by chance so that processes do not march together.
// It returns false when ctx ended first.
func (p *pace) sleep(ctx context.Context) bool {
	return pause(ctx, jitter(p.step()))
}

func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outlast returns a context that ends a while after ctx does, or with end.
func outlast(ctx context.Context, by time.Duration) (lasting context.Context, end func()) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		pause(lasting, by)
		cancel()
	})
	return lasting, func() {
		stop()
		cancel()
	}
}

// transient tells whether the same work may succeed when it is done again: conflicts between transactions, shortage,
// shutdown, a lost connection, a time limit.
func transient(err error) bool {
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		switch pg.Code {
		case "55P03", "25006", "25P03": // lock not available; read only, as after a failover; ended because nothing was sent
			return true
		}
	}
	return eventstore.Transient(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// signal leaves a token for whoever waits for one, unless there is one already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
