package agent_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// nothing is a list that lacks what is there.
var nothing = balenatest.Fault{Kind: "find", Status: 200, Body: `{"d":[]}`, Times: 1}

// TestAnEmptyListProvesNoRevocation has one at a stop, and one when an old key is to be revoked.
func TestAnEmptyListProvesNoRevocation(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			l := w.run()
			w.published(time.Second)
			w.sleep(time.Minute)
			w.server.Fail(nothing)
			l.endWell()
		})
	})
	t.Run("overlap", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			w.times.MaxTTL = 2 * time.Hour
			l := w.run()
			first := w.published(time.Second)
			for w.read() == first {
				w.sleep(time.Second)
			}
			w.sleep(30 * time.Second)
			w.server.Fail(nothing)
			w.sleep(2 * time.Minute)
			w.wantLive(1)
			l.endWell()
		})
	})
}

// TestADateOfAGateway has 503 answers that were dated by somebody else, three hours off.
func TestADateOfAGateway(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -3 * time.Hour, "ahead": 3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				l := w.run()
				w.published(time.Second)
				w.sleep(20 * time.Minute)
				date := time.Now().Add(off).UTC().Format(http.TimeFormat)
				w.server.Fail(balenatest.Fault{Kind: "extend", Status: 503, Header: http.Header{"Date": {date}}, Times: 1})
				w.server.Fail(balenatest.Fault{Kind: "find", Status: 503, For: 10 * time.Minute})
				for range 40 * 60 {
					w.sleep(time.Second)
					w.wantGood()
					if left := time.Until(w.server.Live()[0].Expiry); left > w.times.TTL+time.Second {
						t.Fatalf("the expiry is %v ahead", left)
					}
				}
				l.endWell()
			})
		})
	}
}

// TestNoClockDeclaresANewKeyDead has a key that is not known everywhere at once, and a clock that is set meanwhile.
func TestNoClockDeclaresANewKeyDead(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		var ahead atomic.Int64
		w.wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 401, For: 40 * time.Second})
		l := w.run()
		w.sleep(10 * time.Second)
		ahead.Store(int64(time.Hour))
		w.sleep(5 * time.Minute)
		if n := w.server.Count("mint"); n != 1 {
			t.Errorf("%d mints", n)
		}
		l.endWell()
	})
}

// TestAClockMakesNoRoomForAThirdKey has keys that are not listed, of which two live when the clock is set ahead.
func TestAClockMakesNoRoomForAThirdKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		var ahead atomic.Int64
		w.wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
		w.times = agent.Times{TTL: 30 * time.Minute, MaxTTL: time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
		l := w.run()
		w.published(time.Second)
		for len(w.server.Live()) < 2 {
			w.sleep(time.Second)
		}
		ahead.Store(int64(time.Hour))
		for range 120 {
			w.sleep(time.Second)
			if n := len(w.server.Live()); n > 2 {
				t.Fatalf("%d keys are live", n)
			}
		}
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		w.sleep(time.Hour) // nothing but their expiry ends them
		w.wantLive(0)
	})
}

// TestTheFileIsRepairedWhileNoNewKeyCanBeMade has a successor that cannot be minted for hours.
func TestTheFileIsRepairedWhileNoNewKeyCanBeMade(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(22 * time.Hour)
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 503})
		w.sleep(90 * time.Minute)
		for n := w.server.Count("extend"); w.server.Count("extend") == n; { // which writes the file, too
			w.sleep(time.Second)
		}
		w.sleep(5 * time.Second)
		if err := os.Remove(w.token()); err != nil {
			t.Fatal(err)
		}
		w.sleep(31 * time.Second)
		w.wantGood()
		w.server.Heal()
		w.sleep(20 * time.Minute)
		l.endWell()
	})
}

// TestAnAdoptedKeyIsExtendedEvenIfItCannotBeVerified has a server that answers all but one kind of request.
func TestAnAdoptedKeyIsExtendedEvenIfItCannotBeVerified(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Minute)
		l.handOver()
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
		l = w.run()
		for range 3 * 3600 {
			w.sleep(time.Second)
			w.wantGood()
		}
		w.server.Heal()
		w.sleep(20 * time.Minute)
		l.endWell()
	})
}

// TestARefusedRefreshIsNoReasonToHurry has a session that is good for all but being refreshed.
func TestARefusedRefreshIsNoReasonToHurry(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.useSession(0)
		l := w.run()
		w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "refresh", Status: 401})
		w.sleep(85 * time.Hour)
		w.server.Forget()
		w.sleep(6 * time.Hour)
		if n := w.server.Count("refresh"); n > 3 {
			t.Errorf("%d refreshes in 6 h", n)
		}
		w.wantGood()
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(5*time.Minute + time.Second)
		l.wantReady(false)
		w.server.Heal()
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		w.wantLive(0)
	})
}

// TestInitOnDiskLeavesTheAppItsKey gives up, and has nothing better.
func TestInitOnDiskLeavesTheAppItsKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true
		l := w.run()
		first := w.published(time.Second)
		w.sleep(time.Minute)
		l.handOver()
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 503})
		if err := w.init(); !errors.Is(err, agent.ErrInitTimeout) {
			t.Error(err)
		}
		if w.read() != first || !w.server.Accepts(first) {
			t.Error("the app has lost its key")
		}
		w.server.Heal()
		l = w.run()
		w.sleep(2 * time.Minute)
		l.endWell()
	})
}

// TestRevokeNamesWhatItCannotReach has a credential of another account.
func TestRevokeNamesWhatItCannotReach(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		l.handOver()
		u := w.server.AddUser("other", "other password", "")
		w.creds, w.login = balena.Credentials{Session: secretSource(w.server.Session(u, 0))}, ""
		l = w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Revoke(stop, kill) })
		left, ok := errors.AsType[*agent.LeftError](l.wait())
		if !ok || len(left.Keys) != 1 {
			t.Errorf("left: %v", left)
		}
		w.sleep(time.Hour)
		w.wantLive(0)
	})
}

// TestAKeyOfTheSameNameIsNotOurs belongs to the account, and has another id and secret.
func TestAKeyOfTheSameNameIsNotOurs(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Minute)
		twin := w.server.AddKey(w.server.DefaultUser(), w.server.Live()[0].Name, time.Time{})
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		if !w.server.Accepts(twin.Secret) {
			t.Error("it is gone")
		}
		w.server.DeleteKey(twin.ID)
		w.wantLive(0)
	})
}

// TestRestartsDoNotMultiplyRequests is a platform that starts init again whenever it has failed.
func TestRestartsDoNotMultiplyRequests(t *testing.T) {
	for _, kind := range []string{"login", "mint", "verify"} {
		t.Run(kind, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.server.Fail(balenatest.Fault{Kind: kind, Status: 503})
				for range 8 {
					if err := w.init(); err == nil {
						t.Error("init says that it went well")
					}
					w.sleep(time.Second)
				}
				w.checkPace()
				w.server.Heal()
				w.server.Forget()
				var err error
				for range 3 { // what the failures have used up comes back in minutes
					if err = w.init(); err == nil {
						break
					}
				}
				if err != nil {
					t.Error(err)
				}
				w.wantLive(1)
				l := w.run()
				w.sleep(time.Second)
				l.endWell()
			})
		})
	}
}

// TestManyKeysAreAliveDuringAnOutage has thirty of one account, whose logins all hang.
func TestManyKeysAreAliveDuringAnOutage(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Hang: true})
		client, err := balena.NewClient(balena.Config{URL: w.url, Dial: w.dial})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		account, err := balena.NewAccount(client, balena.AccountConfig{Credentials: w.creds})
		if err != nil {
			t.Fatal(err)
		}
		stop, end := context.WithCancelCause(context.Background())
		var agents []*agent.Agent
		ended := make(chan error, 30)
		for i := range cap(ended) {
			a := w.beside(account, filepath.Join(w.dir, "state", string(rune('a'+i))))
			agents = append(agents, a)
			go func() { ended <- a.Run(stop, context.Background()) }()
		}
		for range 1200 {
			time.Sleep(time.Second)
			for i, a := range agents {
				if !a.Alive() {
					t.Fatalf("agent %d counts as dead", i)
				}
			}
		}
		w.server.Heal()
		end(errors.New("SIGTERM"))
		for range agents {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		w.wantLive(0)
		w.server.Forget() // thirty agents' requests are no one agent's pace
	})
}
