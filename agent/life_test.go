package agent_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

func TestAnUndisturbedLifeAsksForLittle(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		w.sleep(time.Second)
		w.wantCounts(map[string]int{"login": 1, "mint": 1, "verify": 1, "find": 1})
		w.server.Forget()
		w.sleep(10 * time.Hour)
		counts := w.server.Counts()
		extensions := counts["extend"]
		if extensions < 15 || extensions > 20 {
			t.Errorf("%d extensions in 10 hours with a TTL of 1 h", extensions)
		}
		if checks := counts["verify"]; checks < 120 || checks > 134 {
			t.Errorf("%d checks in 10 hours, one every 5 minutes or a little less", checks)
		}
		w.wantCounts(map[string]int{"extend": extensions, "find": extensions, "verify": counts["verify"]})
		if w.read() != token {
			t.Error("an extension changed the file")
		}
		l.wantReady(true)
		l.endWell()
	})
}

func TestInitAndRunMintOnce(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		w.wantGood()
		l := w.run()
		w.sleep(time.Hour)
		w.wantGood()
		if n := w.server.Count("mint"); n != 1 {
			t.Errorf("%d mints", n)
		}
		l.endWell()
	})
}

func TestHandOverIsAdopted(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		for range 3 {
			l.handOver()
			w.wantLive(1)
			l = w.run()
			w.sleep(10 * time.Minute)
			l.wantReady(true)
		}
		if w.read() != token || w.server.Count("mint") != 1 {
			t.Errorf("another key was minted (%d)", w.server.Count("mint"))
		}
		l.endWell()
	})
}

func TestAKeyThatExpiredWhileStoppedIsRevived(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		l.handOver()
		w.sleep(5 * time.Hour)
		w.wantLive(0)
		l = w.run()
		w.sleep(time.Minute)
		l.wantReady(true)
		if w.read() != token || w.server.Count("mint") != 1 {
			t.Error("the key was replaced, and extending it was enough")
		}
		l.endWell()
	})
}

func TestRotationOverlaps(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times = agent.Times{TTL: time.Hour, MaxTTL: 3 * time.Hour, Overlap: 10 * time.Minute, Check: 5 * time.Minute}
		l := w.run()
		first := w.published(time.Second)
		for w.read() == first {
			w.sleep(time.Second)
			w.wantGood()
		}
		w.wantLive(2)
		w.sleep(9 * time.Minute)
		if !w.server.Accepts(first) {
			t.Error("the old key did not live through the overlap")
		}
		w.sleep(2 * time.Minute)
		w.wantLive(1)
		for range 24 * 60 {
			w.sleep(time.Minute)
			w.wantGood()
			if n := len(w.server.Live()); n > 2 {
				t.Fatalf("%d keys are live", n)
			}
		}
		for _, k := range w.server.All() {
			if age := time.Since(k.Created); age > 3*time.Hour+time.Minute {
				t.Errorf("a key is %v old", age)
			}
		}
		l.endWell()
	})
}

func TestADeadKeyIsReplacedWithinTheCheckInterval(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(17 * time.Minute)
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.published(5*time.Minute + time.Second)
		w.sleep(time.Second)
		l.wantReady(true)
		w.wantLive(1)
		l.endWell()
	})
}

func TestReplacementsOfKeysThatDieYoungSlowDown(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.Check = 30 * time.Second
		l := w.run()
		w.published(time.Second)
		for range 6 * 60 * 12 { // somebody deletes every key within 5 s, for 6 hours
			w.sleep(5 * time.Second)
			for _, k := range w.server.Live() {
				w.server.DeleteKey(k.ID)
			}
		}
		if n := w.server.Count("mint"); n < 20 || n > 45 {
			t.Errorf("%d mints in 6 hours", n)
		}
		w.published(11 * time.Minute)
		l.endWell()
	})
}

func TestADeadKeyWithoutAPasswordIsSaidSo(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.useSession(0)
		l := w.run()
		w.published(time.Second)
		w.sleep(30 * time.Minute)
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(6 * time.Minute)
		l.wantReady(false)
		s := l.agent.Status()
		if len(s.Trouble) != 1 || s.Trouble[0].Class != key.FreshLogin.String() {
			t.Errorf("trouble: %+v", s.Trouble)
		}
		w.sleep(24 * time.Hour)
		if n := w.server.Count("mint"); n != 1 {
			t.Errorf("%d mints", n)
		}
		l.endWell()
	})
}

func TestAnOutageCostsNothing(t *testing.T) {
	outages := map[string]func(w *world, on bool){
		"database down": func(w *world, on bool) { w.server.SetDown(on) },
		"restarting":    func(w *world, on bool) { w.server.SetRestarting(on) },
		"503": func(w *world, on bool) {
			if w.server.Heal(); on {
				w.server.Fail(balenatest.Fault{Status: 503, Body: "<html>", Header: http.Header{"Content-Type": {"text/html"}}})
			}
		},
		"silence": func(w *world, on bool) {
			if w.server.Heal(); on {
				w.server.Fail(balenatest.Fault{Hang: true})
			}
		},
	}
	for name, set := range outages {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				l := w.run()
				token := w.published(time.Second)
				for range 10 { // each outage takes 18 of the 20 to 30 minutes between extension and expiry
					w.sleep(29 * time.Minute)
					set(w, true)
					w.sleep(18 * time.Minute)
					l.wantReady(true)
					set(w, false)
					w.sleep(90 * time.Second)
					w.wantGood()
					w.sleep(5 * time.Minute) // the key is well: nobody is in a hurry
					if s := l.agent.Status(); len(s.Trouble) != 0 {
						t.Errorf("long after the outage: %+v", s.Trouble)
					}
					w.wantGood()
				}
				if w.read() != token || w.server.Count("mint") != 1 {
					t.Error("an outage cost the key")
				}
				l.endWell()
			})
		})
	}
}

func TestAnOutagePastTheExpiryIsRecoveredFrom(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		w.server.SetDown(true)
		w.sleep(5 * time.Hour)
		l.wantReady(false)
		if w.read() != token {
			t.Error("the last good file must stay")
		}
		w.server.SetDown(false)
		w.sleep(90 * time.Second)
		l.wantReady(true)
		w.wantGood()
		w.wantLive(1)
		l.endWell()
	})
}

func TestAColdStartDuringAnOutage(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.SetDown(true)
		l := w.run()
		w.sleep(3 * time.Hour)
		if n := w.server.Count("login"); n > 8*3 {
			t.Errorf("%d logins in 3 hours against 401", n)
		}
		w.server.SetDown(false)
		w.published(90 * time.Second)
		l.endWell()
	})
}

func TestAnUnansweredMintIsSettled(t *testing.T) {
	faults := map[string]balenatest.Fault{
		"lost before the effect":   {},
		"lost after the effect":    {After: true},
		"effect a moment later":    {Late: 300 * time.Millisecond},
		"effect much later":        {Late: 20 * time.Second},
		"502 after the effect":     {After: true, Status: 502, Body: "<html>bad gateway"},
		"garbage after the effect": {After: true, Status: 200, Body: "garbage"},
		"empty after the effect":   {After: true, Status: 200},
		"cut after the effect":     {After: true, Pass: true, Cut: 5},
		"never answered":           {After: true, Hang: true},
		"slow":                     {After: true, Pass: true, Slow: time.Second},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				fault.Kind, fault.Times = "mint", 1
				w.server.Fail(fault)
				l := w.run()
				w.published(time.Minute)
				w.sleep(time.Minute)
				l.wantReady(true)
				w.wantLive(1)
				l.endWell()
			})
		})
	}
}

func TestStopDuringAMint(t *testing.T) {
	faults := map[string]balenatest.Fault{
		"answered in time":   {After: true, Pass: true, Delay: 2 * time.Second},
		"lost":               {After: true, Delay: 2 * time.Second},
		"effect later":       {Late: 2500 * time.Millisecond, Hang: true},
		"answered never":     {After: true, Hang: true},
		"answered too late":  {After: true, Pass: true, Delay: 6 * time.Second},
		"refused in the end": {Status: 500, Delay: 2 * time.Second},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				fault.Kind, fault.Times = "mint", 1
				w.server.Fail(fault)
				l := w.run()
				w.sleep(time.Second)
				took, err := l.end()
				if err != nil || took > w.shutdown {
					t.Errorf("ended with %v after %v", err, took)
				}
				w.wantLive(0)
			})
		})
	}
}

func TestStopWithoutAServer(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		name := w.server.Live()[0].Name
		w.sleep(time.Minute)
		w.server.Fail(balenatest.Fault{Hang: true})
		took, err := l.end()
		var left *agent.LeftError
		if !errors.As(err, &left) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v", err)
		}
		if took > w.shutdown {
			t.Errorf("it took %v", took)
		}
		if w.read() != "" {
			t.Error("the file is left")
		}
		w.wantLive(1)
		w.server.Heal()
		w.sleep(10 * time.Minute)
		next := w.run() // and the next start cleans up
		w.published(time.Second)
		w.sleep(time.Second)
		w.wantLive(1)
		next.endWell()
	})
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Second)
		w.server.Fail(balenatest.Fault{Hang: true})
		l.stop(errors.New("SIGTERM"))
		w.sleep(time.Second)
		began := time.Now()
		l.kill()
		if err := l.wait(); !errors.As(err, new(*agent.LeftError)) || time.Since(began) > 100*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		w.server.Heal()
		w.run().endAfter(time.Minute)
	})
}

func (l *life) endAfter(d time.Duration) {
	l.w.t.Helper()
	l.w.sleep(d)
	l.w.wantLive(1)
	l.endWell()
}

func TestAnExtensionThatDoesNothingLeadsToARotation(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "extend", Pass: true})
		l := w.run()
		w.published(time.Second)
		for range 300 {
			w.sleep(time.Minute)
			w.wantGood()
			l.wantReady(true)
		}
		l.endWell()
	})
}

func TestRotationThatFailsFallsBackToExtending(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		token := w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 500})
		for range 10 * 60 {
			w.sleep(time.Minute)
			w.wantGood()
		}
		if w.read() != token {
			t.Error("where does another token come from?")
		}
		w.wantLog("should have been replaced")
		w.server.Heal()
		w.sleep(time.Hour)
		if w.read() == token {
			t.Error("the rotation was not made up for")
		}
		w.wantGood()
		l.endWell()
	})
}

func TestUnlistedKeysAreReplacedAndAdopted(t *testing.T) {
	for _, kind := range []key.Kind{key.Fleet, key.Device} {
		t.Run(string(kind), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.kind, w.target = kind, w.server.DefaultFleet().Slug
				if kind == key.Device {
					w.target = w.server.DefaultDevice().UUID
				}
				l := w.run()
				w.published(time.Second)
				for range 5 * 60 {
					w.sleep(time.Minute)
					w.wantGood()
					if n := len(w.server.Live()); n > 2 {
						t.Fatalf("%d keys are live", n)
					}
				}
				token := w.read()
				for w.read() == token { // stop right after a replacement, far from the next
					w.sleep(time.Second)
				}
				token = w.read()
				if _, err := l.end(); err != nil {
					t.Errorf("the end: %v", err)
				}
				if w.read() != "" {
					t.Error("the file is left")
				}
				mints := w.server.Count("mint")
				l = w.run()
				w.sleep(time.Second)
				if w.read() != token || w.server.Count("mint") != mints {
					t.Error("the key that nobody can revoke was not adopted")
				}
				if _, err := l.end(); err != nil {
					t.Errorf("the end: %v", err)
				}
				w.sleep(2 * time.Hour)
				w.wantLive(0)
			})
		})
	}
}

func TestListedFleetKeysAreRevoked(t *testing.T) {
	inWorld(t, balenatest.Options{ListsAll: true}, func(w *world) {
		w.kind, w.target = key.Fleet, w.server.DefaultFleet().UUID
		l := w.run()
		token := w.published(time.Second)
		w.sleep(3 * time.Hour)
		if w.read() != token {
			t.Error("the key was replaced, and it can be extended")
		}
		l.endWell()
	})
}

func TestFleetKeysWithAUserKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		user := w.server.AddKey(w.server.DefaultUser(), "by hand", time.Time{})
		w.creds.Password, w.creds.UserKey, w.login = nil, secretSource(user.Secret), "key 1"
		w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
		l := w.run()
		w.published(time.Second)
		w.sleep(3 * time.Hour)
		w.wantGood()
		if _, err := l.end(); err != nil {
			t.Errorf("the end: %v", err)
		}
		w.sleep(2 * time.Hour)
		if live := w.server.Live(); len(live) != 1 || live[0].Name != "by hand" {
			t.Errorf("live: %+v", live)
		}
	})
}

func TestAServerThatIgnoresChosenSecrets(t *testing.T) {
	inWorld(t, balenatest.Options{IgnoresChoice: true}, func(w *world) {
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Times: 1}) // the next mint's answer is lost
		w.sleep(5 * time.Hour)
		w.wantGood()
		if len(w.server.Live()) > 1 { // an overlap may just be under way
			w.sleep(w.times.Overlap + time.Second)
		}
		w.wantLive(1)
		l.endWell()
	})
}

func TestAJournalOnDiskHoldsNoSecret(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true
		l := w.run()
		token := w.published(time.Second)
		raw, err := os.ReadFile(filepath.Join(w.dir, ".injector", "journal.json"))
		if err != nil || strings.Contains(string(raw), token) || !strings.Contains(string(raw), "test-") {
			t.Errorf("journal (%v): %s", err, raw)
		}
		l.handOver()
		l = w.run()
		w.sleep(time.Minute)
		if w.read() == token || w.server.Accepts(token) {
			t.Error("the key whose secret is not on record was not replaced and revoked")
		}
		w.wantLive(1)
		l.endWell()
	})
}

func TestACorruptJournalCostsOneMint(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		for _, bad := range []string{"", "{", `{"version": 99, "keys": []}`, `{"version":1,"keys":[{"name":"x"}]}`} {
			l := w.run()
			w.published(time.Second)
			l.handOver()
			path := filepath.Join(w.dir, ".injector", "journal.json")
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			w.server.Forget()
			l = w.run()
			w.published(time.Second)
			if n := w.server.Count("mint"); n != 1 {
				t.Errorf("%d mints after %q", n, bad)
			}
			if _, err := os.Stat(path + ".unusable"); err != nil {
				t.Error(err)
			}
			if _, err := l.end(); err != nil {
				t.Error(err)
			}
			w.sleep(2 * time.Hour) // the key that the journal named dies by itself
			w.wantLive(0)
		}
	})
}

func TestATamperedJournalTouchesNobodysKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		victim := w.server.AddKey(w.server.DefaultUser(), "somebody's", time.Time{})
		l := w.run()
		w.published(time.Second)
		l.handOver()
		path := filepath.Join(w.dir, ".injector", "journal.json")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		own := w.server.Live()[1]
		text := strings.ReplaceAll(string(raw), own.Name, victim.Name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l = w.run()
		w.sleep(time.Minute)
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		if !w.server.Accepts(victim.Secret) {
			t.Error("somebody's key was deleted")
		}
	})
}

func TestAnotherAccountTargetOrServer(t *testing.T) {
	t.Run("account", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			l := w.run()
			first := w.published(time.Second)
			l.handOver()
			other := w.server.AddUser("other", "other password", "")
			w.usePassword(other.Name, other.Password)
			l = w.run()
			w.published(time.Second)
			w.sleep(time.Minute)
			if w.read() == first || !w.server.Accepts(first) {
				t.Error("a key of another account is left alone, and not used")
			}
			w.wantLog("belongs to another account")
			if _, err := l.end(); err != nil {
				t.Error(err)
			}
			w.wantLive(1)
			w.sleep(time.Hour)
			w.wantLive(0)
		})
	})
	t.Run("same account by its other name", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			l := w.run()
			token := w.published(time.Second)
			l.handOver()
			u := w.server.DefaultUser()
			w.usePassword(u.Email, u.Password)
			l = w.run()
			w.sleep(time.Minute)
			if w.read() != token {
				t.Error("it is the same account, and its key was not adopted")
			}
			l.endWell()
		})
	})
	t.Run("target", func(t *testing.T) {
		inWorld(t, balenatest.Options{ListsAll: true}, func(w *world) {
			w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
			l := w.run()
			first := w.published(time.Second)
			l.handOver()
			w.target = w.server.AddFleet(w.server.DefaultUser(), "acme/other").Slug
			l = w.run()
			w.sleep(time.Minute)
			if w.server.Accepts(first) {
				t.Error("the old target's key was not revoked")
			}
			w.wantLive(1)
			l.endWell()
		})
	})
	t.Run("server", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			l := w.run()
			first := w.published(time.Second)
			l.handOver()
			other := balenatest.New(balenatest.Options{})
			w.url, w.dial = other.Pipe(w.t)
			w.url += ":8080"
			w.server = other
			l = w.run()
			w.sleep(time.Minute)
			if token := w.read(); token == first || !other.Accepts(token) {
				t.Error("the other server's key is not published")
			}
			for _, r := range other.Requests() {
				if r.Status == http.StatusUnauthorized {
					t.Error("the old secret was shown to the other server")
				}
			}
			if _, err := l.end(); err != nil {
				t.Error(err)
			}
			if n := len(other.Live()); n != 0 {
				t.Errorf("%d keys are live at the other server", n)
			}
		})
	})
	t.Run("shorter TTL", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			w.times.TTL, w.times.MaxTTL = 12*time.Hour, 48*time.Hour
			l := w.run()
			w.published(time.Second)
			l.handOver()
			w.times.TTL = time.Hour
			l = w.run()
			w.sleep(time.Minute)
			if left := time.Until(w.server.Live()[0].Expiry); left > time.Hour {
				t.Errorf("the key still has %v", left)
			}
			l.endWell()
		})
	})
}

func TestRefusedCredentials(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.DefaultUser()
		w.usePassword(u.Name, "wrong")
		for range 20 { // a restart loop
			if err := w.init(); !key.Is(err, key.Refused) {
				t.Fatalf("got %v", err)
			}
			w.sleep(time.Second)
		}
		if n := w.server.Count("login"); n > 5 {
			t.Errorf("%d refused logins", n)
		}
		w.usePassword(u.Name, u.Password) // somebody corrects it
		if err := w.init(); err != nil {
			t.Error(err)
		}
		w.run().endAfter(time.Minute)
	})
}

func TestARefusedRunWaitsForANewCredential(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.DefaultUser()
		password := w.usePasswordFile("wrong")
		l := w.run()
		w.sleep(4 * time.Hour)
		l.wantReady(false)
		if n := w.server.Count("login"); n < 9 || n > 13 { // three an hour, spread out
			t.Errorf("%d logins in 4 hours", n)
		}
		password.Store(u.Password)
		l.account.CredentialsChanged(w.t.Context())
		l.agent.Wake()
		w.published(time.Second)
		l.endWell()
	})
}

func TestAStaleSessionCannotMint(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.useSession(30 * time.Minute)
		began := time.Now()
		if err := w.init(); !key.Is(err, key.FreshLogin) || time.Since(began) > 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if n := w.server.Count("mint"); n != 0 {
			t.Errorf("%d mints", n)
		}
		w.wantLive(0)
	})
}

func TestASessionTokenKeepsAKeyAliveForWeeks(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.useSession(time.Minute)
		w.times.TTL, w.times.Check, w.times.Overlap = 4*time.Hour, time.Hour, time.Minute
		l := w.run()
		token := w.published(time.Second)
		w.sleep(22 * 24 * time.Hour) // three times a session's life
		w.wantGood()
		if w.read() != token {
			t.Error("another token")
		}
		l.endWell()
	})
}

func TestASessionThatDoesNotSlide(t *testing.T) {
	inWorld(t, balenatest.Options{FixedExpiry: true, SessionLife: 12 * time.Hour}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(5 * 24 * time.Hour)
		w.wantGood()
		l.wantReady(true)
		if n := w.server.Count("login"); n > 20 {
			t.Errorf("%d logins in 5 days", n)
		}
		l.endWell()
	})
}

func TestAPasswordChangeEndsTheSessionOnly(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.DefaultUser()
		password := w.usePasswordFile(u.Password)
		l := w.run()
		token := w.published(time.Second)
		w.sleep(10 * time.Minute)
		w.server.ChangePassword(u, "new password")
		password.Store("new password")
		w.sleep(5 * time.Hour)
		w.wantGood()
		if w.read() != token {
			t.Error("the key survives a new password")
		}
		l.endWell()
	})
}

func TestTwoFactorLogin(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.AddUser("careful", "careful password", "JBSWY3DPEHPK3PXP")
		w.usePassword(u.Name, u.Password)
		if err := w.init(); !key.Is(err, key.Refused) {
			t.Errorf("without the TOTP secret: %v", err)
		}
		w.creds.TOTP = secretSource("jbsw y3dp ehpk 3pxp")
		for range 3 { // restarts in quick succession
			l := w.run()
			w.published(time.Minute)
			w.sleep(31 * time.Second)
			l.endWell()
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(
			balenatest.Fault{Kind: "mint", Times: 1, Status: 429, Body: `"Too Many Requests"`, Header: http.Header{"Retry-After": {"600"}}},
		)
		l := w.run()
		w.sleep(10*time.Minute - time.Second)
		if n := w.server.Count(""); n != 2 {
			t.Errorf("%d requests while told to wait", n)
		}
		w.published(time.Minute + 2*time.Second)
		l.endWell()
	})
}

func TestSomebodyRemovesTheFile(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		for _, harm := range []func() error{
			func() error { return os.Remove(w.token()) },
			func() error { return errors.Join(os.Remove(w.token()), os.WriteFile(w.token(), []byte("mine"), 0o600)) },
			func() error { return errors.Join(os.Remove(w.token()), os.Symlink("/etc/hostname", w.token())) },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			l.wantReady(false)
			w.sleep(31 * time.Second)
			l.wantReady(true)
			if w.read() != token {
				t.Error("the file was not written again")
			}
		}
		l.endWell()
	})
}

func TestAFullDiskKeepsTheOldKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		token := w.published(time.Second)
		w.sleep(30 * time.Minute)
		if err := os.Rename(w.token(), w.token()+"-kept"); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(w.token(), "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		w.sleep(5 * time.Hour)
		if !w.server.Accepts(token) {
			t.Error("the key that the app may have in memory was given up, and no other could be published")
		}
		if n := w.server.Count("mint"); n != 1 {
			t.Errorf("%d mints while nothing could be written", n)
		}
		if err := os.RemoveAll(w.token()); err != nil {
			t.Fatal(err)
		}
		w.sleep(90 * time.Second)
		w.wantGood()
		l.endWell()
	})
}

func TestClocksThatJump(t *testing.T) {
	for name, jump := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour back": -time.Hour,
		"to 1970": -57 * 365 * 24 * time.Hour, "years ahead": 20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				var shift atomic.Int64
				w.wall = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
				l := w.run()
				token := w.published(time.Second)
				w.sleep(7 * time.Minute)
				shift.Store(int64(jump))
				for range 5 * 60 {
					w.sleep(time.Minute)
					w.wantGood()
				}
				if w.read() != token || w.server.Count("mint") != 1 {
					t.Error("a clock declared the key dead")
				}
				l.wantReady(true)
				l.endWell()
			})
		})
	}
}

func TestAServerWithAnotherTime(t *testing.T) {
	for _, skew := range []time.Duration{-5 * time.Minute, 5 * time.Minute, -24 * time.Hour, 30 * 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.server.ShiftClock(skew)
				l := w.run()
				w.published(time.Second)
				now := time.Now().Add(skew)
				if left := w.server.Live()[0].Expiry.Sub(now); left > time.Hour || left < time.Hour-3*time.Second {
					t.Errorf("the key expires in %v by the server's clock", left)
				}
				for range 180 {
					w.sleep(time.Minute)
					w.wantGood()
				}
				l.endWell()
			})
		})
	}
}

func TestInitGivesUpAndNamesTheStep(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
		began := time.Now()
		err := w.init()
		if !errors.Is(err, agent.ErrInitTimeout) || !strings.Contains(err.Error(), "verify the new key") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > w.initTime+w.shutdown {
			t.Errorf("it took %v", took)
		}
		w.wantLive(0)
	})
}

func TestRevokeOnDemand(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		l.handOver()
		err := w.begin((*agent.Agent).Revoke).wait()
		if err != nil || w.read() != "" {
			t.Errorf("got %v, file %q", err, w.read())
		}
		w.wantLive(0)
	})
}

func TestKeepOnExit(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.keep = true
		l := w.run()
		w.published(time.Second)
		if _, err := l.end(); err != nil {
			t.Fatal(err)
		}
		w.wantLive(1)
		w.wantGood()
		w.keep = false
		w.run().endAfter(time.Minute)
	})
}

// TestAPasswordFileThatIsGoneForAWhile has no file just when a new key is due.
func TestAPasswordFileThatIsGoneForAWhile(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.MaxTTL = 3 * time.Hour
		password := w.creds.Password
		var gone atomic.Bool
		w.creds.Password = func() (key.Secret, error) {
			if gone.Load() {
				return key.Secret{}, errors.New("file /run/secrets/password: no such file or directory")
			}
			return password()
		}
		l := w.run()
		first := w.published(time.Second)
		for range 30 {
			gone.Store(true)
			w.sleep(30 * time.Second)
			gone.Store(false)
			w.sleep(10 * time.Minute)
			w.wantGood()
		}
		if w.read() == first {
			t.Error("the key was never replaced")
		}
		// Now it is gone when a new key is needed at once, and the login of the last rotation is too old to mint.
		for held := ""; held != w.read(); {
			held = w.read()
			w.sleep(21 * time.Minute)
		}
		gone.Store(true)
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(10 * time.Minute)
		l.wantReady(false)
		w.wantLog("no such file")
		gone.Store(false)
		l.agent.Wake()
		w.published(90 * time.Second)
		l.endWell()
	})
}

func TestTriesAreSpaced(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Status: http.StatusServiceUnavailable})
		l := w.run()
		for _, c := range []struct {
			after time.Duration
			most  int // one try is a login and the question whether the server is well
		}{{400 * time.Millisecond, 2}, {time.Second, 4}, {10 * time.Second, 12}, {time.Minute, 20}, {10 * time.Minute, 40}} {
			w.server.Forget()
			w.sleep(c.after)
			if n := w.server.Count(""); n > c.most {
				t.Errorf("%d requests in %v", n, c.after)
			}
		}
		w.server.Heal()
		w.published(2 * time.Minute)
		l.endWell()
	})
}
