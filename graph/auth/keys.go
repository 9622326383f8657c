package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	maxKeySetBytes = 1 << 20
	minRSABits     = 2048
	fetchTimeout   = 10 * time.Second
)

var errUnknownKey = errors.New("no known key has signed it")

// publicKey is a key that may verify signatures of one algorithm.
type publicKey struct {
	alg string
	key crypto.PublicKey
}

// keys is the set of an issuer's public keys, as it was last read. Reading it again costs the issuer a request, so that
// tokens with made-up key ids lead to one at most in each pause; whoever comes in between is answered from what is known
// and never waits for a turn.
type keys struct {
	read    func(context.Context) ([]byte, error)
	now     func() time.Time
	log     *slog.Logger
	pause   *rate.Limiter
	current atomic.Pointer[map[string]publicKey]
	flight  singleflight.Group
}

// find returns the key of an id for an algorithm. A set that does not have it is read once more.
func (k *keys) find(ctx context.Context, id, alg string) (crypto.PublicKey, error) {
	if key, ok := k.known(id, alg); ok {
		return key, nil
	}
	done := k.flight.DoChan("", func() (any, error) {
		if _, ok := k.known(id, alg); ok || !k.pause.AllowN(k.now(), 1) {
			return nil, nil
		}
		// Not the caller's context: others wait for the same answer.
		return nil, k.refresh(context.WithoutCancel(ctx))
	})
	select {
	case <-done:
		if key, ok := k.known(id, alg); ok {
			return key, nil
		}
		return nil, errUnknownKey
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// known looks among the keys of now. A token without a key id fits the only key there is.
func (k *keys) known(id, alg string) (crypto.PublicKey, bool) {
	set := k.current.Load()
	if set == nil {
		return nil, false
	}
	key, ok := (*set)[id]
	if id == "" && !ok && len(*set) == 1 {
		for _, key = range *set {
			ok = true
		}
	}
	return key.key, ok && key.alg == alg
}

// refresh reads the set anew. When that fails the keys stay that were known.
func (k *keys) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var set map[string]publicKey
	text, err := k.read(ctx)
	if err == nil {
		set, err = parseKeys(text)
	}
	if err != nil {
		k.log.ErrorContext(ctx, "the issuer's keys could not be read; those known stay", "keys", k.count(), "error", err)
		return fmt.Errorf("reading the key set: %w", err)
	}
	k.current.Store(&set)
	return nil
}

func (k *keys) count() int {
	if set := k.current.Load(); set != nil {
		return len(*set)
	}
	return 0
}

// parseKeys takes from a JSON Web Key Set the keys that can verify tokens here, and leaves out all others, as RFC 7517
// asks: what is not understood, symmetric, weak, or meant for something else.
func parseKeys(text []byte) (map[string]publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("it is not a JSON Web Key Set: %w", err)
	}
	out := make(map[string]publicKey, len(set.Keys))
	for _, raw := range set.Keys {
		jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		about := jwk.Marshal()
		alg := algorithmOf(jwk.Key())
		if alg == "" || (about.USE != "" && about.USE != jwkset.UseSig) || (about.ALG != "" && about.ALG.String() != alg) {
			continue
		}
		out[about.KID] = publicKey{alg: alg, key: jwk.Key()}
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no key for RS256, ES256 or EdDSA")
	}
	return out, nil
}

// algorithmOf is the only algorithm that a key serves for. That tokens cannot choose another is what keeps a public key
// from being taken for a shared secret.
func algorithmOf(key any) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() >= minRSABits {
			return "RS256"
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return "ES256"
		}
	case ed25519.PublicKey:
		return "EdDSA"
	}
	return ""
}

func fromFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return os.ReadFile(path) }
}

func fromURL(client *http.Client, url string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Accept", "application/jwk-set+json, application/json")
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", url, response.Status)
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, maxKeySetBytes+1))
		if err == nil && len(text) > maxKeySetBytes {
			err = fmt.Errorf("%s answers with more than %d bytes", url, maxKeySetBytes)
		}
		return text, err
	}
}
