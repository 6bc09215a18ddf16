package balena_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// many is one account with many keys, each with an issuer of its own, behind a proxy that may do as it likes.
type many struct {
	*bench
	keys    []key.Key
	issuers []*balena.Issuer
	foreign []*balenatest.Key
	proxy   atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool] // reports whether it has answered
	log     bytes.Buffer
}

func newMany(t *testing.T, n int, creds func(s *balenatest.Server) balena.Credentials) *many {
	t.Helper()
	s := balenatest.New(balenatest.Options{})
	m := &many{bench: &bench{t: t, server: s, kind: key.User}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := m.proxy.Load(); f == nil || !(*f)(w, r) {
			s.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	var err error
	if m.client, err = balena.NewClient(balena.Config{URL: srv.URL, Timeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.client.Close)
	u := s.DefaultUser()
	cfg := balena.AccountConfig{Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password)}, Keys: n,
		Log: slog.New(slog.NewTextHandler(&m.log, nil))}
	if creds != nil {
		cfg.Credentials = creds(s)
	}
	if m.account, err = balena.NewAccount(m.client, cfg); err != nil {
		t.Fatal(err)
	}
	m.account.Turns().Open()
	for range n {
		m.issuer = balena.NewIssuer(m.account, balena.IssuerConfig{Kind: key.User, Prefix: "test"})
		m.issuers, m.keys = append(m.issuers, m.issuer), append(m.keys, m.mint())
	}
	expiry := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	for _, name := range []string{"the-dashboard's", "test", "tes-01234567890123456789", "test-"} {
		m.foreign = append(m.foreign, s.AddKey(u, name, expiry))
	}
	s.Forget()
	return m
}

// behind puts f between the client and the server.
func (m *many) behind(f func(w http.ResponseWriter, r *http.Request) bool) { m.proxy.Store(&f) }

// each does work for all keys at once, and returns the errors.
func (m *many) each(ctx context.Context, work func(ctx context.Context, i *balena.Issuer, k *key.Key) error) []error {
	errs := make([]error, len(m.keys))
	var group sync.WaitGroup
	for n := range m.keys {
		group.Go(func() { errs[n] = work(ctx, m.issuers[n], &m.keys[n]) })
	}
	group.Wait()
	return errs
}

func find(ctx context.Context, i *balena.Issuer, k *key.Key) (err error) {
	*k, err = i.Find(ctx, *k)
	return err
}

func extendTo(expiry time.Time) func(context.Context, *balena.Issuer, *key.Key) error {
	return func(ctx context.Context, i *balena.Issuer, k *key.Key) error {
		got, err := i.Extend(ctx, *k, expiry)
		if err == nil && got.Expiry.Sub(expiry).Abs() > time.Second {
			return fmt.Errorf("it expires %v, asked for was %v", got.Expiry, expiry)
		}
		return err
	}
}

func revoke(ctx context.Context, i *balena.Issuer, k *key.Key) error { return i.Revoke(ctx, *k) }

func (m *many) noErrors(errs []error) {
	m.t.Helper()
	for n, err := range errs {
		if err != nil {
			m.t.Fatalf("key %d: %v", n, err)
		}
	}
}

// requests counts the requests since the last call by kind.
func (m *many) requests() map[string]int {
	counts := map[string]int{}
	for _, r := range m.server.Requests() {
		counts[r.Kind]++
		counts["all"]++
	}
	m.server.Forget()
	return counts
}

// foreigners makes sure that the account's other keys are as they were, and that only so many of ours are live.
func (m *many) foreigners(ours int) {
	m.t.Helper()
	live := map[int64]balenatest.Key{}
	for _, k := range m.server.Live() {
		live[k.ID] = k
	}
	for _, f := range m.foreign {
		if k, ok := live[f.ID]; !ok || !k.Expiry.Equal(f.Expiry) {
			m.t.Errorf("the account's key %q is not what it was: %+v", f.Name, k)
		}
		delete(live, f.ID)
	}
	if len(live) != ours {
		m.t.Errorf("%d keys of ours are live, should be %d", len(live), ours)
	}
}

func inAnHour() time.Time { return time.Now().Add(2 * time.Hour).UTC().Truncate(time.Millisecond) }

func TestManyKeysTravelTogether(t *testing.T) {
	m := newMany(t, 450, nil)
	ctx := t.Context()
	m.noErrors(m.each(ctx, find))
	if got := m.requests(); got["find"] > 10 || got["all"] != got["find"] {
		t.Errorf("finding 450 ids took %v", got)
	}
	later := inAnHour()
	m.noErrors(m.each(ctx, extendTo(later)))
	if got := m.requests(); got["extend"] > 5 || got["list"] != 2*got["extend"] || got["all"] != 3*got["extend"] {
		t.Errorf("450 extensions took %v", got)
	}
	for _, k := range m.server.Live() {
		if strings.HasPrefix(k.Name, "test-") && len(k.Name) > len("test-") && !k.Expiry.Equal(later) {
			t.Fatalf("%s expires %v", k.Name, k.Expiry)
		}
	}
	for n := range m.keys[:10] {
		m.keys[n].Seen = false // as a journal has it: the row itself proves it
	}
	m.noErrors(m.each(ctx, revoke))
	if got := m.requests(); got["revoke"] > 5 || got["all"] != 3*got["revoke"] {
		t.Errorf("450 revocations took %v", got)
	}
	m.foreigners(0)
}

// TestARevocationNeedsNoID: a key whose id was not read yet is found together with others first.
func TestARevocationNeedsNoID(t *testing.T) {
	m := newMany(t, 50, nil)
	m.noErrors(m.each(t.Context(), revoke))
	if got := m.requests(); got["all"] > 8 {
		t.Errorf("took %v", got)
	}
	m.foreigners(0)
}

// TestAKeyAloneIsNotInABatch: two requests, as ever.
func TestAKeyAloneIsNotInABatch(t *testing.T) {
	m := newMany(t, 2, nil)
	m.noErrors(m.each(t.Context(), find))
	m.requests()
	m.keys = m.keys[:1]
	m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
	if got := m.requests(); got["extend"] != 1 || got["find"] != 1 || got["all"] != 2 {
		t.Errorf("one extension took %v", got)
	}
	m.foreigners(2)
}

// TestLostFiltersCostNothing has a proxy that loses the query of requests: an extension or a deletion of nobody in
// particular must not be sent.
func TestLostFiltersCostNothing(t *testing.T) {
	for name, loses := range map[string]func(r *http.Request) bool{
		"of every request": func(r *http.Request) bool { return true },
		"of lists":         func(r *http.Request) bool { return r.Method == http.MethodGet },
		"the prefix":       func(r *http.Request) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMany(t, 30, nil)
			m.noErrors(m.each(t.Context(), find))
			m.behind(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/v7/api_key" && loses(r) {
					r.URL.RawQuery = ""
				} else if name == "the prefix" && strings.Contains(r.URL.RawQuery, "startswith") {
					r.URL.RawQuery = "$filter=" + url.PathEscape("startswith(name,'test-')")
				}
				return false
			})
			m.requests()
			later := inAnHour()
			m.keys = m.keys[:25] // the others are listed, and were not asked for
			m.noErrors(m.each(t.Context(), extendTo(later)))
			m.noErrors(m.each(t.Context(), revoke))
			for _, r := range m.server.Requests() {
				if r.Method != http.MethodGet && r.Path == "/v7/api_key" {
					t.Fatalf("sent: %s %s", r.Method, r.URI)
				}
			}
			m.foreigners(5)
			if n := strings.Count(m.log.String(), "each is looked after by itself"); n != 1 {
				t.Errorf("said %d times:\n%s", n, m.log.String())
			}
		})
	}
}

// TestRefusedBatchesFallBack has servers that answer batches otherwise than the one that was measured.
func TestRefusedBatchesFallBack(t *testing.T) {
	batch := func(r *http.Request) bool { return strings.Contains(r.URL.RawQuery, "%20in%20") }
	lists := func(r *http.Request) bool { return batch(r) && r.Method == http.MethodGet }
	changes := func(r *http.Request) bool { return batch(r) && r.Method != http.MethodGet }
	for name, c := range map[string]struct {
		status, tries int
		on            func(r *http.Request) bool
	}{
		"400 to lists":             {http.StatusBadRequest, 1, lists},
		"405 to changes":           {http.StatusMethodNotAllowed, 1, changes},
		"431":                      {http.StatusRequestHeaderFieldsTooLarge, 1, batch},
		"500 to all, but is well":  {http.StatusInternalServerError, 2, batch},
		"401 to changes, as to be": {http.StatusUnauthorized, 1, changes},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMany(t, 20, nil)
			m.noErrors(m.each(t.Context(), find))
			m.behind(func(w http.ResponseWriter, r *http.Request) bool {
				if c.on(r) {
					w.WriteHeader(c.status)
					return true
				}
				return false
			})
			for try := 1; ; try++ {
				errs := m.each(t.Context(), extendTo(inAnHour()))
				if try == c.tries {
					m.noErrors(errs)
					break
				}
				wantClass(t, errs[0], key.Outage)
			}
			m.noErrors(m.each(t.Context(), revoke))
			m.foreigners(0)
			if n := strings.Count(m.log.String(), "each is looked after by itself"); n != 1 {
				t.Errorf("said %d times:\n%s", n, m.log.String())
			}
			// Whoever waits for turns gets one of his own instead of going on at once.
			ctx := turn.With(t.Context(), m.account.Turns().Ask(turn.Keep, 0, nil))
			_, err := m.issuers[0].Extend(ctx, m.keys[0], inAnHour())
			if !key.Is(err, key.Busy) || !errors.Is(err, turn.ErrAlone) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAnOutageDoesNotEndBatches: 500 from a server that is not well says nothing about batches.
func TestAnOutageDoesNotEndBatches(t *testing.T) {
	t.Parallel() // it waits for probes
	m := newMany(t, 10, nil)
	m.noErrors(m.each(t.Context(), find))
	m.server.SetDown(true)
	for range 3 {
		wantClass(t, m.each(t.Context(), extendTo(inAnHour()))[0], key.Outage)
	}
	m.server.SetDown(false)
	m.requests()
	m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
	if got := m.requests(); got["extend"] != 1 || got["all"] != 3 {
		t.Errorf("10 extensions took %v", got)
	}
	m.foreigners(10)
}

// batched matches the requests about several keys.
func batched(method string) func(balenatest.Match) bool {
	return func(m balenatest.Match) bool { return m.Method == method && m.Path == "/v7/api_key" }
}

// TestHalfOfABatch has requests that are about half of the keys only.
func TestHalfOfABatch(t *testing.T) {
	t.Run("is extended", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		m.server.Fail(balenatest.Fault{Half: true, Match: batched(http.MethodPatch)})
		m.requests()
		m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
		if got := m.requests(); got["extend"] != 11 {
			t.Errorf("took %v", got)
		}
		m.foreigners(20)
	})
	t.Run("is deleted", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		m.server.Fail(balenatest.Fault{Half: true, Match: batched(http.MethodDelete)})
		left := 0
		for _, err := range m.each(t.Context(), revoke) {
			if err != nil {
				wantClass(t, err, key.Outage)
				left++
			}
		}
		if m.foreigners(10); left != 10 {
			t.Errorf("%d are said to be left", left)
		}
	})
	t.Run("is listed", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		m.server.Fail(balenatest.Fault{Half: true, Match: batched(http.MethodGet)})
		m.noErrors(m.each(t.Context(), extendTo(inAnHour())))
		m.requests()
		m.noErrors(m.each(t.Context(), revoke)) // "gone", says the list; they are deleted all the same, and asked
		m.foreigners(0)
		if got := m.requests(); got["verify"] == 0 || got["verify"] > 2*3 {
			t.Errorf("%d keys were asked", got["verify"])
		}
	})
	t.Run("is neither listed nor deleted", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		m.server.Fail(balenatest.Fault{Half: true, Match: batched(http.MethodGet)})
		m.server.Fail(balenatest.Fault{Half: true, Match: batched(http.MethodDelete)})
		m.noErrors(m.each(t.Context(), revoke)) // one that is asked says that it lives: all go their own way
		m.foreigners(0)
		if n := strings.Count(m.log.String(), "lists only a part"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
	t.Run("is not listed once, and three are gone", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		for _, k := range m.keys[:3] {
			m.server.DeleteKey(k.ID)
		}
		m.server.Fail(balenatest.Fault{Status: 200, Body: `{"d":[]}`, Times: 1, Match: batched(http.MethodGet)})
		m.noErrors(m.each(t.Context(), revoke))
		m.foreigners(0)
	})
	t.Run("is gone", func(t *testing.T) {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		for _, k := range m.keys[:10] {
			m.server.DeleteKey(k.ID)
		}
		for n, err := range m.each(t.Context(), extendTo(inAnHour())) {
			if n < 10 {
				wantClass(t, err, key.Gone)
			} else if err != nil {
				t.Errorf("one that is there: %v", err)
			}
		}
		m.noErrors(m.each(t.Context(), revoke))
		m.foreigners(0)
	})
}

// TestALostAnswerOfABatch: the change took effect, and nobody heard of it.
func TestALostAnswerOfABatch(t *testing.T) {
	for _, kind := range []string{"extend", "revoke"} {
		m := newMany(t, 20, nil)
		m.noErrors(m.each(t.Context(), find))
		work := map[string]func(context.Context, *balena.Issuer, *key.Key) error{"extend": extendTo(inAnHour()), "revoke": revoke}[kind]
		m.server.Fail(balenatest.Fault{Kind: kind, Times: 1, After: true, Status: http.StatusBadGateway})
		wantClass(t, m.each(t.Context(), work)[3], key.Outage)
		work = map[string]func(context.Context, *balena.Issuer, *key.Key) error{"extend": extendTo(inAnHour()), "revoke": revoke}[kind]
		m.noErrors(m.each(t.Context(), work))
		m.foreigners(map[string]int{"extend": 20}[kind])
	}
}

// TestAnotherAccountInTheMiddle: the credential becomes another account's between a look and what follows.
func TestAnotherAccountInTheMiddle(t *testing.T) {
	for _, kind := range []string{"extend", "revoke"} {
		var token atomic.Pointer[string]
		m := newMany(t, 20, func(s *balenatest.Server) balena.Credentials {
			session := s.Session(s.DefaultUser(), 0)
			token.Store(&session)
			return balena.Credentials{Session: func() (key.Secret, error) { return key.NewSecret(*token.Load()), nil }}
		})
		m.noErrors(m.each(t.Context(), find))
		other := m.server.AddUser("other", "password", "")
		changed := false
		m.behind(func(_ http.ResponseWriter, r *http.Request) bool {
			if !changed && strings.Contains(r.URL.RawQuery, "startswith") {
				changed = true
				session := m.server.Session(other, 0)
				token.Store(&session)
				m.account.CredentialsChanged(t.Context())
			}
			return false
		})
		work := map[string]func(context.Context, *balena.Issuer, *key.Key) error{"extend": extendTo(inAnHour()), "revoke": revoke}[kind]
		for _, err := range m.each(t.Context(), work) {
			wantClass(t, err, key.Wrong)
		}
		if got := m.requests(); got[kind] != 0 {
			t.Errorf("%s: sent all the same: %v", kind, got)
		}
		m.foreigners(20)
	}
}
