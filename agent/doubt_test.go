package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// forgetful is an Issuer whose first mint fails with an error that says nothing about the server.
type forgetful struct {
	agent.Issuer
	mints int
}

func (f *forgetful) Mint(ctx context.Context, k key.Key) (key.Key, bool, error) {
	minted, existed, err := f.Issuer.Mint(ctx, k)
	if f.mints++; f.mints == 1 {
		return key.Key{}, false, errors.New("somebody pulled the plug")
	}
	return minted, existed, err
}

// TestAFailureThatSaysNothing has a mint that took effect and failed for a reason that nobody knows; the stop comes
// before it can be tried again.
func TestAFailureThatSaysNothing(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.issuer = func(i agent.Issuer) agent.Issuer { return &forgetful{Issuer: i} }
		l := w.run()
		w.sleep(100 * time.Millisecond)
		w.wantLive(1)
		l.endWell()
	})
}

// TestADraftOfAnotherAccountIsRemembered has a mint whose answer was lost, and a start with another account's
// credential: the key may live, so it is named, and stays in the journal until its own account's credential is back.
func TestADraftOfAnotherAccountIsRemembered(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		alice := w.server.DefaultUser()
		bob := w.server.AddUser("bob", "bob's password", "")
		w.server.Fail(balenatest.Fault{Kind: "mint", After: true, Times: 1})
		content := w.useSessionFile()
		l := w.run()
		for len(w.server.All()) == 0 {
			w.sleep(time.Millisecond)
		}
		name := w.server.Live()[0].Name
		content.Store(w.server.Session(bob, 0))
		l.account.CredentialsChanged(w.t.Context())
		l.agent.TryCredential()
		w.sleep(time.Minute)
		w.wantLog("it belongs to another account")
		raw, err := os.ReadFile(filepath.Join(w.dir, ".injector", "journal.json"))
		if err != nil || !strings.Contains(string(raw), name) {
			t.Errorf("it is forgotten: %v", err)
		}
		if live := w.server.Live(); len(live) != 2 || live[1].Owner != bob.ID {
			t.Errorf("live: %+v", live)
		}
		if _, err := l.end(); err != nil {
			t.Error(err)
		}
		w.wantLive(1)
		w.usePassword(alice.Name, alice.Password)
		if err := w.begin((*agent.Agent).Revoke).wait(); err != nil {
			t.Error(err)
		}
		w.wantLive(0)
	})
}

// newKeysAreRefused makes a server not know keys for a while after they were made, as long as was seen of balenaCloud.
var newKeysAreRefused = balenatest.Fault{Kind: "verify", Status: 401, Body: "Unauthorized", For: 71 * time.Second}

// TestALostMintAndAStopWhileNewKeysAreRefused has a key whose secret is refused and whose row is listed: it is not called
// revoked for that.
func TestALostMintAndAStopWhileNewKeysAreRefused(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint", Times: 1, After: true})
		w.server.Fail(newKeysAreRefused)
		l := w.run()
		for w.server.Count("mint") == 0 {
			w.sleep(10 * time.Millisecond)
		}
		l.endWell()
	})
}

// TestADrainedMintWhileNewKeysAreRefused is the same for a key that is not configured any more.
func TestADrainedMintWhileNewKeysAreRefused(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.server.Fail(balenatest.Fault{Kind: "mint", Times: 1, After: true})
		l := w.run()
		for w.server.Count("mint") == 0 {
			w.sleep(10 * time.Millisecond)
		}
		l.handOver()
		w.wantLive(1)
		w.server.Fail(newKeysAreRefused)
		if err := w.begin((*agent.Agent).Drain).wait(); err != nil {
			t.Error(err)
		}
		w.wantLive(0)
	})
}

// TestADatabaseWithAClockOfItsOwn dates rows later than the server answers. What cannot be told is not called revoked.
func TestADatabaseWithAClockOfItsOwn(t *testing.T) {
	for ahead, leaves := range map[time.Duration]bool{10 * time.Second: false, -10 * time.Minute: false, 10 * time.Minute: true} {
		for _, onDisk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v ahead, on a disk %v", ahead, onDisk), func(t *testing.T) {
				inWorld(t, balenatest.Options{DatabaseAhead: ahead}, func(w *world) {
					w.onDisk = onDisk
					l := w.run()
					w.published(5 * time.Second)
					w.sleep(time.Hour)
					l.handOver()
					err := w.begin((*agent.Agent).Revoke).wait()
					left, _ := errors.AsType[*agent.LeftError](err)
					if leaves && onDisk { // no secret to ask with
						if left == nil || len(left.Keys) != 1 {
							t.Errorf("revoked: %v", err)
						}
						w.wantLive(1)
						return
					}
					if err != nil {
						t.Error(err)
					}
					w.wantLive(0)
				})
			})
		}
	}
}

// TestALongOrderlyEnd is alive for as long as it was given.
func TestALongOrderlyEnd(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.delay, w.shutdown = 8*time.Minute, 9*time.Minute
		l := w.run()
		w.published(5 * time.Second)
		l.stop(errors.New("SIGTERM"))
		w.sleep(7 * time.Minute)
		if !l.agent.Alive() {
			t.Error("it counts as stuck")
		}
		if err := l.wait(); err != nil {
			t.Error(err)
		}
		w.wantLive(0)
	})
}
