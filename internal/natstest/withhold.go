package natstest

import (
	"bytes"
	"net"
)

// Withhold holds back all that the server says until clients have published n more messages.
func (p *Proxy) Withhold(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected, p.released = n, make(chan struct{})
}

// forClient is a client's connection as the server writes to it.
type forClient struct {
	net.Conn
	p *Proxy
}

func (c forClient) Write(said []byte) (int, error) {
	c.p.mu.Lock()
	released := c.p.released
	c.p.mu.Unlock()
	if released != nil {
		<-released
	}
	return c.Conn.Write(said)
}

// forServer is the server's connection as a client writes to it. It counts what is published: messages with headers, on
// lines of their own that may come in pieces.
type forServer struct {
	net.Conn
	p    *Proxy
	line []byte
}

func (s *forServer) Write(said []byte) (int, error) {
	for _, c := range said {
		if s.line = append(s.line, c); c == '\n' {
			if bytes.HasPrefix(s.line, []byte("HPUB ")) {
				s.p.published()
			}
			s.line = s.line[:0]
		}
	}
	return s.Conn.Write(said)
}

func (p *Proxy) published() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.expected--; p.expected == 0 {
		p.release()
	}
}

// release is called with the lock held.
func (p *Proxy) release() {
	if p.released != nil {
		close(p.released)
		p.released = nil
	}
}
