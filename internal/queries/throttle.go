package queries

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A fill that disturbs what is live works a smaller share of the time. Twice a second it looks at how old the oldest event
// is that somebody live waits for, and how much WAL was written; above a limit the share is halved or, for WAL, brought
// to what the limit allows, and below it grows slowly.
const (
	throttleEvery = 500 * time.Millisecond
	leastShare    = 1.0 / 16
	longestRest   = 2 * time.Second
)

// limits are what a fill must not push the database over. Less than 0: no limit.
type limits struct {
	walRate float64 // bytes per second
	liveLag time.Duration
}

// sample is what was seen.
type sample struct {
	walRate float64
	liveLag time.Duration
}

// decide says which share of the time to work, given the present one, and why it is less than could be.
func (l limits) decide(share float64, s sample) (next float64, why string) {
	next = min(1, share*1.1+0.02)
	if l.walRate >= 0 && s.walRate > l.walRate {
		next = min(next, share*max(0.5, l.walRate/s.walRate))
		why = fmt.Sprintf("%.0f MiB of WAL per second, over %.0f", s.walRate/(1<<20), l.walRate/(1<<20))
	}
	if l.liveLag >= 0 && s.liveLag > l.liveLag {
		next = min(next, share/2)
		why = fmt.Sprintf("live projections are %s behind, over %s", s.liveLag.Round(10*time.Millisecond), l.liveLag)
	}
	return max(leastShare, next), why
}

// pace holds a fill's workers back.
type pace struct {
	limits limits

	mu     sync.Mutex
	share  float64
	reason string
}

func (p *pace) look(s sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var why string
	p.share, why = p.limits.decide(p.share, s)
	if why != "" || p.share >= 1 {
		p.reason = why // while the share grows again, the last reason holds
	}
}

func (p *pace) why() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}

// rest waits after work that took some time, so that the share is kept.
func (p *pace) rest(ctx context.Context, spent time.Duration) {
	p.mu.Lock()
	share := p.share
	p.mu.Unlock()
	if share >= 1 {
		return
	}
	rest(ctx, min(longestRest, time.Duration(float64(spent)*(1-share)/share)))
}

// watch looks until the context ends. A look that fails changes nothing: the fill itself finds out what is wrong.
func (r *rebuild) watch(ctx context.Context) {
	if r.pace.limits.walRate < 0 && r.pace.limits.liveLag < 0 {
		return
	}
	tick := time.NewTicker(throttleEvery)
	defer tick.Stop()
	var last float64
	var at time.Time
	for {
		var wal, lag float64
		if err := r.pool.QueryRow(ctx, sqlLoad).Scan(&wal, &lag); err == nil {
			now := time.Now()
			s := sample{liveLag: time.Duration(lag * float64(time.Second))}
			if !at.IsZero() {
				s.walRate = (wal - last) / now.Sub(at).Seconds()
			}
			last, at = wal, now
			r.pace.look(s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
