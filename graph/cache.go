package graph

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache keeps what was used last, bounded in entries and in bytes. It is safe for concurrent use.
type cache[V any] struct {
	mu      sync.Mutex
	entries *simplelru.LRU[string, sized[V]]
	bytes   int
	max     int // bytes
}

type sized[V any] struct {
	value V
	bytes int
}

func newCache[V any](entries, bytes int) (*cache[V], error) {
	c := &cache[V]{max: bytes}
	var err error
	c.entries, err = simplelru.NewLRU(entries, func(_ string, v sized[V]) { c.bytes -= v.bytes })
	return c, err
}

func (c *cache[V]) get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.entries.Get(key)
	return found.value, ok
}

// add keeps a value that is said to take so many bytes. One that would push out a quarter of the others is not kept.
func (c *cache[V]) add(key string, value V, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes > c.max/4 {
		return
	}
	c.entries.Remove(key)
	c.bytes += bytes
	c.entries.Add(key, sized[V]{value, bytes})
	for c.bytes > c.max {
		c.entries.RemoveOldest()
	}
}
