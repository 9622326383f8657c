package queries

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
