package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
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

// Each test here stands for a way in which an agent once did not recover.

func TestOneFailureDoesNotEndAllRotations(t *testing.T) {
	for _, kind := range []string{"fresh", "mint", "verify"} {
		t.Run(kind, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.times.MaxTTL = 2 * time.Hour
				l := w.run()
				w.published(time.Second)
				w.sleep(35 * time.Minute)
				w.server.Fail(balenatest.Fault{Kind: kind, Times: 1, Status: 502})
				w.sleep(24 * time.Hour)
				if n := w.server.Count("mint"); n < 10 {
					t.Errorf("%d mints in a day with MAX_TTL 2 h", n)
				}
				w.wantGood()
				l.endWell()
			})
		})
	}
}

func TestAnExpiredKeyThatCannotBeExtendedIsReplaced(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.server.SetDown(true)
		w.sleep(2 * time.Hour)
		w.server.Fail(balenatest.Fault{Kind: "extend", Pass: true})
		w.server.SetDown(false)
		w.published(2 * time.Minute)
		w.sleep(time.Second)
		l.wantReady(true)
		l.endWell()
	})
}

func TestAnOldDraftWhoseSecondAnswerIsLost(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint", Hang: true})
		l := w.run()
		w.sleep(time.Second)
		l.handOver()
		w.sleep(2 * time.Hour)
		w.server.Heal()
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Times: 1})
		l = w.run()
		w.published(time.Minute)
		w.wantLive(1)
		l.endWell()
	})
}

func TestAClockAheadAfterACrashBeforePublishing(t *testing.T) {
	for _, shift := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		inWorld(t, balenatest.Options{}, func(w *world) {
			w.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
			l := w.run()
			w.sleep(time.Second)
			l.handOver()
			w.server.Heal()
			w.wall = func() time.Time { return time.Now().Add(shift) }
			l = w.run()
			w.published(time.Minute)
			w.sleep(time.Second)
			if n := w.server.Count("mint"); n != 1 {
				t.Errorf("%d mints", n)
			}
			l.wantReady(true)
			l.endWell()
		})
	}
}

func TestAClockAheadDropsNoRetiringKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		first := w.published(time.Second)
		for w.read() == first {
			w.sleep(time.Second)
		}
		l.handOver() // in the overlap
		w.wantLive(2)
		w.wall = func() time.Time { return time.Now().Add(24 * time.Hour) }
		w.server.SetRestarting(true)
		l = w.run()
		w.sleep(5 * time.Minute)
		w.server.SetRestarting(false)
		w.sleep(2 * time.Minute)
		w.wantLive(1)
		l.endWell()
	})
}

func TestStopAfterAMintAnswered503WithAWait(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Times: 1, Status: 503, Header: http.Header{"Retry-After": {"60"}}})
		l := w.run()
		w.sleep(time.Second)
		l.endWell()
	})
}

func TestUndecidedKeysAreKeptOnce(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		token := w.published(time.Second)
		l.handOver()
		w.usePassword(w.server.DefaultUser().Email, w.server.DefaultUser().Password)
		w.server.SetRestarting(true)
		for range 3 {
			l = w.run()
			w.sleep(10 * time.Second)
			if _, err := l.end(); !errors.As(err, new(*agent.LeftError)) {
				t.Errorf("the end: %v", err)
			}
			if n := w.recorded(); n != 1 {
				t.Fatalf("%d records", n)
			}
		}
		w.server.SetRestarting(false)
		l = w.run()
		w.sleep(6 * time.Minute) // the starts have one budget
		if w.read() != token {
			t.Error("the key was not adopted once its account was known", w.log.String())
		}
		l.endWell()
		if n := w.recorded(); n != 0 {
			t.Errorf("%d records", n)
		}
	})
}

// recorded returns how many keys the journal has.
func (w *world) recorded() int {
	raw, err := os.ReadFile(filepath.Join(w.dir, ".injector", "journal.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var j struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(raw, &j); err != nil {
		w.t.Fatal(err)
	}
	return len(j.Keys)
}

func TestAListThatIsWrongForAWhile(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "find", Status: 200, Body: `{"d":[]}`, Until: time.Now().Add(45 * time.Minute)})
		for range 3 * 60 {
			w.sleep(time.Minute)
			w.wantGood()
		}
		l.wantReady(true)
		w.wantLive(1)
		l.endWell()
	})
}

func TestAUserKeyAndAServerThatIgnoresChoices(t *testing.T) {
	inWorld(t, balenatest.Options{IgnoresChoice: true}, func(w *world) {
		user := w.server.AddKey(w.server.DefaultUser(), "by hand", time.Time{})
		w.creds.Password, w.creds.UserKey, w.login = nil, secretSource(user.Secret), "key 1"
		w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
		l := w.run()
		w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "mint", Times: 1})
		w.sleep(10 * time.Hour)
		w.wantGood()
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestADirectoryBesideTheOutput(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.times.MaxTTL = 2 * time.Hour
		if err := errors.Join(os.Remove(w.token()+".json"), os.MkdirAll(filepath.Join(w.token()+".json", "x"), 0o700)); err != nil {
			t.Fatal(err)
		}
		w.sleep(5 * time.Hour)
		w.wantGood()
		l.wantReady(true)
		if err := os.RemoveAll(w.token() + ".json"); err != nil {
			t.Fatal(err)
		}
		w.sleep(time.Hour)
		if _, err := os.Stat(w.token() + ".json"); err != nil {
			t.Error(err)
		}
		l.endWell()
	})
}

func TestAWrongUserNameCorrected(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.DefaultUser()
		w.usePassword("wrong", u.Password)
		for range 5 {
			if err := w.init(); !key.Is(err, key.Refused) {
				t.Fatal(err)
			}
		}
		w.usePassword(u.Name, u.Password)
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		w.run().endAfter(time.Minute)
	})
}

func TestADraftOfAnotherAccountIsNotMinted(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint"}) // it never lands
		l := w.run()
		w.sleep(time.Second)
		l.handOver()
		w.server.Heal()
		bob := w.server.AddUser("bob", "bob's password", "")
		w.usePassword(bob.Name, bob.Password)
		_ = w.begin((*agent.Agent).Revoke).wait()
		w.wantLive(0)
		l = w.run()
		w.published(time.Second)
		w.sleep(time.Second)
		if live := w.server.Live(); len(live) != 1 || live[0].Owner != bob.ID {
			t.Errorf("live: %+v", live)
		}
		l.endWell()
	})
}

func TestTheDelayLeavesTimeToRevoke(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.delay = 4 * time.Second
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		first := w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Hang: true, Times: 1})
		for w.server.Count("mint") < 2 {
			w.sleep(time.Second)
		}
		began := time.Now()
		l.endWell()
		if took := time.Since(began); took < 4*time.Second || took > w.shutdown {
			t.Errorf("it took %v", took)
		}
		_ = first
	})
}

func TestInitThatGivesUpLeavesAnAdoptedKeyAlone(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		token := w.read()
		w.server.SetRestarting(true)
		if err := w.init(); !errors.Is(err, agent.ErrInitTimeout) {
			t.Errorf("got %v", err)
		}
		w.server.SetRestarting(false)
		if w.read() != token {
			t.Error("the file is gone")
		}
		l := w.run()
		w.sleep(time.Minute)
		if w.read() != token || w.server.Count("mint") != 1 {
			t.Error("the key was not adopted")
		}
		l.endWell()
	})
}

func TestAnotherKindInTheConfiguration(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.kind, w.target = key.Fleet, w.server.DefaultFleet().Slug
		l := w.run()
		w.published(time.Second)
		l.handOver()
		w.kind, w.target = key.User, ""
		l = w.run()
		w.sleep(time.Minute)
		w.wantGood()
		if _, err := l.end(); err != nil {
			t.Errorf("the end: %v", err)
		}
		if live := w.server.Live(); len(live) != 1 || live[0].Kind != key.Fleet {
			t.Errorf("live: %+v", live)
		}
		w.sleep(time.Hour)
		w.wantLive(0)
	})
}

func TestAForgedIDInTheJournal(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		expiry := time.Now().Add(time.Minute * 1000).UTC()
		victim := w.server.AddKey(w.server.DefaultUser(), "somebody's", expiry)
		l := w.run()
		w.published(time.Second)
		l.handOver()
		path := filepath.Join(w.dir, ".injector", "journal.json")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var j map[string]any
		if err := json.Unmarshal(raw, &j); err != nil {
			t.Fatal(err)
		}
		j["keys"].([]any)[0].(map[string]any)["id"] = victim.ID
		if raw, err = json.Marshal(j); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		l = w.run()
		w.sleep(2 * time.Hour)
		w.wantGood()
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		if live := w.server.Live(); len(live) != 1 || !live[0].Expiry.Equal(expiry) {
			t.Errorf("somebody's key was touched: %+v", live)
		}
	})
}

func TestARestartLoopWithAWrongTOTPSecret(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		u := w.server.AddUser("careful", "careful password", "JBSWY3DPEHPK3PXP")
		w.usePassword(u.Name, u.Password)
		w.creds.TOTP = secretSource("GEZDGNBVGY3TQOJQ")
		for range 10 {
			if err := w.init(); !key.Is(err, key.Refused) {
				t.Fatalf("got %v", err)
			}
		}
		if n := w.server.Count("totp"); n > 6 {
			t.Errorf("%d codes", n)
		}
	})
}

func TestALostExtensionDoesNotEndAllExtensions(t *testing.T) {
	for name, fault := range map[string]balenatest.Fault{
		"did nothing": {Kind: "extend", Times: 1, Pass: true},
		"not listed":  {Kind: "find", Times: 2, Status: 200, Body: `{"d":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.useSession(0)
				l := w.run()
				token := w.published(time.Second)
				w.sleep(10 * time.Minute)
				w.server.Fail(fault)
				for range 12 * 60 {
					w.sleep(time.Minute)
					w.wantGood()
				}
				if w.read() != token {
					t.Error("another token")
				}
				l.endWell()
			})
		})
	}
}

func TestStopRightAfterAMintWasCutOff(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint", Late: 300 * time.Millisecond, Times: 1})
		l := w.run()
		w.sleep(100 * time.Millisecond)
		l.endWell()
		w.sleep(time.Second)
		w.wantLive(0)
	})
}

func TestOnDiskTheAppKeepsItsKeyUntilThereIsAnother(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true
		l := w.run()
		token := w.published(time.Second)
		l.handOver()
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 403})
		for range 2 {
			l = w.run()
			w.sleep(5 * time.Minute)
			if w.read() != token || !w.server.Accepts(token) {
				t.Error("the key that the app reads was given up before there was another")
			}
			l.handOver()
		}
		w.server.Heal()
		l = w.run()
		w.sleep(4 * time.Minute) // the starts have one budget
		if w.server.Accepts(token) {
			t.Error("the old key was not revoked")
		}
		w.wantLive(1)
		l.endWell()
	})
}

func TestInitDoesNotGiveUpAnAdoptedKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		token := w.read()
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 403, For: 20 * time.Second})
		if err := w.init(); err != nil {
			t.Error(err)
		}
		if w.read() != token {
			t.Error("the file is gone")
		}
		w.run().endAfter(time.Minute)
	})
}

func TestAListThatIsWrongForLongForgetsNoKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		w.server.Fail(balenatest.Fault{Kind: "find", Status: 200, Body: `{"d":[]}`, For: 90 * time.Minute})
		for range 3 * 60 {
			w.sleep(time.Minute)
			if n := len(w.server.Live()); n > 2 || n > w.recorded() {
				w.t.Fatalf("%d keys are live, %d on record", n, w.recorded())
			}
		}
		l.endWell()
	})
}

func TestACrashAtAMintOfAServerThatIgnoresChoices(t *testing.T) {
	inWorld(t, balenatest.Options{IgnoresChoice: true}, func(w *world) {
		w.times.MaxTTL = 2 * time.Hour
		l := w.run()
		w.published(time.Second)
		w.sleep(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Hang: true, Times: 1})
		for w.server.Count("mint") < 2 {
			w.sleep(time.Second)
		}
		l.handOver()
		l = w.run()
		w.sleep(10 * time.Minute)
		w.wantLive(1)
		l.endWell()
	})
}

func TestAnAppThatKeepsRewritingTheFile(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Second)
		for range 10 * 60 {
			if err := errors.Join(os.Remove(w.token()), os.WriteFile(w.token(), []byte("mine"), 0o600)); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			w.sleep(time.Second)
		}
		if n := strings.Count(w.log.String(), "written again"); n > 12 {
			t.Errorf("%d lines in 10 minutes", n)
		}
		l.endWell()
	})
}

// TestADeletionDuringAnOutageIsNoticed has agents that waited out an outage while the key was well.
func TestADeletionDuringAnOutageIsNoticed(t *testing.T) {
	for _, c := range []struct{ ttl, check time.Duration }{
		{time.Hour, 10 * time.Second}, {4 * time.Hour, time.Minute}, {time.Hour, 5 * time.Minute}, {90 * 24 * time.Hour, 5 * time.Minute},
	} {
		t.Run(fmt.Sprint(c.ttl, c.check), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.times = agent.Times{TTL: c.ttl, MaxTTL: 30 * 24 * time.Hour, Overlap: time.Minute, Check: c.check}
				w.times.MaxTTL = max(w.times.MaxTTL, c.ttl)
				l := w.run()
				w.published(time.Second)
				for range 4 {
					w.sleep(c.ttl / 2 % time.Hour)
					w.server.SetRestarting(true)
					w.sleep(25 * time.Minute)
					w.server.DeleteKey(w.server.Live()[0].ID)
					w.server.SetRestarting(false)
					w.published(max(90*time.Second, c.check+time.Second))
				}
				l.endWell()
			})
		})
	}
}

// TestAPauseEndsWhenTheKeyIsDead has a rotation that was in no hurry, until the key died.
func TestAPauseEndsWhenTheKeyIsDead(t *testing.T) {
	for _, kind := range []string{"mint", "fresh", "login"} {
		t.Run(kind, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				w.times = agent.Times{TTL: 4 * time.Hour, MaxTTL: 4 * time.Hour, Overlap: time.Minute, Check: 10 * time.Second}
				l := w.run()
				w.published(time.Second)
				w.server.Fail(balenatest.Fault{Kind: kind, Status: http.StatusServiceUnavailable})
				w.sleep(3 * time.Hour)
				w.server.DeleteKey(w.server.Live()[0].ID)
				w.server.Heal()
				w.published(100 * time.Second)
				w.sleep(time.Minute)
				l.endWell()
			})
		})
	}
}

// TestAMachineThatSleptThroughAnOutage wakes to an expired key and a server that is well.
func TestAMachineThatSleptThroughAnOutage(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		var asleep atomic.Int64
		w.wall = func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }
		w.times = agent.Times{TTL: 4 * time.Hour, MaxTTL: 24 * time.Hour, Overlap: time.Minute, Check: 5 * time.Minute}
		l := w.run()
		w.published(time.Second)
		w.sleep(2 * time.Hour)
		w.server.SetRestarting(true)
		w.sleep(50 * time.Minute)
		asleep.Store(int64(4 * time.Hour))
		w.server.ShiftClock(4 * time.Hour)
		w.server.SetRestarting(false)
		w.published(90 * time.Second)
		w.sleep(time.Minute)
		l.endWell()
	})
}

// TestStopOverASlowLink needs several requests, each of which takes its time.
func TestStopOverASlowLink(t *testing.T) {
	for _, delay := range []time.Duration{300 * time.Millisecond, 900 * time.Millisecond, 1300 * time.Millisecond, 2 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				l := w.run()
				w.published(time.Second)
				w.server.Fail(balenatest.Fault{Pass: true, After: true, Delay: delay})
				if took, err := l.end(); err != nil || took > 7*time.Second {
					t.Errorf("%v after %v", err, took)
				}
				w.wantLive(0)
			})
		})
	}
}

// TestOneWrongAnswerAtTheStop comes from a load balancer, and the rest of the budget is there.
func TestOneWrongAnswerAtTheStop(t *testing.T) {
	for _, kind := range []string{"find", "revoke"} {
		for _, status := range []int{302, 400, 403, 404, 500} {
			t.Run(fmt.Sprint(kind, status), func(t *testing.T) {
				inWorld(t, balenatest.Options{}, func(w *world) {
					l := w.run()
					w.published(time.Second)
					w.sleep(time.Minute)
					w.server.Fail(balenatest.Fault{Kind: kind, Status: status, Times: 1})
					l.endWell()
				})
			})
		}
	}
}

// TestARevocationIsReadBack has a server that says 200 to a DELETE and deletes nothing: at a stop, and after an overlap.
func TestARevocationIsReadBack(t *testing.T) {
	lie := balenatest.Fault{Kind: "revoke", Pass: true, Times: 2}
	t.Run("stop", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			l := w.run()
			w.published(time.Second)
			hits := w.server.Fail(lie)
			l.endWell()
			if n, _ := hits(); n != 2 {
				t.Errorf("%d of the answers were lies", n)
			}
		})
	})
	t.Run("overlap", func(t *testing.T) {
		inWorld(t, balenatest.Options{}, func(w *world) {
			w.times.MaxTTL = 2 * time.Hour
			l := w.run()
			first := w.published(time.Second)
			hits := w.server.Fail(lie)
			for w.read() == first {
				w.sleep(time.Minute)
			}
			w.sleep(10 * time.Minute)
			w.wantLive(1)
			if n, _ := hits(); n != 2 {
				t.Errorf("%d of the answers were lies", n)
			}
			l.endWell()
		})
	})
}

// TestAStartRemovesWhatItCannotAdopt has the file of a key that no journal knows, and no server to mint another.
func TestAStartRemovesWhatItCannotAdopt(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		if err := os.WriteFile(w.token(), []byte("0123456789abcdef0123456789abcdef"), 0o440); err != nil {
			t.Fatal(err)
		}
		w.server.SetRestarting(true)
		l := w.run()
		w.sleep(time.Second)
		if w.read() != "" {
			t.Error("the app reads a key that nobody keeps")
		}
		l.wantReady(false)
		w.server.SetRestarting(false)
		w.published(2 * time.Minute)
		l.endWell()
	})
}

// TestAStaleJournalProvesNoDeath has a journal that missed an extension, and one failure.
func TestAStaleJournalProvesNoDeath(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true // so that the next start revokes instead of adopting
		l := w.run()
		w.published(time.Second)
		journal := filepath.Join(w.dir, ".injector", "journal.json")
		old, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		w.sleep(80 * time.Minute)
		l.handOver()
		if err := os.WriteFile(journal, old, 0o600); err != nil {
			t.Fatal(err)
		}
		w.server.Fail(balenatest.Fault{Kind: "revoke", Status: 500, Times: 1})
		l = w.run()
		w.sleep(10 * time.Minute)
		w.wantLive(1)
		l.endWell()
	})
}

// TestANewKeyIsShownOnlyOnceItIsAccepted has a rotation whose mint is answered with a secret of no key.
func TestANewKeyIsShownOnlyOnceItIsAccepted(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.times.MaxTTL = 3 * time.Hour
		l := w.run()
		first := w.published(time.Minute)
		hits := w.server.Fail(balenatest.Fault{Kind: "mint", Status: 200, Body: `"5ec2e7ab1e5ec2e7ab1e5ec2e7ab1e00"`, Times: 1})
		for range 4 * 60 {
			w.sleep(time.Minute)
			w.wantGood()
		}
		if n, _ := hits(); n != 1 || w.read() == first {
			t.Errorf("%d mints made nothing; replaced: %v", n, w.read() != first)
		}
		l.endWell()
	})
}
