package balena_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// FuzzAnswers gives each request of a key's life any answer: nothing panics, no failure is
// without a class, and no error shows a credential that the answer echoes.
func FuzzAnswers(f *testing.F) {
	kinds := []string{"login", "mint", "verify", "find", "extend", "revoke", "whoami", "refresh", "health"}
	for i := range kinds {
		f.Add(uint8(i), 200, "text/plain", []byte(`{"d":[{"id":1}]}`))
		f.Add(uint8(i), 401, "application/json", []byte(`"Fresh authentication token required"`))
		f.Add(uint8(i), 200, "application/json", []byte(`{"id":"1","actorType":null}`))
		f.Add(uint8(i), 503, "text/html", []byte("<html>"))
		f.Add(uint8(i), 200, "text/plain", []byte("eyJhbGciOiJIUzI1NiJ9.eyJpZCI6MSwiZXhwIjo5OTk5OTk5OTk5fQ.x"))
	}
	f.Fuzz(func(t *testing.T, which uint8, status int, contentType string, body []byte) {
		if status < 200 || status > 599 || strings.ContainsAny(contentType, "\r\n\x00") {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			b := &bench{t: t, server: balenatest.New(balenatest.Options{})}
			url, dial := b.server.Pipe(t)
			b.connect(balena.Config{URL: url, Dial: dial, Timeout: time.Second}, key.User)
			b.server.Fail(balenatest.Fault{
				Kind:   kinds[int(which)%len(kinds)],
				Status: status,
				Echo:   true,
				Body:   string(body),
				Header: http.Header{"Content-Type": {contentType}},
			})
			var failures []error
			try := func(err error) { failures = append(failures, err) }
			user, _, err := b.issuer.Identify(t.Context())
			try(err)
			now, _ := b.issuer.Now()
			k := key.Draft("test", key.User, max(1, user), now.Add(time.Hour))
			_, _, err = b.issuer.Mint(t.Context(), k)
			try(err)
			try(b.issuer.Verify(t.Context(), k))
			found, err := b.issuer.Find(t.Context(), k)
			try(err)
			_, err = b.issuer.Extend(t.Context(), found, now.Add(2*time.Hour))
			try(err)
			_, err = b.issuer.Tend(t.Context())
			try(err)
			try(b.issuer.Revoke(t.Context(), k))
			for _, err := range failures {
				if err == nil {
					continue
				}
				if class, _ := key.ClassOf(err); class == key.Unknown {
					t.Errorf("a failure without a class: %v", err)
				}
				for _, secret := range append(b.server.Bearers(), b.server.DefaultUser().Password, k.Secret.Reveal()) {
					if strings.Contains(err.Error(), secret) {
						t.Errorf("the error shows %.4s…: %v", secret, err)
					}
				}
			}
		})
	})
}
