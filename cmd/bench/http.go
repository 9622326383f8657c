package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
)

// client is one keep-alive connection that posts GraphQL. It is lean on purpose, as pgbench is: its share of the
// processor counts against what it measures.
type client struct {
	conn   net.Conn
	reader *bufio.Reader
	token  string // sent as a bearer's, unless empty
	out    []byte
	in     []byte
}

func dial(ctx context.Context, address string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the server: %w", err)
	}
	return &client{conn: conn, reader: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// post sends a body and returns the answer's, which is valid until the next call. An answer that is not 200, or holds
// "errors" or a user error, is an error.
func (c *client) post(body []byte) ([]byte, error) {
	c.out = append(c.out[:0], "POST /graphql HTTP/1.1\r\nHost: bench\r\n"...)
	if c.token != "" {
		c.out = append(append(append(c.out, "Authorization: Bearer "...), c.token...), "\r\n"...)
	}
	c.out = append(c.out, "Content-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, fmt.Errorf("sending a request: %w", err)
	}
	status, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("reading an answer: %w", err)
	}
	if status != http.StatusOK || bytes.Contains(c.in, []byte(`"errors":`)) || bytes.Contains(c.in, []byte(`"userErrors":[{`)) {
		return nil, fmt.Errorf("the server answered %d: %s", status, c.in)
	}
	return c.in, nil
}

// read reads one answer into c.in. It knows just what the server sends: HTTP/1.1 with a Content-Length.
func (c *client) read() (status int, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("status line %q", line)
	}
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, fmt.Errorf("header %q", line)
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("an answer without a Content-Length")
	}
	c.in = slices.Grow(c.in[:0], length)[:length]
	_, err = io.ReadFull(c.reader, c.in)
	return status, err
}
