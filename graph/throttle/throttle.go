// Package throttle bounds how many operations an identity and an address may ask for, for graph.Config.Admit.
//
// It promises that a burst and then a steady rate are let through, that nobody's operations count against somebody
// else's, and that its memory is bounded, whoever asks. It counts in this process alone: of several processes each lets
// the whole rate through. It does not know what an operation costs; the limits of a document do.
package throttle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/headrace/headrace/internal/identity"
)

// Rate is how much is let through. The zero value lets everything through.
type Rate struct {
	PerSecond float64 // in the long run
	Burst     int     // at once, after a rest
}

// UnmarshalText reads 50:100, which is 50 a second and 100 at once; 50, where the burst is the rate; or 0.
func (r *Rate) UnmarshalText(text []byte) error {
	perSecond, burst, both := strings.Cut(string(text), ":")
	value, err := strconv.ParseFloat(perSecond, 64)
	read := Rate{PerSecond: value, Burst: max(1, int(min(value, 1e6)))}
	if err == nil && both {
		read.Burst, err = strconv.Atoi(burst)
	}
	// Written so that what is no number fails too.
	if err != nil || !(read.PerSecond >= 0 && read.PerSecond <= 1e6) || read.Burst < 1 || read.Burst > 1e6 {
		return fmt.Errorf("%q is not a rate such as 50:100, which is 50 a second and 100 at once, or 0", text)
	}
	if read.PerSecond == 0 {
		read = Rate{}
	}
	*r = read
	return nil
}

// Config sets the limits. The zero value lets everything through.
type Config struct {
	Identity Rate // of each identity that was proved; not of nobody, nor where nobody is authenticated
	Address  Rate // of each client's address; IPv6 addresses count by their network of 64 bits

	// Proxies are the networks whose word is taken for whom they speak for. From others X-Forwarded-For counts for nothing,
	// since any client can send it.
	Proxies []netip.Prefix

	MaxTracked int              // identities, and addresses, that are remembered; 0 stands for 50,000
	Now        func() time.Time // for tests; nil stands for time.Now
}

// Throttle admits operations. It is safe for concurrent use.
type Throttle struct {
	cfg        Config
	identities *buckets[string]
	addresses  *buckets[netip.Prefix]
}

// New returns a Throttle.
func New(cfg Config) *Throttle {
	if cfg.MaxTracked <= 0 {
		cfg.MaxTracked = 50_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Throttle{
		cfg:        cfg,
		identities: newBuckets[string](cfg.Identity, cfg.MaxTracked),
		addresses:  newBuckets[netip.Prefix](cfg.Address, cfg.MaxTracked),
	}
}

var errTooMany = errors.New("too many operations in a short time; try again later")

// Admit lets an operation through, or says after which time the next one may come.
func (t *Throttle) Admit(ctx context.Context, r *http.Request) (retryAfter time.Duration, err error) {
	now := t.cfg.Now()
	if t.addresses != nil {
		if wait := t.addresses.take(t.address(r), now); wait > 0 {
			return wait, errTooMany
		}
	}
	who := identity.FromContext(ctx)
	if t.identities == nil || who.Anonymous() || who.Unrestricted() {
		return 0, nil
	}
	if wait := t.identities.take(who.Subject, now); wait > 0 {
		return wait, errTooMany
	}
	return 0, nil
}

// address is the network that the request came from. X-Forwarded-For is read from its end, which the nearest proxy wrote,
// up to the first address that is not a trusted proxy's. What cannot be read is one network for all.
func (t *Throttle) address(r *http.Request) netip.Prefix {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	client := remote.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && t.trusted(client); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = hop.Unmap().WithZone("")
	}
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	network, err := client.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

func (t *Throttle) trusted(address netip.Addr) bool {
	for _, network := range t.cfg.Proxies {
		if network.Contains(address.WithZone("")) {
			return true
		}
	}
	return false
}

// buckets are the limiters of those who asked last. Whoever asked longest ago is forgotten first, and begins anew.
type buckets[K comparable] struct {
	rate Rate
	last *lru.Cache[K, *rate.Limiter]
}

// newBuckets returns nil when nothing is limited.
func newBuckets[K comparable](limit Rate, size int) *buckets[K] {
	if limit.PerSecond <= 0 {
		return nil
	}
	last, err := lru.New[K, *rate.Limiter](size)
	if err != nil {
		panic(err) // of a size below 1, which New does not give
	}
	return &buckets[K]{rate: limit, last: last}
}

// take takes one operation, or says how long the next one has to wait.
func (b *buckets[K]) take(key K, now time.Time) (wait time.Duration) {
	limiter, known := b.last.Get(key)
	if !known {
		limiter = rate.NewLimiter(rate.Limit(b.rate.PerSecond), max(1, b.rate.Burst))
		if other, there, _ := b.last.PeekOrAdd(key, limiter); there {
			limiter = other
		}
	}
	if limiter.AllowN(now, 1) {
		return 0
	}
	reservation := limiter.ReserveN(now, 1)
	defer reservation.CancelAt(now)
	return max(time.Millisecond, reservation.DelayFrom(now))
}
