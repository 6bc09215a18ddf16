package balena_test

import (
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestOnlyTheRowOfOurMintIsOurs has somebody who makes a key of our very name, at different times, and looks at what is
// found, extended and revoked. The client may know when the mint was answered, or not, as after a crash.
func TestOnlyTheRowOfOurMintIsOurs(t *testing.T) {
	for name, c := range map[string]struct {
		ours   bool // our row is there
		known  bool // when our mint was answered is known
		secret bool // our secret is
		finds  bool
		doubt  bool // nobody can tell
	}{
		"beside ours":                              {ours: true, known: true, secret: true, finds: true},
		"beside ours, after a crash":               {ours: true, secret: true, finds: true},
		"beside ours, without the secret":          {ours: true, known: true, finds: true},
		"in the place of ours":                     {known: true, secret: true},
		"in the place of ours, after a crash":      {secret: true, doubt: true},
		"in the place of ours, without the secret": {known: true},
		"beside ours, unanswered, on a disk":       {ours: true, finds: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, balenatest.Options{}, key.User)
			k := b.mint()
			if !c.ours {
				b.server.DeleteKey(b.server.Live()[0].ID)
			}
			b.server.ShiftClock(3 * time.Minute) // it took them some time to see the name
			expiry := time.Now().Add(10 * time.Hour).UTC().Truncate(time.Millisecond)
			theirs := b.server.AddKey(b.server.DefaultUser(), k.Name, expiry)
			if !c.known {
				k.Minted = time.Time{}
			}
			if !c.secret {
				k.Secret = key.Secret{}
			}
			found, err := b.issuer.Find(t.Context(), k)
			unproven := key.Is(err, key.Gone) || (c.doubt || !c.secret) && err != nil // never a row
			if c.finds && (err != nil || found.ID == theirs.ID || !found.Seen) || !c.finds && !unproven {
				t.Errorf("found %d, seen %v, %v; theirs is %d", found.ID, found.Seen, err, theirs.ID)
			}
			if _, err := b.issuer.Extend(t.Context(), k, time.Now().Add(time.Hour)); (err == nil) != c.finds {
				t.Errorf("extending: %v", err)
			}
			// What nobody can tell is not called revoked.
			if err := b.issuer.Revoke(t.Context(), k); (err != nil) != (c.doubt || !c.finds && !c.secret) {
				t.Errorf("revoking: %v", err)
			}
			if live := b.server.Live(); len(live) != 1 || live[0].ID != theirs.ID || !live[0].Expiry.Equal(expiry) {
				t.Errorf("live: %+v; theirs is %d and expires %v", live, theirs.ID, expiry)
			}
		})
	}
}

// TestASeenRowIsNotReadAgain counts what it takes to end a key whose row this process has read.
func TestASeenRowIsNotReadAgain(t *testing.T) {
	b := newBench(t, balenatest.Options{}, key.User)
	k, err := b.issuer.Find(t.Context(), b.mint())
	if err != nil {
		t.Fatal(err)
	}
	b.server.Forget()
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
	if n := b.server.Counts(); n["revoke"] != 1 || n["find"] != 1 || len(n) != 2 {
		t.Errorf("requests: %v", n)
	}
	if live := b.server.Live(); len(live) != 0 {
		t.Errorf("live: %+v", live)
	}
}

// TestWhatAServerWithItsOwnSecretsMade has a server that made two keys of one name, of which one answer was lost, and
// somebody who made a third later.
func TestWhatAServerWithItsOwnSecretsMade(t *testing.T) {
	b := newBench(t, balenatest.Options{IgnoresChoice: true}, key.User)
	k := b.draft()
	for range 2 {
		var err error
		if k, _, err = b.issuer.Mint(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	k.Minted, _ = b.issuer.Now()
	b.server.ShiftClock(time.Minute + time.Second) // the date of an answer is cut to whole seconds, that of a row to milliseconds
	theirs := b.server.AddKey(b.server.DefaultUser(), k.Name, time.Now().Add(time.Hour))
	if found, err := b.issuer.Find(t.Context(), k); err != nil || found.ID != theirs.ID-1 {
		t.Errorf("found %d, %v; ours are %d and %d", found.ID, err, theirs.ID-2, theirs.ID-1)
	}
	if err := b.issuer.Revoke(t.Context(), k); err != nil {
		t.Error(err)
	}
	if live := b.server.Live(); len(live) != 1 || live[0].ID != theirs.ID {
		t.Errorf("live: %+v", live)
	}
}
