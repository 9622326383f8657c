// Package contract is what this program tells other programs: its public events, one file for each noun, and the mappings
// that make them of private ones. What no mapping names stays private, so a new event, and a new field of an old one, does
// too.
//
// The types here are for ever once they are released: of a version, a type may get more fields, which readers have to
// tolerate, and lose none. `make generate` writes contract/schemas and contract/asyncapi.yaml from them, and a test compares
// with what was released.
package contract

import (
	"slices"

	"github.com/headrace/headrace/internal/outbox"
)

// Base is where the schemas are to be found, for those who look at an event's dataschema: the folder contract of this
// repository, wherever you publish it.
const Base = "https://shop.example.org/contract/"

// Schemas is what each schema's address begins with.
const Schemas = Base + "schemas/"

// What contract/asyncapi.yaml says of the program.
const (
	Title       = "Shop"
	Version     = "1.0.0" // of the document; raise it as you see fit
	Description = "What happens to carts and orders, for other programs."
)

// Mappings are all that is public.
func Mappings() []outbox.Mapping {
	return slices.Concat(carts(), orders())
}
