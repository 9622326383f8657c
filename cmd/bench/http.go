package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// client is one keep-alive connection that posts GraphQL. It is lean on purpose, as pgbench is: its share of the
// processor counts against what it measures.
type client struct {
	conn   net.Conn
	reader *bufio.Reader
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
	c.out = append(c.out[:0], "POST /graphql HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, fmt.Errorf("sending a request: %w", err)
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, fmt.Errorf("reading an answer: %w", err)
	}
	defer response.Body.Close()
	buffer := bytes.NewBuffer(c.in[:0])
	if _, err := io.Copy(buffer, response.Body); err != nil {
		return nil, fmt.Errorf("reading an answer: %w", err)
	}
	c.in = buffer.Bytes()
	if response.StatusCode != http.StatusOK || bytes.Contains(c.in, []byte(`"errors":`)) ||
		bytes.Contains(c.in, []byte(`"userErrors":[{`)) {
		return nil, fmt.Errorf("the server answered %s: %s", response.Status, c.in)
	}
	return c.in, nil
}
