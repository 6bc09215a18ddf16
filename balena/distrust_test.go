package balena_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// store is a balena.Store.
type store struct {
	mu   sync.Mutex
	data []byte
}

func (s *store) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, nil
}

func (s *store) Save(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = slices.Clone(data)
	return nil
}

// TestACachedSessionThatDoesNotCount has caches of another URL, of another login, and of a session that waits for its
// second factor: none is sent to anybody.
func TestACachedSessionThatDoesNotCount(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	u := b.server.DefaultUser()
	careful := b.server.AddUser("careful", "careful password", "JBSWY3DPEHPK3PXP")
	pending := b.server.PendingSession(careful)
	good := b.server.Session(u, 0)
	for name, c := range map[string]struct {
		url, login, session string
		used                bool
	}{
		"this one":        {b.client.URL(), u.Name, good, true},
		"another URL":     {"https://api.example.org", u.Name, good, false},
		"another login":   {b.client.URL(), "somebody", good, false},
		"a pending one":   {b.client.URL(), u.Name, pending, false},
		"not a session":   {b.client.URL(), u.Name, "x.y.z", false},
		"without a login": {b.client.URL(), "", good, false},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(map[string]string{"url": c.url, "login": c.login, "session": c.session})
			if err != nil {
				t.Fatal(err)
			}
			b.server.Forget()
			account, err := balena.NewAccount(b.client, balena.AccountConfig{Cache: &store{data: raw},
				Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password)}})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User}).Identify(t.Context()); err != nil {
				t.Fatal(err)
			}
			if logins := b.server.Count("login"); (logins == 0) != c.used {
				t.Errorf("%d logins", logins)
			}
			if !c.used && b.server.Count("whoami") > 0 {
				t.Error("the session was sent")
			}
		})
	}
}

// TestRowsOfOtherNames has a server whose filter is lost on the way, so that it lists every key of the account.
func TestRowsOfOtherNames(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	victim := b.server.AddKey(b.server.DefaultUser(), "victim", time.Time{})
	k := b.mint()
	rows := fmt.Sprintf(`{"d":[{"id":%d,"name":"victim","expiry_date":null,"created_at":"2020-01-01T00:00:00.000Z"}]}`, victim.ID)
	b.server.Fail(balenatest.Fault{Kind: "find", Status: 200, Body: rows, Times: 3})
	if found, err := b.issuer.Find(t.Context(), k); !key.Is(err, key.Gone) {
		t.Errorf("found %d: %v", found.ID, err)
	}
	if _, err := b.issuer.Extend(t.Context(), k, time.Now().Add(time.Hour)); !key.Is(err, key.Gone) {
		t.Errorf("extending: %v", err)
	}
	if err := b.issuer.Revoke(t.Context(), k); err == nil {
		t.Error("revoked what was not listed, and is accepted")
	}
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
	if live := b.server.Live(); len(live) != 1 || live[0].ID != victim.ID {
		t.Errorf("live: %+v", live)
	}
}

// TestAnExpiredKeyThatCameBack is extended between the list and the deletion.
func TestAnExpiredKeyThatCameBack(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	before := time.Now().Add(-7 * 24 * time.Hour)
	k := b.server.AddKey(b.server.DefaultUser(), key.Draft("test", key.User, 1, before).Name, before.Add(-time.Hour))
	found, _, err := b.issuer.ListExpired(t.Context(), "test", before, 0)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	again := key.Key{ID: k.ID, Name: k.Name, Kind: key.User, Seen: true}
	if _, err := b.issuer.Extend(t.Context(), again, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.issuer.DeleteExpired(t.Context(), found[0], before); err != nil {
		t.Error(err)
	}
	if live := b.server.Live(); len(live) != 1 {
		t.Errorf("a live key was deleted: %+v", live)
	}
}

// TestOldTLS has a server that knows nothing newer than TLS 1.1.
func TestOldTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		srv := httptest.NewUnstartedServer(balenatest.New(balenatest.Options{}))
		srv.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}
		srv.StartTLS()
		b := &bench{t: t, server: balenatest.New(balenatest.Options{})}
		b.connect(balena.Config{URL: srv.URL, CAs: pemOf(srv)}, key.User)
		_, _, err := b.issuer.Identify(t.Context())
		wantClass(t, err, key.Outage)
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%x: %v", version, err)
		}
		srv.Close()
	}
}

// TestAnotherActor has a server, or something in its place, that answers every key as if it were another kind's.
func TestAnotherActor(t *testing.T) {
	for kind, actor := range map[key.Kind]string{key.User: "device", key.Fleet: "user", key.Device: "application"} {
		b := newBench(t, balenatest.Options{}, kind)
		k := b.mint()
		b.server.Fail(balenatest.Fault{Kind: "verify", Status: 200, Body: `{"id":1,"actorType":"` + actor + `"}`, Times: 1})
		wantClass(t, b.issuer.Verify(t.Context(), k), key.Outage)
		if err := b.issuer.Verify(t.Context(), k); err != nil {
			t.Error(err)
		}
		_ = b.issuer.Revoke(t.Context(), k)
	}
}

// TestACodeIsSentOnce logs in twice within one period, in one process and then in another: the second login waits for
// the next code.
func TestACodeIsSentOnce(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	u := b.server.AddUser("careful", "careful password", "JBSWY3DPEHPK3PXP")
	kept := &store{}
	login := func() error {
		account, err := balena.NewAccount(b.client, balena.AccountConfig{Refusals: kept,
			Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password), TOTP: source(u.TOTPSecret)}})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User}).Identify(t.Context())
		return err
	}
	b.server.ShiftClock(-time.Duration(time.Now().UnixNano() % int64(30*time.Second))) // to the beginning of a period
	if err := login(); err != nil {
		t.Fatal(err)
	}
	err := login()
	wantClass(t, err, key.Busy)
	if _, wait := key.ClassOf(err); wait <= 0 || wait > 30*time.Second || b.server.Count("totp") != 1 {
		t.Errorf("wait %v, %d codes sent", wait, b.server.Count("totp"))
	}
	b.server.ShiftClock(31 * time.Second)
	_ = login() // whose 200 tells the time
	if err := login(); err != nil && !key.Is(err, key.Busy) {
		t.Error(err)
	}
}
