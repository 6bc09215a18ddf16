package agent_test

import (
	"encoding/json"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestAPasswordThatIsChangedAndChangedBack changes it at the server only, which ends all sessions. The tries are spread
// and shared by all steps, so that some are left when the password is right again; the app notices nothing.
func TestAPasswordThatIsChangedAndChangedBack(t *testing.T) {
	for _, lasts := range []time.Duration{time.Minute, 8 * time.Minute, 25 * time.Minute, 3 * time.Hour} {
		t.Run(lasts.String(), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.times.TTL = 12 * time.Hour
				u := w.server.DefaultUser()
				right := u.Password
				l := w.run()
				w.published(time.Second)
				w.sleep(time.Hour)
				w.server.ChangePassword(u, "another")
				l.agent.Renew() // so that a session is needed now
				began := time.Now()
				w.sleep(lasts)
				w.server.ChangePassword(u, right)
				back := time.Now()
				for l.agent.Status().Counts.Extensions == 0 {
					w.sleep(10 * time.Second)
					w.wantGood()
					if time.Since(back) > 41*time.Minute {
						t.Fatal("not tried again")
					}
				}
				t.Logf("extended %v after the password was right again", time.Since(back).Round(time.Second))
				if lasts < 10*time.Minute && time.Since(back) > 11*time.Minute {
					t.Errorf("the next try came %v later", time.Since(back))
				}
				w.wantSpread(began)
				l.endWell()
			})
		})
	}
}

// wantSpread checks that refused logins since then are at least ten minutes apart, and at most three an hour.
func (w *world) wantSpread(since time.Time) {
	w.t.Helper()
	var at []time.Time
	for _, r := range w.server.Requests() {
		if r.Kind == "login" && r.Status == 401 && r.At.After(since) {
			at = append(at, r.At)
		}
	}
	for i := 1; i < len(at); i++ {
		if at[i].Sub(at[i-1]) < 10*time.Minute || i >= 3 && at[i].Sub(at[i-3]) < time.Hour {
			w.t.Errorf("refused logins at %v", at)
		}
	}
}

// TestACredentialThatChanges changes the source of the credential in the middle of a life: what is new and works is used
// within seconds, what does not work is said and costs the app nothing.
func TestACredentialThatChanges(t *testing.T) {
	for name, c := range map[string]struct {
		life  time.Duration // of sessions
		next  func(w *world) string
		works bool
	}{
		"a fresh login that ends earlier": {7 * 24 * time.Hour, func(w *world) string { return w.shortSession() }, true},
		"a refresh of the same login": {12 * time.Hour, func(w *world) string {
			return w.server.Session(w.server.DefaultUser(),
				time.Minute)
		}, true},
		"line breaks at its end": {12 * time.Hour, func(w *world) string {
			return w.server.Session(w.server.DefaultUser(),
				0) + "\n\n"
		}, true},
		"a token of another server": {12 * time.Hour, func(*world) string { return foreignSession() }, false},
		"no token at all":           {12 * time.Hour, func(*world) string { return "no token" }, false},
		"a token with a line break": {12 * time.Hour, func(w *world) string {
			s := w.server.Session(w.server.DefaultUser(),
				0)
			return s[:40] + "\n" + s[40:]
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{SessionLife: c.life}, func(w *world) {
				content := &atomic.Value{}
				content.Store(w.server.Session(w.server.DefaultUser(), 2*time.Minute))
				w.useSession(2 * time.Minute)
				w.creds.Session = func() (key.Secret, error) { return key.NewSecret(content.Load().(string)), nil }
				l := w.run()
				w.published(time.Second)
				w.sleep(10 * time.Minute)
				next := c.next(w)
				content.Store(next)
				l.account.CredentialsChanged(w.t.Context())
				l.agent.TryCredential()
				w.sleep(10 * time.Second)
				if trouble := l.account.CredentialTrouble(); (trouble == nil) != c.works {
					t.Errorf("trouble: %q", trouble)
				}
				l.wantReady(true)
				w.sleep(2 * time.Hour)
				w.wantGood()
				if used := slices.Contains(w.server.Bearers(), next) || name == "line breaks at its end"; used != c.works &&
					name != "a token of another server" {
					t.Errorf("it was sent: %v", used)
				}
				l.endWell()
			})
		})
	}
}

// shortSession is a session of a login just now that ends in twelve hours.
func (w *world) shortSession() string {
	short := balenatest.New(balenatest.Options{SessionLife: 12 * time.Hour})
	return short.SessionLike(w.server, w.server.DefaultUser())
}

// foreignSession is one that the server did not sign.
func foreignSession() string {
	other := balenatest.New(balenatest.Options{})
	return other.Session(other.DefaultUser(), 0)
}

// TestACacheThatIsStale has a cache with a session of an older login that lasts longer than the one that was given.
func TestACacheThatIsStale(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		stale := w.server.Session(w.server.DefaultUser(), 24*time.Hour)
		raw, err := json.Marshal(map[string]string{"url": w.url, "session": stale})
		if err != nil {
			t.Fatal(err)
		}
		w.cache = &memory{data: raw}
		fresh := w.shortSession()
		w.useSession(0)
		w.creds.Session = secretSource(fresh)
		l := w.run()
		w.published(time.Second) // the stale one could mint nothing
		if slices.Contains(w.server.Bearers(), stale) {
			t.Error("the stale session was used")
		}
		l.endWell()
	})
}

// TestAChangedPasswordIsTriedOnce has a Secret that is changed to a wrong password, and to the right one again: one
// login each, and status says what came of it; the app notices nothing, and no rotation is lost.
func TestAChangedPasswordIsTriedOnce(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		right := w.server.DefaultUser().Password
		password := w.usePasswordFile(right)
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Hour)
		change := func(to string) {
			password.Store(to)
			l.account.CredentialsChanged(w.t.Context())
			l.agent.TryCredential()
			w.sleep(5 * time.Second)
		}
		logins := func() int { return w.server.Count("login") }
		change("wrong")
		if logins() != 2 || l.account.CredentialTrouble() == nil {
			t.Errorf("%d logins, trouble %v", logins(), l.account.CredentialTrouble())
		}
		w.sleep(12 * time.Hour)
		l.wantReady(true)
		w.wantGood()
		if logins() != 2 {
			t.Errorf("%d logins half a day later", logins())
		}
		change(right)
		if logins() != 3 || l.account.CredentialTrouble() != nil {
			t.Errorf("%d logins, trouble %v", logins(), l.account.CredentialTrouble())
		}
		change(right) // SIGHUP, say
		if logins() != 3 {
			t.Errorf("%d logins for the same password", logins())
		}
		w.server.SetRestarting(true) // an outage is not a refusal
		change("wrong again")
		w.server.SetRestarting(false)
		w.sleep(10 * time.Minute)
		if l.account.CredentialTrouble() == nil {
			t.Error("the change was forgotten over an outage")
		}
		change(right)
		w.sleep(24 * time.Hour)
		if l.agent.Status().Counts.Rotations == 0 {
			t.Error("no rotation")
		}
		l.endWell()
	})
}

// TestTheRightPasswordAfterFiveTypos is tried as soon as there is a try for it.
func TestTheRightPasswordAfterFiveTypos(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		right := w.server.DefaultUser().Password
		password := w.usePasswordFile(right)
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Minute)
		for _, typed := range []string{"typo 1", "typo 2", "typo 3", "typo 4", "typo 5", right} {
			password.Store(typed)
			l.account.CredentialsChanged(w.t.Context())
			l.agent.TryCredential()
			w.sleep(40 * time.Second)
		}
		if n := w.server.Count("login"); n != 6 {
			t.Errorf("%d logins", n)
		}
		w.sleep(70 * time.Minute)
		if n := w.server.Count("login"); n != 7 || l.account.CredentialTrouble() != nil {
			t.Errorf("%d logins, trouble %v", n, l.account.CredentialTrouble())
		}
		l.endWell()
	})
}
