package agent_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/words"
)

// TestWhatIsSaidOfADeadKey deletes the key while none can be minted: there is no talk of an extension or of how long it
// would last, nothing has "recovered" in finding it dead, and what is said of the next try is true.
func TestWhatIsSaidOfADeadKey(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 500, Until: time.Now().Add(6 * time.Minute)}) // a streak of checks
		w.sleep(6 * time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 400})
		w.server.DeleteKey(w.server.Live()[0].ID)
		w.sleep(10 * time.Minute)
		s := l.agent.Status()
		if s.Key == nil || !s.Key.Dead || s.Ready || !s.Schedule.ExpiresAt.IsZero() || !s.Schedule.ExtendAt.IsZero() || s.Live != 1 {
			t.Errorf("%+v", s)
		}
		if len(s.Trouble) == 0 || !s.Trouble[0].NextTry.Equal(s.Schedule.RotateAt) || !s.Trouble[0].NextTry.After(time.Now()) {
			t.Errorf("the next mint is planned for %v, and tried at %+v", s.Schedule.RotateAt, s.Trouble)
		}
		for _, part := range []string{"dead", s.Trouble[0].Error, words.In(time.Until(s.Trouble[0].NextTry))} {
			if !strings.Contains(s.Reason, part) {
				t.Errorf("%q does not say %q", s.Reason, part)
			}
		}
		if text := w.log.String(); strings.Contains(text, "recovered: could check that the key lives") &&
			strings.LastIndex(text, "recovered: could check") > strings.Index(text, "the key is dead") {
			t.Error("it recovered in finding the key dead")
		}
		w.server.Heal()
		l.endWell()
	})
}

// TestTheLastSuccessAndTheFailures of a key whose extension fails for a while.
func TestTheLastSuccessAndTheFailures(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Second)
		s := l.agent.Status()
		if ago := time.Since(s.LastSuccess); ago < 0 || ago > 2*time.Second || len(s.Counts.Failures) != 0 {
			t.Errorf("the last success was %v ago, failures %v", ago, s.Counts.Failures)
		}
		w.server.Fail(balenatest.Fault{Status: 503, Until: time.Now().Add(45 * time.Minute)})
		w.sleep(44 * time.Minute)
		during := l.agent.Status()
		if ago := time.Since(during.LastSuccess); ago < 39*time.Minute || ago > 45*time.Minute {
			t.Errorf("after 44 minutes without the API the last success was %v ago", ago)
		}
		if len(during.Trouble) == 0 {
			t.Fatal("nothing fails")
		}
		for _, row := range during.Trouble {
			if got := during.Counts.Failures[row.Step]; got != int64(row.Failures) {
				t.Errorf("%d failures to %s are counted, of %d", got, row.Step, row.Failures)
			}
		}
		w.sleep(10 * time.Minute)
		after := l.agent.Status()
		if ago := time.Since(after.LastSuccess); ago > 6*time.Minute || len(after.Trouble) != 0 {
			t.Errorf("after the outage the last success was %v ago; %+v", ago, after.Trouble)
		}
		for step, n := range during.Counts.Failures {
			if after.Counts.Failures[step] < n {
				t.Errorf("%d failures to %s became %d", n, step, after.Counts.Failures[step])
			}
		}
		l.endWell()
	})
}

// TestTheLogAndTheStatusNameTheSameNextTry when the request budget makes a step wait for longer than its own pause.
func TestTheLogAndTheStatusNameTheSameNextTry(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 503})
		w.server.DeleteKey(w.server.Live()[0].ID)
		l.agent.Renew() // which costs requests
		seen := 0
		for range 3 * 600 {
			w.sleep(time.Second)
			lines := nextTries.FindAllStringSubmatch(w.log.String(), -1)
			if len(lines) == seen {
				continue
			}
			seen = len(lines)
			said, err := time.ParseDuration(lines[seen-1][1])
			trouble := l.agent.Status().Trouble
			if err != nil || len(trouble) == 0 {
				t.Fatal(err, trouble)
			}
			if off := time.Until(trouble[0].NextTry) - said; off.Abs() > 2*time.Second {
				t.Errorf("the log says %v, and the status %v", said, time.Until(trouble[0].NextTry))
			}
		}
		if seen < 3 {
			t.Errorf("%d failures are in the log", seen)
		}
		w.server.Heal()
		l.endWell()
	})
}

var nextTries = regexp.MustCompile(`msg="could not mint the key".* next_try_in=(\S+)`)

// TestStrandedKeysAreForgotten has a key of another account in the journal. It is named until it has expired beyond
// doubt, and then neither kept nor a reason to fail.
func TestStrandedKeysAreForgotten(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		l.handOver()
		w.server.AddUser("bob", "bob's password", "")
		w.usePassword("bob", "bob's password")
		l = w.run()
		w.sleep(time.Minute)
		if s := l.agent.Status(); len(s.Stranded) != 1 {
			t.Errorf("%d stranded keys", len(s.Stranded))
		}
		w.sleep(90 * time.Minute)
		if s := l.agent.Status(); len(s.Stranded) != 1 {
			t.Errorf("%d stranded keys within an hour of the expiry", len(s.Stranded))
		}
		w.sleep(time.Hour)
		if s := l.agent.Status(); len(s.Stranded) != 0 {
			t.Errorf("%d stranded keys two hours after the expiry", len(s.Stranded))
		}
		l.endWell()
	})
}

// TestRevokeForgetsWhatHasExpired asks for a revocation weeks after a key of another account has expired.
func TestRevokeForgetsWhatHasExpired(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		l.handOver()
		w.server.AddUser("bob", "bob's password", "")
		w.usePassword("bob", "bob's password")
		revoke := func() error {
			return w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Revoke(stop, kill) }).wait()
		}
		if err := revoke(); !errors.As(err, new(*agent.LeftError)) {
			t.Errorf("while it lives: %v", err)
		}
		time.Sleep(14 * 24 * time.Hour)
		if err := revoke(); err != nil {
			t.Errorf("two weeks later: %v", err)
		}
		if rest, err := lookAt(filepath.Join(w.dir, ".injector")); err != nil || len(rest.Keys) != 1 || rest.Keys[0].Live != 0 {
			t.Errorf("%+v, %v", rest, err)
		}
		w.wantLive(0)
	})
}

// TestUnrevokedKeysAreCountedOverStarts leaves a key at the end of one life: the next one counts it from its start, when
// somebody can still read it.
func TestUnrevokedKeysAreCountedOverStarts(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "revoke", Status: 503})
		if _, err := l.end(); !errors.As(err, new(*agent.LeftError)) {
			t.Errorf("got %v", err)
		}
		l = w.run() // and the next one cannot revoke it, either
		w.sleep(time.Minute)
		if n := l.agent.Status().Counts.Unrevoked; n != 1 {
			t.Errorf("%d keys were left", n)
		}
		_, _ = l.end()
		w.server.Heal()
		l = w.run()
		w.sleep(time.Minute)
		if n := l.agent.Status().Counts.Unrevoked; n > 2 {
			t.Errorf("%d keys were left, of two", n)
		}
		l.endWell()
	})
}

// TestTheWordsOfARevocation reads the log of one that had something to do, and of one that had not.
func TestTheWordsOfARevocation(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		l.handOver()
		w.server.Fail(balenatest.Fault{Kind: "revoke", Pass: true, Delay: 2 * time.Second})
		revoke := func() error {
			return w.begin(func(a *agent.Agent, stop, kill context.Context) error { return a.Revoke(stop, kill) }).wait()
		}
		if err := revoke(); err != nil {
			t.Error(err)
		}
		if took := regexp.MustCompile(`nothing is left that could be revoked" took=2\S*s`); !took.MatchString(w.log.String()) {
			t.Error("it does not say that it took two seconds")
		}
		if err := revoke(); err != nil {
			t.Error(err)
		}
		w.wantLog("there is no key to revoke")
		if strings.Contains(w.log.String(), "keys=0") {
			t.Error("it stops what is not there")
		}
		w.wantLive(0)
	})
}

// TestAKeyThatIsListedAndRefused has the server refuse a key that was minted here, and list it all the same: nobody says
// that it was adopted, and once it counts as dead nobody says how long it lasts.
func TestAKeyThatIsListedAndRefused(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 401, Body: "Unauthorized"})
		w.server.Fail(balenatest.Fault{Kind: "mint", Status: 400})
		refused, dead := 0, 0
		for range 900 {
			w.sleep(time.Second)
			s := l.agent.Status()
			if strings.Contains(s.Reason, "adopted") {
				t.Fatal(s.Reason)
			}
			if strings.Contains(s.Reason, "the server refuses the key at the moment") {
				refused++
			}
			if s.Key.Dead {
				dead++
				if !s.Schedule.ExpiresAt.IsZero() || !s.Schedule.ExtendAt.IsZero() || s.Schedule.CheckAt.IsZero() {
					t.Fatalf("%+v", s.Schedule)
				}
			}
		}
		if refused == 0 || dead == 0 {
			t.Errorf("refused for %d s, dead for %d s", refused, dead)
		}
		w.server.Heal()
		w.sleep(15 * time.Minute)
		l.wantReady(true)
		l.endWell()
	})
}

// TestAKeyThatVanishesIsVerifiedAgain has an extension not find a key that was minted here, and nobody to ask about it.
func TestAKeyThatVanishesIsVerifiedAgain(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		w.server.Fail(balenatest.Fault{Kind: "find", Status: 200, Body: `{"d":[]}`})
		w.server.Fail(balenatest.Fault{Kind: "verify", Status: 503})
		l.agent.Renew()
		w.sleep(5 * time.Second)
		if ready, reason := l.agent.Ready(); ready || strings.Contains(reason, "adopted") ||
			!strings.Contains(reason, "the key is being verified again") {
			t.Errorf("%v, %q", ready, reason)
		}
		w.server.Heal()
		w.sleep(5 * time.Minute)
		l.wantReady(true)
		l.endWell()
	})
}

// TestWaitingForTheBudgetIsNoFailure asks for so many extensions that the request budget is used up: what waits for it is
// not counted among what fails.
func TestWaitingForTheBudgetIsNoFailure(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		for range 30 {
			l.agent.Renew()
			w.sleep(time.Second)
			if s := l.agent.Status(); len(s.Trouble) > 0 {
				t.Fatalf("%+v", s.Trouble)
			}
		}
		w.wantLog("the request budget is used up")
		w.sleep(10 * time.Minute)
		l.endWell()
	})
}

// TestAnExpiryIsSaidAtOnce lets a key expire, whatever the agent does at that moment: it waits for an answer, or for the
// time that the server has named.
func TestAnExpiryIsSaidAtOnce(t *testing.T) {
	for name, fault := range map[string]balenatest.Fault{
		"silence":       {Hang: true},
		"told to wait":  {Status: 429, Header: http.Header{"Retry-After": {"3600"}}},
		"told to, once": {Status: 503, Header: http.Header{"Retry-After": {"1800"}}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, balenatest.Options{}, func(w *world) {
				l := w.run()
				w.published(time.Minute)
				w.server.Fail(fault)
				expiry := l.agent.Status().Key.Expiry
				for !strings.Contains(w.log.String(), "the key has expired") {
					w.sleep(100 * time.Millisecond)
					if late := time.Since(expiry); late > 2*time.Second {
						t.Fatalf("not said %v after the expiry", late)
					}
				}
				w.server.Heal()
				w.sleep(90 * time.Minute)
				l.endWell()
			})
		})
	}
}

// TestLookChangesNothing looks at a state directory that an agent has, and at one that nobody has.
func TestLookChangesNothing(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		dir := filepath.Join(w.dir, ".injector")
		if _, err := lookAt(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		l := w.run()
		w.published(time.Minute)
		if rest, err := lookAt(dir); err != nil || !rest.Held || len(rest.Keys) != 1 || rest.Keys[0].Key == nil ||
			rest.Keys[0].Secret.IsZero() {
			t.Errorf("%+v, %v", rest, err)
		}
		l.handOver()
		before, _ := os.ReadFile(filepath.Join(dir, "journal.json"))
		if rest, err := lookAt(dir); err != nil || rest.Held {
			t.Errorf("%+v, %v", rest, err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, "journal.json")); string(after) != string(before) {
			t.Error("the journal is another one")
		}
		l = w.run()
		w.sleep(time.Minute)
		l.endWell()
	})
}

// TestInitIsNoFailedStart is followed by a run that has to mint, since the state is on a disk: it does so at once.
func TestInitIsNoFailedStart(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true
		if err := w.init(); err != nil {
			t.Fatal(err)
		}
		l := w.run()
		w.sleep(5 * time.Second)
		l.wantReady(true)
		if strings.Contains(w.log.String(), "waiting before a key is minted") {
			t.Error("it waits")
		}
		l.endWell()
	})
}

// TestADeletedKeyIsNotTakenForOneThatIsNotListed deletes a key that an earlier start has minted, and asks for an
// extension, which has to find it first.
func TestADeletedKeyIsNotTakenForOneThatIsNotListed(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		l := w.run()
		w.published(time.Minute)
		w.sleep(time.Minute)
		l.handOver()
		l = w.run()
		w.sleep(time.Minute)
		w.server.DeleteKey(w.server.Live()[0].ID)
		l.agent.Renew()
		w.sleep(time.Minute)
		w.wantLog("the key is dead")
		if strings.Contains(w.log.String(), "does not list this key") {
			t.Error("it is taken for a key that is not listed")
		}
		w.wantGood()
		l.endWell()
	})
}

// TestAWrongClockAtRest looks at a handed-over key with a clock that is two hours behind.
func TestAWrongClockAtRest(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.wall = func() time.Time { return time.Now().Add(-2 * time.Hour) }
		l := w.run()
		w.published(time.Minute)
		l.handOver()
		rest, err := lookAt(filepath.Join(w.dir, ".injector"))
		if err != nil || len(rest.Keys) != 1 || (rest.Keys[0].Ahead+2*time.Hour).Abs() > 2*time.Second {
			t.Errorf("%+v, %v", rest, err)
		}
		l = w.run()
		w.sleep(time.Minute)
		l.endWell()
	})
}
