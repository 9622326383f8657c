package main

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// alive lets the pool hand out no connection whose other end is gone. The pool itself asks only after a second of rest, so
// that on a busy server each connection would cost a request its answer when Postgres, or a pooler, was started again. It is
// a pgxpool.Config's PrepareConn.
func alive(_ context.Context, conn *pgx.Conn) (bool, error) { return silent(conn.PgConn().Conn()), nil }

// silent tells whether nothing has come on a connection, not even its end. It takes about a microsecond and does not wait.
// Nobody sends to a connection at rest but to say farewell, or that a setting has changed, which happens once in a while
// and costs a new connection.
func silent(conn net.Conn) bool {
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secured.NetConn()
	}
	system, ok := conn.(syscall.Conn)
	if !ok {
		return true // nobody can tell
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return false
	}
	var first [1]byte
	var found error
	err = raw.Control(func(socket uintptr) {
		_, _, found = syscall.Recvfrom(int(socket), first[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && (errors.Is(found, syscall.EAGAIN) || errors.Is(found, syscall.EINTR))
}
