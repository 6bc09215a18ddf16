package agent_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestASessionTokenThatEnds has a session of twelve hours that nothing prolongs, and no password.
func TestASessionTokenThatEnds(t *testing.T) {
	for name, then := range map[string]func(l *life, token *atomic.Value){
		"stopped while the key is alive": (*life).endsWithoutASession,
		"stopped after the key's end":    (*life).endsWithoutAnything,
		"another token is given":         (*life).goesOnWithAnotherToken,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{FixedExpiry: true, SessionLife: 12 * time.Hour}, func(w *world) {
				token := w.useSessionFile()
				l := w.run()
				w.published(time.Second)
				w.liveThrough(12 * time.Hour)
				l.wantReady(true)
				w.wantLog("the session cannot be prolonged")
				if mints, extensions := w.wantWindows(w.times.TTL); mints != 1 || extensions < 17 {
					t.Errorf("%d mints and %d extensions in 12 hours", mints, extensions)
				}
				then(l, token)
			})
		})
	}
}

// useSessionFile makes the session token one that can change.
func (w *world) useSessionFile() *atomic.Value {
	content := &atomic.Value{}
	content.Store(w.server.Session(w.server.DefaultUser(), 0))
	w.useSession(0)
	w.creds.Session = func() (key.Secret, error) { return key.NewSecret(content.Load().(string)), nil }
	w.advise = askForToken
	return content
}

// endsWithoutASession stops between the end of the session and the key's.
func (l *life) endsWithoutASession(*atomic.Value) {
	l.w.t.Helper()
	for waited := 0; len(l.agent.Status().Trouble) == 0 && waited < 45; waited++ {
		l.w.sleep(time.Minute) // until an extension is due
	}
	l.w.wantGood()
	l.wantTokenAsked()
	name := l.w.server.Live()[0].Name
	_, err := l.end()
	if left, ok := errors.AsType[*agent.LeftError](err); !ok || len(left.Keys) != 1 || left.Keys[0].Name != name ||
		!key.Is(left.Cause, key.Refused) {
		l.w.t.Errorf("the end: %v", err)
	}
	if l.w.read() != "" {
		l.w.t.Error("the file is left")
	}
	l.w.wantLive(1)
	l.w.sleep(time.Hour)
	l.w.wantLive(0)
}

// endsWithoutAnything stops after the key's end.
func (l *life) endsWithoutAnything(*atomic.Value) {
	l.w.t.Helper()
	l.outlivesItsKey()
	if _, err := l.end(); err != nil && !errors.As(err, new(*agent.LeftError)) {
		l.w.t.Errorf("the end: %v", err)
	}
	if l.w.read() != "" {
		l.w.t.Error("the file is left")
	}
	l.w.wantLive(0)
}

// goesOnWithAnotherToken lives on past the key's end until somebody gives another token.
func (l *life) goesOnWithAnotherToken(token *atomic.Value) {
	l.w.t.Helper()
	l.outlivesItsKey()
	token.Store(l.w.server.Session(l.w.server.DefaultUser(), 0))
	l.account.CredentialsChanged(l.w.t.Context())
	l.agent.Wake()
	l.w.published(90 * time.Second)
	l.w.sleep(time.Second)
	l.wantReady(true)
	l.endWell()
}

// outlivesItsKey lives on until the key has expired, and some time more.
func (l *life) outlivesItsKey() {
	l.w.t.Helper()
	l.w.sleep(70 * time.Minute) // what was refused rests for an hour still
	l.w.wantLive(0)
	l.wantReady(false)
	l.wantTokenAsked()
}

// wantTokenAsked checks that status and log say what would help.
func (l *life) wantTokenAsked() {
	l.w.t.Helper()
	list := l.agent.Status().Trouble
	if !slices.ContainsFunc(list, func(t agent.Trouble) bool { return t.Class == key.Refused.String() && t.Fix == tokenAdvice }) {
		l.w.t.Errorf("trouble: %+v", list)
	}
	l.w.wantLog(tokenAdvice)
}

const tokenAdvice = "give a current BALENA_SESSION_TOKEN"

// askForToken names the variable as the command does, from what the error says.
func askForToken(err error) string {
	if e, ok := errors.AsType[*balena.Error](err); ok && e.Class == key.Refused && strings.Contains(e.Op, "session token") {
		return tokenAdvice
	}
	return ""
}

// TestTheSessionIsKeptOverRestarts has a password: with the session in the cache, a restart does not log in.
func TestTheSessionIsKeptOverRestarts(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.cache = &memory{}
		l := w.run()
		token := w.published(time.Second)
		for range 3 {
			l.handOver()
			w.server.Forget()
			l = w.run()
			w.liveThrough(2 * time.Hour)
			l.wantReady(true)
			if w.server.Count("login") != 0 || w.server.Count("extend") == 0 {
				t.Errorf("requests of a restart: %v", w.server.Counts())
			}
		}
		if w.read() != token {
			t.Error("the key was replaced")
		}
		l.endWell()
	})
}

// TestOfCacheAndVariableTheLaterLoginWins has a cache with a session that was refreshed two hours into the first life,
// which is one hour before the restart.
func TestOfCacheAndVariableTheLaterLoginWins(t *testing.T) {
	for name, c := range map[string]struct {
		age  time.Duration // of the variable's session at the restart
		used bool
	}{
		"the variable's is of an earlier login":                    {3*time.Hour + time.Minute, false},
		"the variable's is of a later login, before the refresh":   {90 * time.Minute, true},
		"the variable's is of a later login, and ends as the last": {30 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{SessionLife: 4 * time.Hour}, func(w *world) {
				w.cache = &memory{}
				w.useSession(0)
				l := w.run()
				w.published(time.Second)
				w.liveThrough(3 * time.Hour)
				l.handOver()
				w.wantCached()
				given := w.server.Session(w.server.DefaultUser(), c.age)
				w.creds.Session = secretSource(given)
				w.server.Forget()
				l = w.run()
				w.liveThrough(time.Hour)
				if used := slices.Contains(w.server.Bearers(), given); used != c.used {
					t.Errorf("the variable's session was used: %v", used)
				}
				if n := w.server.Count("mint"); n != 0 {
					t.Errorf("%d mints", n)
				}
				l.endWell()
			})
		})
	}
}

// wantCached checks that there is a session in the cache.
func (w *world) wantCached() {
	w.t.Helper()
	if raw, _ := w.cache.Load(); !strings.Contains(string(raw), "eyJhb") {
		w.t.Fatal("the cache holds no session")
	}
}

// TestAnotherUsersCachedSessionIsIgnored has a volume on which another user's agent kept its session, which lasts longer.
func TestAnotherUsersCachedSessionIsIgnored(t *testing.T) {
	inWorld(t, balenatest.Options{SessionLife: 4 * time.Hour}, func(w *world) {
		u, bob := w.server.DefaultUser(), w.server.AddUser("bob", "bob's password", "")
		w.cache = &memory{}
		w.useSession(0)
		w.creds.Session = secretSource(w.server.Session(bob, 0))
		l := w.run()
		w.published(time.Second)
		w.sleep(2*time.Hour + time.Minute) // so that the session is refreshed, and kept
		l.endWell()
		w.wantCached()

		kept := w.cache.data
		for first, use := range map[string]func(){ // by what the first request is
			"whoami": func() { w.useSession(15 * time.Minute) },
			"login":  func() { w.usePassword(u.Name, u.Password) },
		} {
			use()
			w.cache = &memory{data: kept}
			w.server.Forget()
			l = w.run()
			w.published(time.Second)
			w.sleep(time.Second)
			w.wantCounts(map[string]int{first: 1, "mint": 1, "verify": 1, "find": 1})
			if live := w.server.Live(); len(live) != 1 || live[0].Owner != u.ID {
				t.Errorf("live: %+v", live)
			}
			l.endWell()
		}
	})
}

// TestAnExpiredKeyIsExtendedOnceThereIsASession has a key that expired because its session had ended, and then a session
// of an older login: too old for minting, and good for extending.
func TestAnExpiredKeyIsExtendedOnceThereIsASession(t *testing.T) {
	inWorld(t, balenatest.Options{FixedExpiry: true, SessionLife: 12 * time.Hour}, func(w *world) {
		token := w.useSessionFile()
		l := w.run()
		first := w.published(time.Second)
		w.sleep(12 * time.Hour)
		l.outlivesItsKey()
		if strings.Contains(w.log.String(), "somebody deleted it") {
			t.Error("the log says that somebody deleted a key that merely expired")
		}
		token.Store(w.server.Session(w.server.DefaultUser(), time.Hour))
		l.account.CredentialsChanged(w.t.Context())
		l.agent.Wake()
		w.sleep(2 * time.Hour)
		l.wantReady(true)
		if !w.server.Accepts(first) {
			t.Error("the key was not extended")
		}
		l.endWell()
	})
}

// TestAnExpiredKeyIsExtendedAtTheNextStart shows that the same session is enough for a new process.
func TestAnExpiredKeyIsExtendedAtTheNextStart(t *testing.T) {
	inWorld(t, balenatest.Options{FixedExpiry: true, SessionLife: 12 * time.Hour}, func(w *world) {
		token := w.useSessionFile()
		l := w.run()
		first := w.published(time.Second)
		w.sleep(12 * time.Hour)
		l.outlivesItsKey()
		l.handOver()
		token.Store(w.server.Session(w.server.DefaultUser(), time.Hour))
		l = w.run()
		w.sleep(10 * time.Second)
		l.wantReady(true)
		if !w.server.Accepts(first) {
			t.Error("the key was not extended")
		}
		l.endWell()
	})
}

// TestAKeyThatHasExpiredIsNotLeft stops after the key's end, which the server itself told: nothing is left to expire.
func TestAKeyThatHasExpiredIsNotLeft(t *testing.T) {
	inWorld(t, balenatest.Options{FixedExpiry: true, SessionLife: 12 * time.Hour}, func(w *world) {
		w.useSessionFile()
		l := w.run()
		w.published(time.Second)
		w.sleep(12 * time.Hour)
		l.outlivesItsKey()
		l.endWell()
	})
}
