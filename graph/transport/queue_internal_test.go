package transport

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newTestQueue(messages, bytes int) *queue {
	return newQueue(&Config{QueueMessages: messages, QueueBytes: bytes})
}

func text(s string) message { return message{text: []byte(s)} }

func (q *queue) takeText(t *testing.T) string {
	t.Helper()
	m, ok, _ := q.take()
	if !ok {
		return ""
	}
	return string(m.text)
}

func TestQueueIsBoundedInMessagesAndBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		messages, bytes int
		fit             []string
	}{
		{3, 100, []string{"a", "b", "c"}},
		{10, 6, []string{"aaa", "bbb"}},
		{10, 6, []string{strings.Repeat("a", 50)}}, // one is let in however long it is
	} {
		q := newTestQueue(c.messages, c.bytes)
		for _, s := range c.fit {
			if q.put(text(s), 0, nil) != queued {
				t.Fatalf("%q is not let in: %+v", s, c)
			}
		}
		if got := q.put(text("x"), 0, nil); got != slow {
			t.Errorf("one too much is %v: %+v", got, c)
		}
		q.putLast(text("last")) // has room in any case
		for _, want := range append(c.fit, "last") {
			if got := q.takeText(t); got != want {
				t.Errorf("%q is taken, want %q", got, want)
			}
		}
		if q.count != 0 || q.bytes != 0 || len(q.line) != 0 {
			t.Errorf("the queue is not empty: %+v", q)
		}
	}
}

func TestWhoWaitsForRoomIsLetInInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueue(1, 100)
		q.put(text("0"), 0, nil)
		outcomes := make(chan outcome, 10)
		for i := range 3 {
			go func() { outcomes <- q.put(text(fmt.Sprint(i+1)), time.Minute, nil) }()
			synctest.Wait()
		}
		givenUp := make(chan struct{})
		go func() { outcomes <- q.put(text("given up"), time.Minute, givenUp) }()
		synctest.Wait()
		close(givenUp)
		if got := <-outcomes; got != gone {
			t.Errorf("one who gives up is %v", got)
		}
		for i := range 4 {
			if got := q.takeText(t); got != fmt.Sprint(i) {
				t.Errorf("%q is taken, want %d", got, i)
			}
		}
		for range 3 {
			if got := <-outcomes; got != queued {
				t.Errorf("one who waited is %v", got)
			}
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueue(10, 10)
		q.put(text("12345678"), 0, nil)
		long, short := make(chan outcome), make(chan outcome)
		go func() { long <- q.put(text("abcdef"), time.Second, nil) }()
		synctest.Wait()
		go func() { short <- q.put(text("x"), time.Hour, nil) }()
		if got := <-long; got != slow {
			t.Errorf("one who waited long enough is %v", got)
		}
		if got := <-short; got != queued { // the one before it was in its way
			t.Errorf("the one behind is %v", got)
		}
	})
}

func TestClosedQueueLetsNobodyIn(t *testing.T) {
	t.Parallel()
	for _, drop := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			q := newTestQueue(1, 10)
			q.put(text("a"), 0, nil)
			waits := make(chan outcome)
			go func() { waits <- q.put(text("b"), time.Hour, nil) }()
			synctest.Wait()
			q.close(drop)
			if got := <-waits; got != gone {
				t.Errorf("one who waited is %v", got)
			}
			if got := q.put(text("c"), time.Hour, nil); got != gone {
				t.Errorf("one who comes late is %v", got)
			}
			q.putLast(text("d"))
			if got := q.takeText(t); (got == "a") == drop {
				t.Errorf("%q is written, drop is %v", got, drop)
			}
			if _, ok, ends := q.take(); ok || !ends {
				t.Error("the writer is not told to end")
			}
		})
	}
}
