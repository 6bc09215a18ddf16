package agent_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/tally"
)

// forms are the ways in which a secret could be shown.
func forms(secret string) []string {
	return []string{secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret)),
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)),
			"="), strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(secret)), "=")}
}

// TestNoSecretInTheLog lives whole lives at debug level, through every failure of every request,
// with servers that send back what they were sent, and searches the log, the status and the
// errors.
func TestNoSecretInTheLog(t *testing.T) {
	for _, f := range failures() {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			inWorld(t, balenatest.Options{}, func(w *world) {
				const password, totp = "marked/pass word+1", "JBSWY3DPEHPK3PXP"
				u := w.server.AddUser("careful", password, totp)
				w.usePassword(u.Name, password)
				w.creds.TOTP = secretSource(totp)
				w.times.MaxTTL = 2 * time.Hour
				l := w.run()
				var shown strings.Builder
				for i := range 8 {
					fault := f.fault
					fault.For, fault.Skip = 10*time.Minute, i%3
					fault.Echo = true
					w.server.Fail(fault)
					w.sleep(30 * time.Minute)
					for _, trouble := range l.agent.Status().Trouble {
						shown.WriteString(trouble.Error)
					}
				}
				w.server.Heal()
				w.sleep(time.Hour)
				if _, err := l.end(); err != nil {
					shown.WriteString(err.Error())
				}
				shown.WriteString(w.log.String())
				secrets := []string{password, totp}
				for _, k := range w.server.All() {
					secrets = append(secrets, k.Secret)
				}
				secrets = append(secrets, w.server.Bearers()...)
				for _, secret := range secrets {
					tally.Add("secrets looked for", 1)
					for _, form := range forms(secret) {
						if strings.Contains(shown.String(), form) {
							tally.Add("secrets seen", 1)
							t.Errorf("%.6s… is shown", secret)
						}
					}
				}
				if len(secrets) < 4 {
					t.Errorf("only %d secrets were looked for", len(secrets))
				}
			})
		})
	}
}
