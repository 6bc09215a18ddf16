package balena

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// CredentialsChanged makes the account read its credentials again. Others than before are tried at the next Tend, once:
// CredentialTrouble tells what came of it.
func (a *Account) CredentialsChanged(ctx context.Context) {
	if a.lock(ctx) != nil {
		return
	}
	defer a.unlock()
	a.warned, a.spent, a.userKey = false, nil, nil
	switch a.method {
	case bySession:
		a.adoptTokens()
		a.readable()
	case byUserKey:
		a.readable()
	case byPassword:
		if a.readable() {
			a.changed = a.secrets() != a.tried || a.asked && a.CredentialTrouble() != nil
		}
	}
}

// TryNow makes the next login be tried whatever was refused before, since a person wants to know. It has no effect when
// that could lock the account out.
func (a *Account) TryNow(ctx context.Context) {
	if a.lock(ctx) != nil {
		return
	}
	defer a.unlock()
	a.asked = true
}

// trouble is why the credential does not work.
type trouble struct {
	err        error
	unreadable bool // nobody was asked: its variable or file is wrong
}

// CredentialTrouble returns why the credential did not work when it was used or read last; nil if it did, or was not
// used yet. It never waits.
func (a *Account) CredentialTrouble() error {
	if t := a.trouble.Load(); t != nil {
		return t.err
	}
	return nil
}

// readable reads all of the credential, and notes what is wrong with that. It reports whether nothing is. What balena
// has refused stays noted until a login succeeds.
func (a *Account) readable() bool {
	for _, source := range []Source{a.source(), a.creds.TOTP} {
		secret, err := source.read()
		if err == nil && source != nil && secret.IsZero() {
			err = errors.New("it is empty")
		}
		if err != nil {
			e := &Error{Class: key.Refused, Op: "read the credential", Err: err, Unasked: true, Cause: Unreadable}
			a.trouble.Store(&trouble{e, true})
			return false
		}
	}
	if t := a.trouble.Load(); t != nil && t.unreadable {
		a.trouble.Store(nil)
	}
	return true
}

// noteAccepted notes that the credential was accepted.
func (a *Account) noteAccepted() {
	a.trouble.Store(nil)
	if secret, err := a.source().read(); err == nil {
		a.proven.Store(&secret)
	}
	a.tried, a.changed, a.asked = a.secrets(), false, false
}

// noteRefused notes that the credential was refused, or cannot be read.
func (a *Account) noteRefused(why error) {
	a.trouble.Store(&trouble{err: why})
}

// secrets is a hash of the password and the TOTP secret as they are now.
func (a *Account) secrets() [sha256.Size]byte {
	password, _ := a.creds.Password.read()
	return sha256.Sum256([]byte(a.attempt(password).Reveal()))
}

// tryChanged logs in once with a password that is another one since the last login. That it is refused costs nothing
// yet: the session lasts on. It would be found out a day later otherwise.
//
// If it may not be tried yet, because others were refused, it returns how long that takes.
func (a *Account) tryChanged(ctx context.Context, g Gate) (wait time.Duration, err error) {
	if !a.changed {
		return 0, nil
	}
	err = a.login(ctx, g)
	e, _ := errors.AsType[*Error](err)
	switch {
	case err == nil:
		a.log.Info("the changed credential works")
	case e != nil && e.Unasked:
		a.noteRefused(err)
		a.log.Warn("the changed credential is not tried yet", "error", err)
		return e.Wait, nil
	case key.Is(err, key.Refused):
		a.tried, a.changed = a.secrets(), false
		a.noteRefused(err)
		a.log.Error("the changed credential is refused; the session from before is used as long as it lasts, and the next login will fail",
			"error", err, "session_expires", a.session.expires)
		return 0, nil
	}
	return 0, err
}

// maxSpent is how many refused sessions are remembered: of a few sources there are only a few.
const maxSpent = 8

func (a *Account) markSpent(token key.Secret) {
	a.spent = append(a.spent, token)
	if len(a.spent) > maxSpent {
		a.spent = a.spent[1:]
	}
}

func (a *Account) isSpent(token key.Secret) bool {
	return slices.ContainsFunc(a.spent, token.Equal)
}

// adoptTokens takes the session from the variable or file, or from the cache. A token that somebody has given since
// they were last looked at counts before all; then the newest of one user does, whose login, or else whose refresh, is
// the latest: a session that lasts longer may be the one that was replaced. With a password only the cache counts.
func (a *Account) adoptTokens() {
	given, anew := a.givenToken()
	if anew && given != nil && !a.isSpent(given.token) {
		if a.session != nil && a.session.proven {
			a.before = a.session
		}
		a.setSession(given)
		return
	}
	best := a.session
	if given != nil && !a.isSpent(given.token) {
		best = newest(best, given)
	}
	if cached := a.cachedToken(); cached != nil && (a.method == byPassword || given != nil && cached.userID == given.userID) {
		best = newest(best, cached)
	}
	if best != a.session {
		a.setSession(best)
	}
}

// givenToken returns the session that was given, and whether it is another one than it was.
func (a *Account) givenToken() (s *session, anew bool) {
	if a.method != bySession {
		return nil, false
	}
	token, err := a.creds.Session.read()
	if err != nil {
		return nil, false
	}
	first := a.given.IsZero()
	anew = !first && !token.Equal(a.given)
	a.given = token
	s, err = parseSession(token)
	if err != nil {
		return nil, false
	}
	return s, anew
}

func (a *Account) cachedToken() *session {
	if a.cache == nil {
		return nil
	}
	raw, err := a.cache.Load()
	if err != nil || len(raw) == 0 {
		return nil
	}
	return a.parseCache(raw)
}

// newest returns the session of the later login, of the later refresh, or of the later end, in this order. Either may be
// nil; of equals it is the first.
func newest(a, b *session) *session {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	for _, at := range []func(*session) time.Time{
		func(s *session) time.Time { return s.authTime },
		func(s *session) time.Time { return s.issued },
		func(s *session) time.Time { return s.expires },
	} {
		if c := at(b).Compare(at(a)); c != 0 {
			if c > 0 {
				return b
			}
			return a
		}
	}
	return a
}
