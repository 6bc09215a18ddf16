package balena_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

type connKey struct{}

// dropSecond is a proxy that answers the first request of each connection only. The second one is cut off, before or
// after it took effect.
func dropSecond(t *testing.T, server http.Handler, after bool) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(connKey{}).(*atomic.Int32).Add(1) == 1 {
			server.ServeHTTP(w, r)
			return
		}
		if after {
			server.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler)
	}))
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, new(atomic.Int32))
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestAProxyThatDropsTheSecondRequest lives a key's life through such a proxy.
func TestAProxyThatDropsTheSecondRequest(t *testing.T) {
	for name, after := range map[string]bool{"before it took effect": false, "after it took effect": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, server: balenatest.New(balenatest.Options{})}
			b.connect(balena.Config{URL: dropSecond(t, b.server, after), Timeout: 2 * time.Second}, key.User)
			k := b.draft()
			_, _, err := b.issuer.Mint(t.Context(), k)
			for range 3 { // which the agent settles
				if err == nil {
					break
				}
				wantClass(t, err, key.Ambiguous)
				_, _, err = b.issuer.Mint(t.Context(), k)
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				var several sync.WaitGroup // so that there are several connections to take, if any are kept
				for range 3 {
					several.Go(func() { _ = b.issuer.Accepts(t.Context(), k) })
				}
				several.Wait()
				want := time.Now().Add(2 * time.Hour)
				if k, err = b.issuer.Extend(t.Context(), k, want); err != nil || k.Expiry.Sub(want).Abs() > time.Second {
					t.Fatalf("extended to %v: %v", k.Expiry, err)
				}
			}
			// What must not be sent twice, a mint, is sent over a connection that served nobody before.
			another := b.draft()
			if another, _, err = b.issuer.Mint(t.Context(), another); err != nil {
				t.Fatal("a mint after many cuts:", err)
			}
			for _, k := range []key.Key{k, another} {
				if err := b.issuer.Revoke(t.Context(), k); err != nil {
					t.Error(err)
				}
			}
			if live := b.server.Live(); len(live) != 0 {
				t.Errorf("live: %+v", live)
			}
		})
	}
}

// TestAWriteIsRepeatedOnANewConnection cuts each kind of request off once, over a connection that was used before.
func TestAWriteIsRepeatedOnANewConnection(t *testing.T) {
	for _, kind := range []string{"extend", "revoke", "find"} {
		for _, after := range []bool{false, true} {
			b := newBench(t, balenatest.Options{}, key.User)
			k, err := b.issuer.Find(t.Context(), b.mint())
			if err != nil {
				t.Fatal(err)
			}
			b.server.Fail(balenatest.Fault{Kind: kind, Times: 1, After: after})
			if _, err := b.issuer.Extend(t.Context(), k, time.Now().Add(2*time.Hour)); err != nil {
				t.Errorf("%s cut, after %v: extending: %v", kind, after, err)
			}
			if err := b.issuer.Revoke(t.Context(), k); err != nil {
				t.Errorf("%s cut, after %v: revoking: %v", kind, after, err)
			}
			if live := b.server.Live(); len(live) != 0 {
				t.Errorf("live: %+v", live)
			}
		}
	}
}
