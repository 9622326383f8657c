package eventstore

import (
	"log/slog"
	"time"
)

// Config sets the limits of a Store. The zero value is ready for use.
type Config struct {
	// MaxEvents is how many events one request may hold. Default 1,000.
	MaxEvents int
	// MaxEventBytes is the size of one event's JSON. Default 1 MiB.
	MaxEventBytes int
	// MaxNameBytes is the length of stream names, claims, command ids, actors, topics and keys. Default 200.
	MaxNameBytes int
	// MaxDepth is how deep an event's JSON may nest. Default 64.
	MaxDepth int
	// BatchEvents is how many events travel in one batch, unless a single request holds more. Default 512.
	BatchEvents int
	// BatchBytes is how many bytes of JSON travel in one batch, unless a single request holds more. Default 1 MiB.
	BatchBytes int
	// QueueRequests is how many requests may wait for their batch; the next one is answered OverloadedError. Default
	// 10,000.
	QueueRequests int
	// SendTimeout bounds one batch on the wire, the wait for the log's lock included. Default 30 s.
	SendTimeout time.Duration
	// ReceiptsKept is how long a command id is remembered. Default 7 days.
	ReceiptsKept time.Duration
	// LockTimeout bounds the wait for the log's lock in AppendIn. Default 10 s.
	LockTimeout time.Duration
	// IdleTimeout bounds the time that AppendIn's function may spend between two statements. Default 30 s.
	IdleTimeout time.Duration
	// Logger is told when the epoch is raised. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	setInt := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	setDuration := func(field *time.Duration, value time.Duration) {
		if *field <= 0 {
			*field = value
		}
	}
	setInt(&c.MaxEvents, 1000)
	setInt(&c.MaxEventBytes, 1<<20)
	setInt(&c.MaxNameBytes, 200)
	setInt(&c.MaxDepth, 64)
	setInt(&c.BatchEvents, 512)
	setInt(&c.BatchBytes, 1<<20)
	setInt(&c.QueueRequests, 10_000)
	setDuration(&c.SendTimeout, 30*time.Second)
	setDuration(&c.ReceiptsKept, 7*24*time.Hour)
	setDuration(&c.LockTimeout, 10*time.Second)
	setDuration(&c.IdleTimeout, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
