package commands

import (
	"sync"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// snapshot is the state of a stream at a version.
type snapshot[S any] struct {
	state    S
	version  int64
	position int64     // of the event at version; 0 at version 0
	eventID  uuid.UUID // of that event
	epoch    int32     // that the log had when the reading of it began
}

// cache keeps the snapshots of the streams used last. A nil cache keeps nothing.
type cache[S any] struct {
	mu  sync.Mutex
	lru *simplelru.LRU[string, snapshot[S]]
}

// newCache holds up to size streams; nil when size is negative.
func newCache[S any](size int) *cache[S] {
	if size < 0 {
		return nil
	}
	lru, err := simplelru.NewLRU[string, snapshot[S]](size, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &cache[S]{lru: lru}
}

func (c *cache[S]) get(stream string) (snapshot[S], bool) {
	if c == nil {
		return snapshot[S]{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Get(stream)
}

// peek is get for somebody who changes nothing: it does not count as a use.
func (c *cache[S]) peek(stream string) (snapshot[S], bool) {
	if c == nil {
		return snapshot[S]{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Peek(stream)
}

// put keeps the snapshot, unless a newer one of the same history is there.
func (c *cache[S]) put(stream string, s snapshot[S]) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.lru.Peek(stream); ok && (held.epoch > s.epoch || held.epoch == s.epoch && held.version > s.version) {
		return
	}
	c.lru.Add(stream, s)
}

func (c *cache[S]) drop(stream string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(stream)
}
