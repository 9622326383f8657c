package queries

import "time"

// A busy machine may stand still for longer than a look at the database takes at the most, which here would be a failure of
// what a test asks for, or a replica that is not used for a while.
func init() { lookUpTimeout, lookTimeout = time.Minute, time.Minute }

// Idle tells whether the tail has noticed that nobody subscribes.
func (t *Tail) Idle() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return !t.reading
}

// Waiting is how many wait for a view to come further.
func (p *Progress) Waiting(projection string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.view(projection).waiters)
}
