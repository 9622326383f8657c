package commands

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/internal/eventstore"
)

// commandID names the command for the receipts, or is zero when the caller gave no id. The hash tells whether the id
// comes again with the same command: it covers the command's type, its JSON, and the stream, which is empty for a
// command that creates one.
func commandID(cmd Command, stream string, call Call) (eventstore.CommandID, error) {
	if call.CommandID == "" {
		return eventstore.CommandID{}, nil
	}
	input, err := json.Marshal(cmd)
	if err != nil {
		return eventstore.CommandID{}, fmt.Errorf("encoding command %s: %w", cmd.CommandType(), err)
	}
	hash := sha256.New()
	// Each part is preceded by its length, so that no two lists of parts look alike.
	fmt.Fprintf(hash, "%d:%s%d:%s%d:", len(cmd.CommandType()), cmd.CommandType(), len(stream), stream, len(input))
	hash.Write(input)

	id := eventstore.CommandID{Actor: call.Who.Subject, ID: call.CommandID}
	hash.Sum(id.Hash[:0])
	return id, nil
}
