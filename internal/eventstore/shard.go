package eventstore

import (
	"crypto/sha256"
	"encoding/binary"
)

// Shard tells which of a number of shards, counted from 0, a stream belongs to: always the same one, in every process and
// every version of Headrace, since tables are filled by it. It is the first four bytes of the SHA-256 of the stream's
// name, modulo shards, which Postgres computes too (LogQuery.Shards). With fewer than two shards it is 0.
func Shard(stream string, shards int) int {
	if shards < 2 {
		return 0
	}
	sum := sha256.Sum256([]byte(stream))
	return int(int64(binary.BigEndian.Uint32(sum[:])) % int64(shards))
}
