package eventstore

import (
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Diverged tells whether an error says that the log does not hold what was seen in it: a *DivergedError or a
// *BeyondHeadError.
func Diverged(err error) bool {
	var other *DivergedError
	var beyond *BeyondHeadError
	return errors.As(err, &other) || errors.As(err, &beyond)
}

// Transient tells whether an error is Postgres's, or the connection's, and the same work may succeed when it is done again:
// a lost connection, a rollback for the sake of others, a shortage, a shutdown. Contexts that ended are no such error.
func Transient(err error) bool {
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "08", "40", "53", "57", "58": // connection, rollback, shortage, operator, system
			return true
		}
		return false
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// reasonMax bounds the reasons that are stored, in bytes.
const reasonMax = 4000

// Reason is a text that says why something failed as a column of Postgres takes it: valid, without zero bytes, and cut after
// 4,000 bytes.
func Reason(text string) string {
	if len(text) > reasonMax {
		text = text[:reasonMax] + "…"
	}
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "")
}
