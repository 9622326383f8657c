package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// followLog follows the log after a position.
const followLog = `subscription { events(after: "%d") { position type } }`

// follower is a client with one subscription to the log.
type follower struct {
	got   int          // events
	next  func() error // waits for an event
	close func()
}

// openSocket subscribes over a WebSocket of its own, to what follows a position.
func openSocket(ctx context.Context, address string, after int) (*follower, error) {
	conn, response, err := websocket.Dial(ctx, "ws://"+address+"/graphql", &websocket.DialOptions{
		Subprotocols: []string{"graphql-transport-ws"},
	})
	if err != nil {
		return nil, fmt.Errorf("opening a WebSocket: %w", err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	read := func(want string) error {
		for {
			_, text, err := conn.Read(ctx)
			if err != nil {
				return fmt.Errorf("waiting for %s: %w", want, err)
			}
			switch {
			case bytes.Contains(text, []byte(`"`+want+`"`)):
				return nil
			case bytes.Contains(text, []byte(`"ping"`)):
				if err := conn.Write(ctx, websocket.MessageText, []byte(`{"type":"pong"}`)); err != nil {
					return err
				}
			default:
				return fmt.Errorf("waiting for %s: %s", want, text)
			}
		}
	}
	f := &follower{got: after, next: func() error { return read("next") }, close: func() { _ = conn.CloseNow() }}
	subscribe, err := json.Marshal(map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{"query": fmt.Sprintf(followLog, after)}})
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"connection_init"}`))
	}
	if err == nil {
		err = read("connection_ack")
	}
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, subscribe)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// openEvents subscribes over an event stream of its own, to what follows a position.
func openEvents(ctx context.Context, address string, after int) (*follower, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("opening an event stream: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
	lines := bufio.NewReaderSize(conn, 512)
	f := &follower{got: after, close: func() { _ = conn.Close() }, next: func() error {
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return fmt.Errorf("waiting for an event: %w", err)
			}
			if bytes.HasPrefix(line, []byte("data: ")) {
				return nil
			}
		}
	}}
	_, err = io.WriteString(conn, "GET /graphql?query="+url.QueryEscape(fmt.Sprintf(followLog, after))+" HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n")
	if err != nil {
		f.close()
		return nil, fmt.Errorf("opening an event stream: %w", err)
	}
	return f, nil
}

// openMany opens followers, some at the same time. Those that are open are returned with an error too.
func openMany(n int, open func() (*follower, error)) ([]*follower, error) {
	var mu sync.Mutex
	var all []*follower
	var failure error
	var wg sync.WaitGroup
	turns := make(chan struct{}, 32)
	for range n {
		turns <- struct{}{}
		wg.Go(func() {
			f, err := open()
			mu.Lock()
			if err != nil {
				failure = err
			} else {
				all = append(all, f)
			}
			mu.Unlock()
			<-turns
		})
	}
	wg.Wait()
	return all, failure
}

// overSockets lets clients follow the log of a server's own process, each over a WebSocket of its own. One that is cut off,
// which happens to those whom a busy machine makes slow, goes on where it was.
func (b *bench) overSockets(api string) subscribers {
	return func(ctx context.Context, db *database, n int, told func()) (func(), error) {
		address, stop, err := serve(ctx, api, db.url)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(ctx)
		all, err := openMany(n, func() (*follower, error) { return openSocket(ctx, address, 0) })
		var wg sync.WaitGroup
		end := func() {
			cancel()
			wg.Wait()
			stop()
		}
		if err != nil {
			end()
			return nil, err
		}
		for _, f := range all {
			wg.Go(func() {
				for ctx.Err() == nil {
					reason := f.count(told)
					f.close()
					if ctx.Err() != nil {
						return
					}
					fmt.Fprintln(os.Stderr, "cut off, and goes on:", reason)
					next, err := openSocket(ctx, address, f.got)
					if err != nil {
						return
					}
					f = next
				}
			})
		}
		return end, nil
	}
}

// count tells of each event, which is the next in the log, until there comes no more.
func (f *follower) count(told func()) error {
	for {
		if err := f.next(); err != nil {
			return err
		}
		f.got++
		told()
	}
}

// resident is how many bytes of memory a process has.
func resident(process int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the server: %w", err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the memory of the server: %w", err)
	}
	return n * 1024, nil
}
