package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	validation "github.com/vektah/gqlparser/v2/validator/rules"
)

// hashPrefix says of an id that it is the SHA-256 of the document, in hexadecimal.
const hashPrefix = "sha256:"

// manifest holds the trusted documents, parsed once and kept. The zero value has none.
type manifest struct {
	texts  map[string]string             // by id, without prefix
	parsed map[string]*ast.QueryDocument // by text
}

// readManifest reads a file of documents in one of two forms: an object of ids and documents, where an id is
// sha256:<hex>, plain hex or any other text; or Apollo's persisted-query-manifest. A document that is not valid, or is
// not what its hash says, is an error that names it.
func readManifest(path string, schema *ast.Schema) (*manifest, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("trusted documents: %w", err)
	}
	documents, err := parseManifest(content)
	if err != nil {
		return nil, fmt.Errorf("trusted documents in %s: %w", path, err)
	}
	m := &manifest{texts: make(map[string]string, len(documents)), parsed: make(map[string]*ast.QueryDocument, len(documents))}
	var wrong []error
	for id, text := range documents {
		if err := m.add(id, text, schema); err != nil {
			wrong = append(wrong, fmt.Errorf("trusted document %q in %s: %w", id, path, err))
		}
	}
	return m, errors.Join(wrong...)
}

func parseManifest(content []byte) (map[string]string, error) {
	var apollo struct {
		Format     string `json:"format"`
		Version    int    `json:"version"`
		Operations []struct {
			ID   string `json:"id"`
			Body string `json:"body"`
		} `json:"operations"`
	}
	if json.Unmarshal(content, &apollo) == nil && apollo.Operations != nil {
		if apollo.Format != "apollo-persisted-query-manifest" || apollo.Version != 1 {
			return nil, fmt.Errorf("the format is %q, version %d: only apollo-persisted-query-manifest, version 1, is known", apollo.Format, apollo.Version)
		}
		documents := make(map[string]string, len(apollo.Operations))
		for _, o := range apollo.Operations {
			documents[o.ID] = o.Body
		}
		return documents, nil
	}
	var plain map[string]string
	if err := json.Unmarshal(content, &plain); err != nil {
		return nil, fmt.Errorf("neither an object of ids and documents nor a manifest in Apollo's format: %w", err)
	}
	return plain, nil
}

func (m *manifest) add(id, text string, schema *ast.Schema) error {
	name, isPrefixed := strings.CutPrefix(id, hashPrefix)
	switch {
	case name == "" || len(id) > maxName:
		return fmt.Errorf("an id has 1 to %d bytes", maxName)
	case isPrefixed && name != hashOf(text):
		return errors.New("the document has another hash: " + hashOf(text))
	}
	document, errs := gqlparser.LoadQueryWithRules(schema, text, validation.NewDefaultRules())
	if len(errs) > 0 {
		return errs
	}
	if len(document.Operations) == 0 {
		return errors.New("the document has no operation")
	}
	m.texts[name], m.parsed[text] = text, document
	m.texts[hashOf(text)] = text // a client that knows only the hash finds it too
	return nil
}
