package balena_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

func source(text string) balena.Source {
	return func() (key.Secret, error) { return key.NewSecret(text), nil }
}

// bench is a client of a stand-in, over real HTTP on loopback.
type bench struct {
	t       *testing.T
	server  *balenatest.Server
	client  *balena.Client
	account *balena.Account
	issuer  *balena.Issuer
	kind    key.Kind
}

func newBench(t *testing.T, opts balenatest.Options, kind key.Kind) *bench {
	t.Helper()
	s := balenatest.New(opts)
	b := &bench{t: t, server: s}
	b.connect(balena.Config{URL: s.Start(t), Timeout: 2 * time.Second}, kind)
	return b
}

func (b *bench) connect(cfg balena.Config, kind key.Kind) {
	b.t.Helper()
	var err error
	if b.client, err = balena.NewClient(cfg); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(b.client.Close)
	u := b.server.DefaultUser()
	b.account, err = balena.NewAccount(b.client,
		balena.AccountConfig{Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password)}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.kind = kind
	target := ""
	switch kind {
	case key.Fleet:
		target = b.server.DefaultFleet().Slug
	case key.Device:
		target = b.server.DefaultDevice().UUID
	}
	to, err := balena.ParseTarget(kind, target)
	if err != nil {
		b.t.Fatal(err)
	}
	b.issuer = balena.NewIssuer(b.account, balena.IssuerConfig{Kind: kind, Target: to, Description: "a test's"})
}

// draft identifies the account and drafts a key that lasts an hour.
func (b *bench) draft() key.Key {
	b.t.Helper()
	user, _, err := b.issuer.Identify(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	now, ok := b.issuer.Now()
	if !ok {
		b.t.Fatal("the server's time is not known after Identify")
	}
	return key.Draft("test", b.kind, user, now.Add(time.Hour))
}

func (b *bench) mint() key.Key {
	b.t.Helper()
	k := b.draft()
	minted, existed, err := b.issuer.Mint(b.t.Context(), k)
	if err != nil || existed || !minted.Secret.Equal(k.Secret) {
		b.t.Fatalf("existed %v, error %v", existed, err)
	}
	k.Minted, _ = b.issuer.Now()
	return k
}

func wantClass(t *testing.T, err error, want key.Class) {
	t.Helper()
	if got, _ := key.ClassOf(err); got != want || (err == nil) != (want == key.Unknown) {
		t.Errorf("class %v, not %v: %v", got, want, err)
	}
}

func TestAKeysLife(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	ctx := t.Context()
	k := b.mint()
	if err := b.issuer.Verify(ctx, k); err != nil {
		t.Fatal(err)
	}
	found, err := b.issuer.Find(ctx, k)
	if err != nil || found.ID == 0 || found.Expiry.Sub(k.Expiry).Abs() > time.Millisecond {
		t.Fatalf("found %+v, %v", found, err)
	}
	want := found.Expiry.Add(30 * time.Minute)
	got, err := b.issuer.Extend(ctx, found, want)
	if err != nil || !got.Expiry.Equal(want.Truncate(time.Millisecond)) {
		t.Errorf("extended to %v, %v", got, err)
	}
	if _, existed, err := b.issuer.Mint(ctx, k); err != nil || !existed {
		t.Errorf("minted again: existed %v, %v", existed, err)
	}
	if err := b.issuer.Revoke(ctx, found); err != nil {
		t.Error(err)
	}
	wantClass(t, b.issuer.Verify(ctx, k), key.Gone)
	_, err = b.issuer.Find(ctx, k)
	wantClass(t, err, key.Gone)
	_, err = b.issuer.Extend(ctx, found, want)
	wantClass(t, err, key.Gone)
	if err := b.issuer.Revoke(ctx, found); err != nil {
		t.Errorf("revoking what is gone: %v", err)
	}
	if live := b.server.Live(); len(live) != 0 {
		t.Errorf("live: %+v", live)
	}
}

func TestRevokeTouchesOnlyItsName(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	u := b.server.DefaultUser()
	others := []*balenatest.Key{b.server.AddKey(u, "other", time.Time{}), b.server.AddKey(u, "o'brien", time.Time{})}
	k := b.mint()
	twin := b.server.AddKey(u, k.Name, time.Time{}) // somebody has seen our name
	k.ID = others[0].ID                             // a journal that lies
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		if !b.server.Accepts(o.Secret) {
			t.Errorf("%s was deleted", o.Name)
		}
	}
	if b.server.Accepts(k.Secret.Reveal()) || !b.server.Accepts(twin.Secret) {
		t.Error("ours lives, or somebody's of the same name does not")
	}
}

func TestAnotherAccountsKeyIsNotJudged(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	k := b.mint()
	k.UserID++
	_, err := b.issuer.Find(t.Context(), k)
	wantClass(t, err, key.Wrong)
	wantClass(t, b.issuer.Revoke(t.Context(), k), key.Wrong)
	k.UserID--
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
	if n := len(b.server.Live()); n != 0 {
		t.Errorf("%d keys are live", n)
	}
}

func TestFleetAndDeviceKeys(t *testing.T) {
	for _, kind := range []key.Kind{key.Fleet, key.Device} {
		b := newBench(t, balenatest.Options{}, kind)
		k := b.mint()
		if err := b.issuer.Verify(t.Context(), k); err != nil {
			t.Error(err)
		}
		_, err := b.issuer.Find(t.Context(), k)
		wantClass(t, err, key.Gone)
		wantClass(t, b.issuer.Revoke(t.Context(), k), key.Unrevocable)
		if n := b.server.Count("revoke"); n != 0 {
			t.Errorf("%d deletions of what is not listed", n)
		}
		b = newBench(t, balenatest.Options{ListsAll: true}, kind)
		k = b.mint()
		if err := b.issuer.Revoke(t.Context(), k); err != nil {
			t.Error(err)
		}
		if n := len(b.server.Live()); n != 0 {
			t.Errorf("%d keys are live", n)
		}
	}
}

func TestTargets(t *testing.T) {
	s := balenatest.New(balenatest.Options{})
	f, d := s.DefaultFleet(), s.DefaultDevice()
	client, err := balena.NewClient(balena.Config{URL: s.Start(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	u := s.DefaultUser()
	for _, c := range []struct {
		kind key.Kind
		text string
		id   int64
	}{
		{key.Fleet, f.Slug, f.ID}, {key.Fleet, strings.ToUpper(f.Slug), f.ID}, {key.Fleet, f.UUID, f.ID}, {key.Fleet, "103", 103},
		{key.Device, d.UUID, d.ID}, {key.Device, "104", 104}, {key.Fleet, "acme/none", 0}, {key.Device, "999", 0},
	} {
		account, err := balena.NewAccount(client,
			balena.AccountConfig{Credentials: balena.Credentials{Username: u.Name, Password: source(u.Password)}})
		if err != nil {
			t.Fatal(err)
		}
		target, err := balena.ParseTarget(c.kind, c.text)
		if err != nil {
			t.Errorf("%s %q: %v", c.kind, c.text, err)
			continue
		}
		_, id, err := balena.NewIssuer(account, balena.IssuerConfig{Kind: c.kind, Target: target}).Identify(t.Context())
		if id != c.id || (err == nil) != (c.id != 0) {
			t.Errorf("%s %q is %d, %v", c.kind, c.text, id, err)
		}
		if c.id == 0 {
			wantClass(t, err, key.Wrong)
		}
	}
	for _, bad := range []struct {
		kind key.Kind
		text string
	}{{key.User, "x"}, {key.Fleet, ""}, {key.Fleet, "no slug"}, {key.Device, "acme/thermostat"}, {key.Device, "abc"}, {key.Fleet,
		"0"}, {key.Fleet, "a/b' or 1 eq 1"}} {
		if _, err := balena.ParseTarget(bad.kind, bad.text); err == nil {
			t.Errorf("%s %q passes", bad.kind, bad.text)
		}
	}
}

// TestClasses lets each kind of answer come to each kind of request.
func TestClasses(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	for _, c := range []struct {
		name       string
		fault      balenatest.Fault
		read, mint key.Class
	}{
		{"cut", balenatest.Fault{}, key.Outage, key.Ambiguous},
		{"silence", balenatest.Fault{Hang: true}, key.Outage, key.Ambiguous},
		{"500", balenatest.Fault{Status: 500}, key.Outage, key.Ambiguous},
		{"502 page", balenatest.Fault{Status: 502, Body: "<html>Bad Gateway", Header: html}, key.Outage, key.Ambiguous},
		{"503", balenatest.Fault{Status: 503}, key.Outage, key.Ambiguous},
		{"523", balenatest.Fault{Status: 523}, key.Outage, key.Ambiguous},
		{"503 with a wait", balenatest.Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}}, key.Busy, key.Ambiguous},
		{"429", balenatest.Fault{Status: 429}, key.Busy, key.Busy},
		{"408", balenatest.Fault{Status: 408}, key.Outage, key.Ambiguous},
		{"400", balenatest.Fault{Status: 400}, key.Wrong, key.Wrong},
		{"403", balenatest.Fault{Status: 403}, key.Wrong, key.Wrong},
		{"404", balenatest.Fault{Status: 404}, key.Wrong, key.Wrong},
		{"301", balenatest.Fault{Status: 301, Header: http.Header{"Location": {"https://example.org/"}}}, key.Wrong, key.Wrong},
		{"204", balenatest.Fault{Status: 204}, key.Outage, key.Ambiguous},
		{"empty", balenatest.Fault{Status: 200}, key.Outage, key.Ambiguous},
		{"garbage", balenatest.Fault{Status: 200, Body: "garbage"}, key.Outage, key.Ambiguous},
		{"a page", balenatest.Fault{Status: 200, Body: "<html>log in to the wifi", Header: html}, key.Outage, key.Ambiguous},
		{"cut short", balenatest.Fault{Pass: true, After: true, Cut: 3}, key.Outage, key.Ambiguous},
		{"endless", balenatest.Fault{Status: 200, Body: strings.Repeat("x", 1<<20)}, key.Outage, key.Ambiguous},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, balenatest.Options{}, key.User)
			k := b.mint()
			found, err := b.issuer.Find(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			fresh := key.Draft("test", key.User, k.UserID, k.Expiry)
			for _, kind := range []string{"verify", "find", "extend", "mint"} {
				fault := c.fault
				fault.Kind = kind
				b.server.Fail(fault)
				switch kind {
				case "verify":
					err = b.issuer.Verify(t.Context(), k)
				case "find":
					_, err = b.issuer.Find(t.Context(), k)
				case "extend":
					_, err = b.issuer.Extend(t.Context(), found, k.Expiry.Add(time.Hour))
				case "mint":
					_, _, err = b.issuer.Mint(t.Context(), fresh)
				}
				b.server.Heal()
				b.connect(balena.Config{URL: b.client.URL(), Timeout: time.Second}, key.User) // forget any Retry-After
				want := c.read
				if kind == "mint" {
					want = c.mint
				}
				if kind == "extend" && err == nil && c.fault.Status == 200 || c.name == "cut short" && kind == "extend" {
					continue // the body of a change means nothing: it is read back
				}
				if got, _ := key.ClassOf(err); got != want {
					t.Errorf("%s: %v, not %v: %v", kind, got, want, err)
				}
				if err != nil && (strings.Contains(err.Error(), k.Secret.Reveal()) || strings.Contains(err.Error(), "/v7/")) {
					t.Errorf("%s: the error tells too much: %v", kind, err)
				}
			}
		})
	}
}

func TestNothingListensThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	b := &bench{t: t, server: balenatest.New(balenatest.Options{})}
	b.connect(balena.Config{URL: url}, key.User)
	_, _, err = b.issuer.Identify(t.Context())
	wantClass(t, err, key.Outage)
	if !strings.Contains(err.Error(), "log in") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("not an error for people: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string][2]time.Duration{
		"7": {7 * time.Second, 7 * time.Second}, "0": {time.Second, time.Second}, "-5": {time.Second, time.Second},
		"999999999999999999": {time.Hour, time.Hour}, "99999999999999999999999": {time.Minute, time.Minute},
		"": {time.Minute, time.Minute}, "soon": {time.Minute, time.Minute},
		time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): {85 * time.Second, 90 * time.Second},
		"Mon, 01 Jan 2001 00:00:00 GMT":                                {time.Second, time.Second},
	} {
		b := newBench(t, balenatest.Options{}, key.User)
		b.server.Fail(balenatest.Fault{Kind: "login", Status: 429, Header: http.Header{"Retry-After": {header}}})
		_, _, err := b.issuer.Identify(t.Context())
		class, wait := key.ClassOf(err)
		if class != key.Busy || wait < want[0] || wait > want[1] {
			t.Errorf("%q: %v, wait %v", header, class, wait)
		}
		b.server.Heal()
		b.server.Forget()
		_, _, err = b.issuer.Identify(t.Context())
		wantClass(t, err, key.Busy)
		if n := b.server.Count(""); n != 0 {
			t.Errorf("%q: %d requests although told to wait", header, n)
		}
	}
}

func TestA401IsOnlyARefusalWhenTheServerIsWell(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	k := b.mint()
	b.server.SetDown(true)
	wantClass(t, b.issuer.Verify(t.Context(), k), key.Outage)
	cold := &bench{t: t, server: b.server}
	cold.connect(balena.Config{URL: b.client.URL()}, key.User)
	_, _, err := cold.issuer.Identify(t.Context())
	wantClass(t, err, key.Outage)
	b.server.SetDown(false)
	if err := b.issuer.Verify(t.Context(), k); err != nil {
		t.Error(err)
	}
	if _, _, err := cold.issuer.Identify(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
}

func TestAServerThatGetsWellBetweenLoginAndSecondOpinion(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	b.server.Fail(balenatest.Fault{Kind: "login", Times: 1, Status: 503})
	b.server.Fail(balenatest.Fault{Kind: "login", Times: 1, Status: 401})
	for _, want := range []key.Class{key.Outage, key.Outage} {
		_, _, err := b.issuer.Identify(t.Context())
		wantClass(t, err, want)
	}
	if _, _, err := b.issuer.Identify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestASessionThatEndsIsReplacedOnTheWay(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	k := b.mint()
	u := b.server.DefaultUser()
	b.server.ChangePassword(u, u.Password) // the same password, and all sessions end
	found, err := b.issuer.Find(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if n := b.server.Count("login"); n != 2 {
		t.Errorf("%d logins", n)
	}
	if err := b.issuer.Revoke(t.Context(), found); err != nil {
		t.Error(err)
	}
}

func TestFreshLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := balenatest.New(balenatest.Options{})
		url, dial := s.Pipe(t)
		b := &bench{t: t, server: s}
		b.connect(balena.Config{URL: url, Dial: dial}, key.User)
		b.mint()
		time.Sleep(25 * time.Minute)
		b.mint()
		if s.Count("login") != 1 || s.Count("fresh") != 1 {
			t.Errorf("requests: %v", s.Counts())
		}
		for _, k := range s.Live() {
			s.DeleteKey(k.ID)
		}
		b.client.Close()
	})
}

func TestPlainHTTPAndBadURLs(t *testing.T) {
	for url, good := range map[string]bool{
		"https://api.balena-cloud.com": true, "https://api.example.org/": true, "http://127.0.0.1:8080": true, "http://localhost": true,
		"http://[::1]:80":        true,
		"http://api.example.org": false, "http://10.0.0.1": false, "ftp://x": false, "api.balena-cloud.com": false, "": false,
		"https://":               false,
		"https://user:pass@host": false, "https://host?x=1": false, "https://host#f": false, "http://localhost.evil.org": false,
		"://": false,
	} {
		if _, err := balena.NewClient(balena.Config{URL: url}); (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := balena.NewClient(balena.Config{URL: "http://api.example.org", AllowHTTP: true}); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	s := balenatest.New(balenatest.Options{})
	srv := httptest.NewTLSServer(s)
	defer srv.Close()
	b := &bench{t: t, server: s}
	b.connect(balena.Config{URL: srv.URL}, key.User)
	_, _, err := b.issuer.Identify(t.Context())
	wantClass(t, err, key.Outage) // an unknown authority
	b.connect(balena.Config{URL: srv.URL, CAs: pemOf(srv)}, key.User)
	if _, _, err := b.issuer.Identify(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := balena.NewClient(balena.Config{URL: srv.URL, CAs: []byte("nothing")}); err == nil {
		t.Error("no certificate passes for one")
	}
}

func TestTOTPVectors(t *testing.T) {
	// RFC 6238, appendix B, the last six of eight digits.
	secret := key.NewSecret("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924",
		2000000000: "279037", 20000000000: "353130"} {
		if got, err := balena.TOTP(secret, at/30); err != nil || got != want {
			t.Errorf("at %d: %s, %v", at, got, err)
		}
	}
	for _, form := range []string{"gezd gnbv gy3t qojq gezd gnbv gy3t qojq", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ====",
		"otpauth://totp/balena:me?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=balena"} {
		if got, err := balena.TOTP(key.NewSecret(form), 1); err != nil || got != "287082" {
			t.Errorf("%s: %s, %v", form, got, err)
		}
	}
	if _, err := balena.TOTP(key.NewSecret("not base 32!"), 1); err == nil || strings.Contains(err.Error(), "not base 32!") {
		t.Errorf("got %v", err)
	}
}

func TestExpiredLeftovers(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	u := b.server.DefaultUser()
	now := time.Now()
	var gone, kept []*balenatest.Key
	for range 150 {
		gone = append(gone, b.server.AddKey(u, key.Draft("test", key.User, 1, now).Name, now.Add(-8*24*time.Hour)))
	}
	for name, expiry := range map[string]time.Time{
		key.Draft("test", key.User, 1, now).Name: now.Add(-6 * 24 * time.Hour), key.Draft("other", key.User, 1,
			now).Name: now.Add(-800 * time.Hour),
		"test-mine": now.Add(-800 * time.Hour), key.Draft("test", key.User, 2, now).Name: {}, key.Draft("test", key.User, 3,
			now).Name: now.Add(time.Hour),
	} {
		kept = append(kept, b.server.AddKey(u, name, expiry))
	}
	before := now.Add(-7 * 24 * time.Hour)
	for last := int64(0); ; {
		found, next, err := b.issuer.ListExpired(t.Context(), "test", before, last)
		if err != nil {
			t.Fatal(err)
		}
		if next <= last {
			break
		}
		for _, e := range found {
			if err := b.issuer.DeleteExpired(t.Context(), e, before); err != nil {
				t.Fatal(err)
			}
		}
		last = next
	}
	if n := len(b.server.All()); n != len(kept) {
		t.Errorf("%d keys are left, not %d (%d were to go)", n, len(kept), len(gone))
	}
}

// TestNoRequestCanEmptyTheAccount lets a client meet ids and names that a filter could be bent
// with, and looks at what was sent.
func TestNoRequestCanEmptyTheAccount(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	victim := b.server.AddKey(b.server.DefaultUser(), "victim", time.Time{})
	k := b.mint()
	for _, id := range []int64{0, -1} {
		bad := k
		bad.ID, bad.Seen = id, true
		_, err := b.issuer.Extend(t.Context(), bad, time.Now().Add(time.Hour))
		wantClass(t, err, key.Unrevocable)
		if err := b.issuer.DeleteExpired(t.Context(), balena.Expired{ID: id}, time.Now()); err == nil {
			t.Errorf("deleting id %d", id)
		}
	}
	for _, name := range []string{"", "x' or 1 eq 1 or name eq 'x", "')", "%27", "&$filter=1 eq 1", "?", "#"} {
		bad := k
		bad.Name = name
		_ = b.issuer.Revoke(t.Context(), bad)
	}
	// A server that answers every list with somebody else's rows.
	b.server.Fail(balenatest.Fault{
		Kind:   "find",
		Status: 200,
		Body:   `{"d":[{"id":0,"name":"` + k.Name + `"},{"id":-3,"name":"` + k.Name + `"},{"id":` + "999" + `,"name":"victim"}]}`,
	})
	_ = b.issuer.Revoke(t.Context(), k)
	b.server.Heal()
	for _, r := range b.server.Requests() {
		if (r.Method == http.MethodDelete || r.Method == http.MethodPatch) && !strings.HasSuffix(r.Path, ")") {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
	if !b.server.Accepts(victim.Secret) {
		t.Error("the victim is gone")
	}
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
}

func TestErrorsEchoNoSecret(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	k := b.draft()
	for _, body := range []string{k.Secret.Reveal(), `"the key ` + k.Secret.Reveal() + ` is bad"`, `"password correct horse battery"`,
		"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ.x"} {
		b.server.Fail(balenatest.Fault{Kind: "mint", Times: 1, Status: 400, Body: body})
		_, _, err := b.issuer.Mint(t.Context(), k)
		wantClass(t, err, key.Wrong)
		if strings.Contains(err.Error(), k.Secret.Reveal()) || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	b.server.Fail(balenatest.Fault{Kind: "login", Status: 400, Body: `"bad password correct horse battery"`})
	b.connect(balena.Config{URL: b.client.URL()}, key.User)
	_, _, err := b.issuer.Identify(t.Context())
	if err == nil || strings.Contains(err.Error(), "correct horse") {
		t.Errorf("the error shows the password: %v", err)
	}
}

func TestACancelledContext(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.issuer.Identify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestRequestsAreSentAsRecorded looks at the request lines: what the recorded requests left
// unescaped is unescaped here too, since nobody knows what the real parser makes of the rest.
func TestRequestsAreSentAsRecorded(t *testing.T) {
	b := newBench(t, balenatest.Options{ListsAll: true}, key.Fleet)
	k := b.mint()
	found, err := b.issuer.Find(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.issuer.Extend(t.Context(), found, k.Expiry); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.issuer.ListExpired(t.Context(), "test", time.Now(), 7); err != nil {
		t.Fatal(err)
	}
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	id := strconv.FormatInt(found.ID, 10)
	byName := "GET /v7/api_key?$select=id,name,expiry_date,created_at&$filter=name%20eq%20'" + k.Name + "'&$orderby=id%20asc&$top=10"
	want := []string{
		"POST /login_",
		"GET /v7/application?$select=id&$filter=slug%20eq%20'acme/thermostat'&$top=2",
		"POST /api-key/v2",
		byName,
		"PATCH /v7/api_key(" + id + ")",
		"GET /v7/api_key(" + id + ")?$select=id,name,expiry_date,created_at",
		"GET /v7/api_key?$select=id,name,expiry_date,created_at" +
			"&$filter=startswith(name,'test-')%20and%20id%20gt%207&$orderby=id%20asc&$top=100",
		byName,
		"DELETE /v7/api_key(" + id + ")",
		"GET /v7/api_key(" + id + ")?$select=id,name,expiry_date,created_at",
	}
	for i, r := range b.server.Requests() {
		if got := r.Method + " " + r.URI; i >= len(want) || got != want[i] {
			t.Errorf("request %d: %s", i, got)
		}
	}
}

// TestTheLongestPauseCounts has two requests on their way, which are answered with different pauses.
func TestTheLongestPauseCounts(t *testing.T) {
	var sent atomic.Int32
	both := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first := sent.Add(1) == 1
		if !first {
			close(both)
		}
		<-both
		w.Header().Set("Retry-After", "1")
		if first {
			w.Header().Set("Retry-After", "3600")
		}
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()
	client, err := balena.NewClient(balena.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	account, err := balena.NewAccount(client, balena.AccountConfig{Credentials: balena.Credentials{Username: "u", Password: source("p")}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User})
	k := key.Draft("x", key.User, 1, time.Now())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { _ = issuer.Accepts(t.Context(), k) })
	}
	group.Wait()
	if _, wait := key.ClassOf(issuer.Accepts(t.Context(), k)); wait < 59*time.Minute || sent.Load() != 2 {
		t.Errorf("the next request waits for %v, %d were sent", wait, sent.Load())
	}
}

// TestAShortPasswordIsEchoedInNoForm has a server that sends back what it was sent, written in all ways.
func TestAShortPasswordIsEchoedInNoForm(t *testing.T) {
	const password = "pä s+1"
	forms := []string{
		password,
		`pä s\u002b1`,
		"p%C3%A4+s%2B1",
		"p%C3%A4%20s%2b1",
		"cMOkIHMrMQ==",
		"cMOkIHMrMQ",
		"70c3a420732b31",
		"p&auml; s+1",
		"pä",
		"s+1",
		"1+s äp",
	}
	for _, form := range forms {
		for _, kind := range []string{"login", "fresh", "totp"} {
			b := newBench(t, balenatest.Options{}, key.User)
			u := b.server.AddUser("somebody", password, map[bool]string{true: "JBSWY3DPEHPK3PXP"}[kind == "totp"])
			creds := balena.Credentials{Username: u.Name, Password: source(password), TOTP: source("JBSWY3DPEHPK3PXP")}
			account, err := balena.NewAccount(b.client, balena.AccountConfig{Credentials: creds})
			if err != nil {
				t.Fatal(err)
			}
			issuer := balena.NewIssuer(account, balena.IssuerConfig{Kind: key.User})
			if kind == "fresh" {
				if _, _, err := issuer.Identify(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.server.ShiftClock(30 * time.Minute)
				if err := issuer.Accepts(t.Context(), b.draft()); err == nil { // which tells the time
					t.Fatal("a draft is accepted")
				}
			}
			for _, status := range []int{500, 503, 400, 403, 404, 418, 401} {
				b.server.Fail(balenatest.Fault{Kind: kind, Times: 1, Status: status, Body: "bad: " + form + " given"})
				b.server.Fail(balenatest.Fault{Kind: "login", Times: 1, Status: status, Body: "bad: " + form + " given"})
				_, _, err := issuer.Identify(t.Context())
				b.server.Heal()
				if err != nil && strings.Contains(err.Error(), "given") {
					t.Errorf("%s answered %d: %v", kind, status, err)
				}
			}
		}
	}
}
