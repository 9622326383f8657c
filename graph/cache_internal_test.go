package graph

import (
	"strconv"
	"testing"
)

func TestCacheIsBoundedInEntriesAndBytes(t *testing.T) {
	t.Parallel()
	c, err := newCache[int](10, 1_000)
	if err != nil {
		t.Fatal(err)
	}
	has := func(key string) bool { _, ok := c.get(key); return ok }
	for i := range 20 {
		c.add(strconv.Itoa(i), i, 1)
	}
	if has("9") || !has("10") || c.entries.Len() != 10 || c.bytes != 10 {
		t.Errorf("%d entries of %d bytes are kept: %v", c.entries.Len(), c.bytes, c.entries.Keys())
	}
	for i := range 20 {
		c.add(strconv.Itoa(i), i, 200)
	}
	if !has("15") || has("14") || c.bytes != 1_000 {
		t.Errorf("%d bytes are kept: %v", c.bytes, c.entries.Keys())
	}
	c.add("15", 7, 100)
	if got, _ := c.get("15"); got != 7 || c.bytes != 900 {
		t.Errorf("replaced by %d, %d bytes", got, c.bytes)
	}
	c.add("large", 1, 251)
	if has("large") || c.bytes != 900 {
		t.Errorf("a large one pushes out the others: %v", c.entries.Keys())
	}
}
