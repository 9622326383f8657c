package eventstore

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// tokenFormat is the first byte of a token's text form, so that the rest may change.
const tokenFormat = 1

const tokenBytes = 1 + 16 + 4 + 8 + 16

// errToken says no more, since the text came from outside.
var errToken = errors.New("this is not a token")

// String gives the text form, which ParseToken reads: opaque, URL-safe, 60 bytes.
func (t Token) String() string {
	var b [tokenBytes]byte
	b[0] = tokenFormat
	copy(b[1:], t.LogID[:])
	binary.BigEndian.PutUint32(b[17:], uint32(t.Epoch))
	binary.BigEndian.PutUint64(b[21:], uint64(t.Position))
	copy(b[29:], t.EventID[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// ParseToken reads the text form of a token.
func ParseToken(text string) (Token, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != tokenBytes || b[0] != tokenFormat {
		return Token{}, errToken
	}
	t := Token{
		LogID:    uuid.UUID(b[1:17]),
		Epoch:    int32(binary.BigEndian.Uint32(b[17:])),
		Position: int64(binary.BigEndian.Uint64(b[21:])),
		EventID:  uuid.UUID(b[29:45]),
	}
	if t.Epoch < 0 || t.Position < 0 {
		return Token{}, errToken
	}
	return t, nil
}

// String names the expectation for people.
func (v ExpectedVersion) String() string {
	switch v {
	case NoStream:
		return "no stream"
	case StreamExists:
		return "a stream"
	case Any:
		return "any version"
	}
	return strconv.FormatInt(int64(v), 10)
}

// StreamID makes the name of a new stream: the category and a UUIDv7, so that names grow with time.
func StreamID(category string) string {
	return category + "-" + newID().String()
}

// Category gives the part of a stream's name before the first dash.
func Category(stream string) string {
	category, _, _ := strings.Cut(stream, "-")
	return category
}

// newID makes a UUIDv7. It fails only when the machine has no randomness, and then nothing can go on.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
