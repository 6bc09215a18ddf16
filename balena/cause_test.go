package balena_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestCauses goes wrong on the way to the server in every way that has another remedy.
func TestCauses(t *testing.T) {
	server := balenatest.New(balenatest.Options{})
	plain := server.Start(t)
	quiet := log.New(io.Discard, "", 0)
	now := time.Now()
	certificate, authority := certified(t, now.Add(-time.Hour), now.Add(time.Hour))
	encrypted := httptest.NewUnstartedServer(server)
	encrypted.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	encrypted.Config.ErrorLog = quiet
	encrypted.StartTLS()
	t.Cleanup(encrypted.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello")) }))
	t.Cleanup(page.Close)
	moved := httptest.NewServer(http.RedirectHandler("https://example.org/", http.StatusFound))
	t.Cleanup(moved.Close)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(encrypted.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url   string
		cas   []byte
		cause balena.Cause
	}{
		"signed by nobody known": {encrypted.URL, nil, balena.Untrusted},
		"for another name":       {"https://localhost:" + port, authority, balena.OtherName},
		"https to http":          {"https" + strings.TrimPrefix(plain, "http"), nil, balena.OtherScheme},
		"http to https":          {"http" + strings.TrimPrefix(encrypted.URL, "https"), nil, balena.OtherScheme},
		"nobody listens":         {"http://127.0.0.1:1", nil, balena.NotListening},
		"no such host":           {"https://no-such-host.invalid", nil, balena.UnknownHost},
		"a page":                 {page.URL, nil, balena.NotThisAPI},
		"a redirect":             {moved.URL, nil, balena.NotThisAPI},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t: t, server: server}
			b.connect(balena.Config{URL: c.url, CAs: c.cas, Timeout: 2 * time.Second}, key.User)
			_, _, err := b.issuer.Identify(t.Context())
			wantCause(t, err, c.cause)
		})
	}
	if live := server.Live(); len(live) != 0 {
		t.Errorf("live: %+v", live)
	}
}

func wantCause(t *testing.T, err error, want balena.Cause) {
	t.Helper()
	e, ok := errors.AsType[*balena.Error](err)
	if !ok || e.Cause != want {
		t.Errorf("got %v, of cause %q and not %q", err, e.Cause, want)
	}
}
