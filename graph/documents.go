package graph

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
)

// documentWeight is how many bytes a parsed document takes for each byte of its text, roughly.
const documentWeight = 40

// documents finds the document of a request, which may be named instead of sent, and refuses those that would be dear to
// validate or are not trusted. It also keeps those that were parsed and validated. It is safe for concurrent use.
//
// A document is named by documentId, as in appendix A of the GraphQL-over-HTTP draft, or by Apollo's persistedQuery.
// Both find the trusted documents; and those that a client sent before together with their hash.
type documents struct {
	cfg     *Config
	schema  *ast.Schema
	trusted atomic.Pointer[manifest]
	parsed  *cache[*ast.QueryDocument] // by text
	sent    *cache[string]             // by hash
}

var (
	_ graphql.OperationParameterMutator = (*documents)(nil)
	_ graphql.Cache[*ast.QueryDocument] = (*documents)(nil)
	_ graphql.HandlerExtension          = (*documents)(nil)
)

func newDocuments(schema *ast.Schema, cfg *Config) (*documents, error) {
	d := &documents{cfg: cfg, schema: schema}
	var err error
	if d.parsed, err = newCache[*ast.QueryDocument](cfg.DocumentCache, cfg.DocumentCacheBytes); err != nil {
		return nil, err
	}
	if d.sent, err = newCache[string](cfg.PersistedDocuments, cfg.PersistedBytes); err != nil {
		return nil, err
	}
	return d, d.reload()
}

// reload reads the manifest anew. When it is wrong, the one before stays.
func (d *documents) reload() error {
	m := &manifest{}
	if d.cfg.TrustedOnly && d.cfg.TrustedDocuments == "" {
		return errors.New("only trusted documents are to be executed, and no manifest of them is given")
	}
	if d.cfg.TrustedDocuments != "" {
		var err error
		if m, err = readManifest(d.cfg.TrustedDocuments, d.schema); err != nil {
			return err
		}
	}
	d.trusted.Store(m)
	return nil
}

// ExtensionName names the extension to gqlgen.
func (*documents) ExtensionName() string { return "Documents" }

// Validate lets gqlgen check the extension; there is nothing to check.
func (*documents) Validate(graphql.ExecutableSchema) error { return nil }

// Get returns a document that was validated before.
func (d *documents) Get(_ context.Context, text string) (*ast.QueryDocument, bool) {
	if document, ok := d.trusted.Load().parsed[text]; ok {
		return document, true
	}
	return d.parsed.get(text)
}

// Add keeps a document that is valid.
func (d *documents) Add(_ context.Context, text string, document *ast.QueryDocument) {
	d.parsed.add(text, document, documentWeight*len(text))
}

// MutateOperationParameters puts the document into the parameters, or says why it does not come to be executed.
func (d *documents) MutateOperationParameters(ctx context.Context, params *graphql.RawParams) *gqlerror.Error {
	name, refusal := nameOf(params.Extensions)
	if refusal != nil {
		return refusal
	}
	if refusal := d.find(params, name); refusal != nil {
		return refusal
	}
	if d.cfg.TrustedOnly && d.trusted.Load().parsed[params.Query] == nil {
		return coded(codeUntrusted, "only documents that the server knows are executed, and this is none of them")
	}
	if _, known := d.Get(ctx, params.Query); !known {
		if refusal := d.check(params.Query); refusal != nil {
			return refusal
		}
	}
	if name.keep {
		d.sent.add(name.id, params.Query, len(params.Query))
	}
	return nil
}

// find puts the text of a document that was named into the parameters.
func (d *documents) find(params *graphql.RawParams, name documentName) *gqlerror.Error {
	switch {
	case name.id == "" && params.Query == "":
		return coded(codeBadRequest, "the request has no query")
	case name.id == "":
		return nil
	}
	text, found := d.trusted.Load().texts[name.id]
	if params.Query != "" {
		if (name.isHash && name.id != hashOf(params.Query)) || (found && text != params.Query) {
			return coded(codeBadRequest, "the request names another document than it holds")
		}
		return nil
	}
	if !found {
		text, found = d.sent.get(name.id)
	}
	if found {
		params.Query = text
		return nil
	}
	if d.cfg.TrustedOnly { // sending the text would be of no use
		return coded(codeUntrusted, "only documents that the server knows are executed, and %q names none of them", name.id)
	}
	return coded(codePersistedNotFound, "PersistedQueryNotFound")
}

// check parses the document a first time: what it refuses never comes to be validated. What cannot be parsed it leaves to
// the executor, which says so.
func (d *documents) check(text string) *gqlerror.Error {
	if len(text) > d.cfg.MaxDocumentBytes {
		return coded(codeDocumentLimit, "the document has %d bytes, and at most %d are allowed", len(text), d.cfg.MaxDocumentBytes)
	}
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, d.cfg.MaxTokens)
	if err != nil {
		return nil
	}
	return check(document, d.cfg.MaxDirectives)
}

// documentName is how a request names its document, if it does.
type documentName struct {
	id     string
	isHash bool // of the text
	keep   bool // so that the next request may leave the text out
}

// nameOf reads the name from the extensions, where the transports put documentId too.
func nameOf(extensions map[string]any) (documentName, *gqlerror.Error) {
	if given, ok := extensions["documentId"]; ok && given != nil {
		id, ok := given.(string)
		if !ok || id == "" || len(id) > maxName {
			return documentName{}, coded(codeBadRequest, "documentId must be a text of 1 to %d bytes", maxName)
		}
		hash, isHash := strings.CutPrefix(id, hashPrefix)
		return documentName{id: hash, isHash: isHash}, nil
	}
	given, ok := extensions["persistedQuery"]
	if !ok || given == nil {
		return documentName{}, nil
	}
	object, _ := given.(map[string]any)
	hash, _ := object["sha256Hash"].(string)
	if !isHash(hash) {
		return documentName{}, coded(codeBadRequest, "extensions.persistedQuery must have a sha256Hash of 64 hexadecimal digits")
	}
	if fmt.Sprint(object["version"]) != "1" {
		return documentName{}, coded(codeBadRequest, "the version of extensions.persistedQuery must be 1")
	}
	return documentName{id: hash, isHash: true, keep: true}, nil
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func isHash(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == sha256.Size && strings.ToLower(text) == text
}
