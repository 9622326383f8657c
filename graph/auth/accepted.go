package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/headrace/headrace/internal/identity"
)

// maxAccepted is how many tokens are remembered, at some 200 bytes each.
const maxAccepted = 10_000

// accepted remembers tokens that were verified, by their hashes. Verifying a signature costs several times what a small
// query does, and clients send the same token with each request. A token is remembered until it expires, and no longer
// than the keys that it was verified with are those in use: each time they are read, all are verified anew. It is safe
// for concurrent use; the zero value is ready.
type accepted struct {
	mu     sync.Mutex
	tokens *simplelru.LRU[digest, identity.Identity]
	keys   *map[string]publicKey
}

// digest stands for a token, so that none lies in memory for longer than its request.
type digest [sha256.Size]byte

// find returns whom a token stands for, if it was accepted with these keys before.
func (a *accepted) find(keys *map[string]publicKey, token digest, now time.Time) (identity.Identity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens == nil || a.keys != keys {
		return identity.Identity{}, false
	}
	who, ok := a.tokens.Get(token)
	return who, ok && !who.Expired(now)
}

// add remembers a token that was accepted while these keys were in use, or newer ones.
func (a *accepted) add(keys *map[string]publicKey, token digest, who identity.Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens == nil || a.keys != keys {
		a.tokens, _ = simplelru.NewLRU[digest, identity.Identity](maxAccepted, nil) // fails for sizes below 1 only
		a.keys = keys
	}
	a.tokens.Add(token, who)
}
