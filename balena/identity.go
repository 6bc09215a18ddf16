package balena

import (
	"context"
	"time"

	"github.com/balena-injector/injector/key"
)

// identity is who we are towards the server.
type identity struct {
	bearer  key.Secret
	userID  int64
	session bool // whether bearer is a session, which may extend and revoke
}

// identify returns a credential that the server has confirmed; fresh asks for one that can mint
// a user key.
func (a *Account) identify(ctx context.Context, g Gate, fresh bool) (identity, error) {
	if err := a.lockFor(ctx); err != nil {
		return identity{}, err
	}
	defer a.unlock()
	if a.method == byUserKey {
		return a.identifyByKey(ctx, g, fresh)
	}
	if err := a.ensure(ctx, g); err != nil {
		return identity{}, a.noteNoSession(err)
	}
	if fresh {
		if err := a.freshen(ctx, g); err != nil {
			return identity{}, a.noteNoSession(err)
		}
	}
	return identity{bearer: a.session.token, userID: a.session.userID, session: true}, nil
}

func (a *Account) identifyByKey(ctx context.Context, g Gate, fresh bool) (identity, error) {
	const op = "use the user key"
	if fresh {
		return identity{}, &Error{Class: key.FreshLogin, Op: op,
			Reason: "an API key cannot mint a user key: that takes a password, or a session token from a login less than 20 minutes old"}
	}
	if !a.readable() {
		return identity{}, a.CredentialTrouble()
	}
	secret, err := a.creds.UserKey.read()
	if err != nil {
		return identity{}, &Error{Class: key.Refused, Op: op, Err: err, Cause: Unreadable}
	}
	if a.userKey == nil || !a.userKey.secret.Equal(secret) {
		id, err := a.client.whoami(ctx, g, secret)
		if err != nil {
			return identity{}, err
		}
		a.userKey = &userKey{secret: secret, userID: id}
	}
	return identity{bearer: secret, userID: a.userKey.userID}, nil
}

// ensure sees to a session that the server has confirmed and that is not over.
func (a *Account) ensure(ctx context.Context, g Gate) error {
	if a.session == nil {
		a.adoptTokens()
	}
	for a.session != nil && !a.session.proven {
		if err := a.prove(ctx, g); err != nil {
			return err
		}
		if a.session == nil {
			a.adoptTokens() // one of several is spent
		}
	}
	if a.session != nil {
		if now, ok := a.client.Now(); ok && !now.Before(a.session.expires) {
			a.setSession(nil)
		}
	}
	if a.session != nil {
		return nil
	}
	if a.method == bySession {
		return a.refusedToken()
	}
	return a.login(ctx, g)
}

// prove shows a session from a variable or the cache to the server. This also tells the
// server's time. A session that is dead is dropped, and the one before it serves again, if there was one.
func (a *Account) prove(ctx context.Context, g Gate) error {
	id, err := a.client.whoami(ctx, g, a.session.token)
	switch {
	case key.Is(err, key.Refused):
		a.log.Info("the session from the cache or the configuration is over or was ended", "expires", a.session.expires)
		a.markSpent(a.session.token)
		a.setSession(a.before)
		if a.before = nil; a.session != nil {
			a.noteRefused(err)
			a.log.Error("the session token that was given is not accepted; the one before it is used as long as it can be",
				"expires", a.session.expires)
		}
		return nil
	case err != nil:
		return err
	case id != a.session.userID:
		return &Error{Class: key.Outage, Op: "check the session", Reason: "the server answers with another user's id"}
	}
	a.session.proven, a.before = true, nil
	if a.method == bySession {
		a.noteAccepted()
	}
	return nil
}

// refusedToken explains why a session token does not serve.
func (a *Account) refusedToken() error {
	e := &Error{Class: key.Refused, Op: "use the session token"}
	token, err := a.creds.Session.read()
	if err != nil {
		e.Err, e.Cause = err, Unreadable
		return e
	}
	s, err := parseSession(token)
	if err != nil {
		e.Err = err
		return e
	}
	if now, ok := a.client.Now(); ok && !now.Before(s.expires) {
		e.Reason = "it expired at " + s.expires.UTC().Format(time.RFC3339)
		return e
	}
	e.Reason = "the server does not accept it: it was ended (a changed password ends all sessions), or belongs to another server"
	return e
}

// suspect is told that a request with that session was answered 401 by a healthy server. If the server does not know the
// session any more, it is dropped, and suspect reports that the request is worth another try, with another session.
func (a *Account) suspect(ctx context.Context, g Gate, bearer key.Secret) (retry bool, err error) {
	_, err = a.client.whoami(ctx, g, bearer)
	if !key.Is(err, key.Refused) {
		return false, err
	}
	if err := a.lock(ctx); err != nil {
		return false, err
	}
	defer a.unlock()
	if a.session != nil && a.session.token.Equal(bearer) {
		a.markSpent(bearer)
		a.setSession(nil)
	}
	return true, nil
}
