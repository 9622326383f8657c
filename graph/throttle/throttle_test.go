package throttle_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/graph/throttle"
	"github.com/headrace/headrace/internal/identity"
)

var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func from(remote string, forwarded ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/graphql", nil)
	r.RemoteAddr = remote
	for _, value := range forwarded {
		r.Header.Add("X-Forwarded-For", value)
	}
	return r
}

func as(t *testing.T, subject string) context.Context {
	t.Helper()
	return identity.NewContext(t.Context(), identity.Identity{Subject: subject})
}

// admitted counts how many of n are let through.
func admitted(t *testing.T, th *throttle.Throttle, ctx context.Context, r *http.Request, n int) (count int, wait time.Duration) { //nolint:revive // the context is an argument of the test
	t.Helper()
	for range n {
		after, err := th.Admit(ctx, r)
		if err == nil {
			count++
			continue
		}
		require.Positive(t, after)
		wait = after
	}
	return count, wait
}

func TestABurstAndThenTheRate(t *testing.T) {
	t.Parallel()
	now := noon
	th := throttle.New(throttle.Config{Identity: throttle.Rate{PerSecond: 2, Burst: 5}, Now: func() time.Time { return now }})
	count, wait := admitted(t, th, as(t, "ada"), from("192.0.2.1:1000"), 10)
	require.Equal(t, 5, count)
	require.Equal(t, 500*time.Millisecond, wait)
	count, _ = admitted(t, th, as(t, "bob"), from("192.0.2.1:1000"), 3)
	require.Equal(t, 3, count, "another is not held up")
	now = now.Add(wait)
	count, _ = admitted(t, th, as(t, "ada"), from("192.0.2.1:1000"), 3)
	require.Equal(t, 1, count, "after Retry-After one is let through")
	now = now.Add(time.Hour)
	count, _ = admitted(t, th, as(t, "ada"), from("192.0.2.1:1000"), 10)
	require.Equal(t, 5, count, "a rest gives a burst and no more")
}

func TestWhoIsNotProvedCountsByAddressAlone(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return noon }
	one := throttle.New(throttle.Config{Identity: throttle.Rate{PerSecond: 1, Burst: 1}, Now: now})
	count, _ := admitted(t, one, t.Context(), from("192.0.2.1:1"), 10)
	require.Equal(t, 10, count, "nobody")
	count, _ = admitted(t, one, identity.NewContext(t.Context(), identity.Unrestricted("ada")), from("192.0.2.1:1"), 10)
	require.Equal(t, 10, count, "anybody may say that he is ada")
	both := throttle.New(throttle.Config{Address: throttle.Rate{PerSecond: 1, Burst: 3}, Now: now})
	count, _ = admitted(t, both, t.Context(), from("192.0.2.1:1"), 10)
	require.Equal(t, 3, count)
	count, _ = admitted(t, both, as(t, "ada"), from("192.0.2.1:99"), 10)
	require.Zero(t, count, "of the same address, whoever asks and from whichever port")
}

func TestWhichAddressCounts(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		one, other *http.Request
		same       bool
	}{
		"a client's word is not taken": {from("192.0.2.1:1", "198.51.100.1"), from("192.0.2.1:1", "198.51.100.2"), true},
		"a proxy's is":                 {from("10.1.1.1:1", "198.51.100.1"), from("10.1.1.1:1", "198.51.100.2"), false},
		"through another proxy":        {from("10.1.1.1:1", "198.51.100.1"), from("10.2.2.2:1", "198.51.100.1"), true},
		"through two proxies":          {from("10.1.1.1:1", "198.51.100.1, 10.9.9.9"), from("10.1.1.1:1", "198.51.100.1"), true},
		"in two headers":               {from("10.1.1.1:1", "198.51.100.1", "10.9.9.9"), from("10.1.1.1:1", "198.51.100.1"), true},
		"what the client put before":   {from("10.1.1.1:1", "203.0.113.7, 198.51.100.1"), from("10.1.1.1:1", "203.0.113.8, 198.51.100.1"), true},
		"nonsense":                     {from("10.1.1.1:1", "198.51.100.1, x"), from("10.1.1.1:1", "198.51.100.2, x"), true},
		"no word":                      {from("10.1.1.1:1"), from("10.1.1.2:1"), false},
		"one network of IPv6":          {from("[2001:db8:1:2::1]:1"), from("[2001:db8:1:2:ffff::9]:1"), true},
		"two networks of IPv6":         {from("[2001:db8:1:2::1]:1"), from("[2001:db8:1:3::1]:1"), false},
		"IPv4 in IPv6":                 {from("[::ffff:192.0.2.1]:1"), from("192.0.2.1:1"), true},
		"a proxy of IPv6":              {from("[fd00::1]:1", "2001:db8::1"), from("[fd00::1]:1", "2001:db8:0:1::1"), false},
		"no address at all":            {from("@"), from("pipe"), true},
	} {
		th := throttle.New(throttle.Config{
			Address: throttle.Rate{PerSecond: 1, Burst: 1}, Proxies: proxies, Now: func() time.Time { return noon },
		})
		first, _ := admitted(t, th, t.Context(), c.one, 1)
		second, _ := admitted(t, th, t.Context(), c.other, 1)
		require.Equal(t, 1, first, name)
		require.Equal(t, c.same, second == 0, name)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	th := throttle.New(throttle.Config{
		Identity: throttle.Rate{PerSecond: 1, Burst: 1}, MaxTracked: 2, Now: func() time.Time { return noon },
	})
	for _, c := range []struct {
		subject string
		want    int
	}{{"ada", 1}, {"ada", 0}, {"bob", 1}, {"ada", 0}, {"eve", 1}, {"ada", 0}, {"bob", 1}} { // bob was forgotten for eve
		count, _ := admitted(t, th, as(t, c.subject), from("192.0.2.1:1"), 1)
		require.Equal(t, c.want, count, c.subject)
	}
}

func TestManyAtOnceAreCountedOnce(t *testing.T) {
	t.Parallel()
	th := throttle.New(throttle.Config{Identity: throttle.Rate{PerSecond: 1, Burst: 50}, Now: func() time.Time { return noon }})
	var let atomic.Int64
	var all sync.WaitGroup
	ctx, r := as(t, "ada"), from("192.0.2.1:1")
	for range 8 {
		all.Go(func() {
			for range 50 {
				if _, err := th.Admit(ctx, r); err == nil {
					let.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 50, let.Load())
}

func TestRatesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]throttle.Rate{
		"50:100": {PerSecond: 50, Burst: 100}, "50": {PerSecond: 50, Burst: 50}, "0.5": {PerSecond: 0.5, Burst: 1}, "0": {}, "0:7": {},
	} {
		var rate throttle.Rate
		require.NoError(t, rate.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, rate, text)
	}
	for _, text := range []string{"", "x", "-1", "1:0", "1:-1", "1:x", "1:1:1", "NaN", "Inf", "1e9", "1:9999999"} {
		var rate throttle.Rate
		require.Error(t, rate.UnmarshalText([]byte(text)), text)
		require.Equal(t, throttle.Rate{}, rate, text)
	}
	// Nothing is limited by default.
	count, _ := admitted(t, throttle.New(throttle.Config{}), as(t, "ada"), from("192.0.2.1:1"), 1000)
	require.Equal(t, 1000, count, fmt.Sprint(count))
}
