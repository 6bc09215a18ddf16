package balena

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/balena-injector/injector/key"
)

// freshen makes the session one that can mint a user key.
func (a *Account) freshen(ctx context.Context, g Gate) error {
	now, known := a.client.Now()
	if known && a.session.fresh(now) {
		return nil
	}
	if a.method != byPassword {
		when := "at a time that it does not say"
		if a.session.authTime.Unix() > 0 {
			when = "at " + a.session.authTime.UTC().Format(time.RFC3339)
		}
		return &Error{Class: key.FreshLogin, Op: "mint a user key",
			Reason: fmt.Sprintf("the session token comes from a login %s, and minting needs one less than 20 minutes old", when)}
	}
	password, err := a.password()
	if err != nil {
		return err
	}
	if err := a.mayTry(password); err != nil {
		return err
	}
	s, err := a.refresh(ctx, g, password)
	if err == nil && s.fresh(now) {
		a.refused.clear()
		a.noteAccepted()
		a.take(s)
		return nil
	}
	if err == nil || key.Is(err, key.Refused) || key.Is(err, key.Wrong) {
		return a.login(ctx, g) // which decides whether the password is wrong or the session was
	}
	return err
}

// refresh asks for a new session in exchange for the old one; with a password, a fresh one.
// A refusal is key.Refused: of the session or of the password, which only a login can tell.
func (a *Account) refresh(ctx context.Context, g Gate, password key.Secret) (*session, error) {
	r := request{kind: "refresh", op: "refresh the session", method: http.MethodGet, path: "/user/v1/refresh-token",
		bearer: a.session.token, gate: g}
	if !password.IsZero() {
		r.kind, r.op, r.method = "fresh", "renew the login", http.MethodPost
		r.body, r.sent = map[string]string{"password": password.Reveal()}, []key.Secret{password}
	}
	ans, err := a.client.do(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case ans.status == http.StatusUnauthorized:
		if err := a.client.healthy(ctx, g); err != nil {
			return nil, err
		}
		return nil, r.failure(key.Refused, ans, "the session or the password is not accepted")
	case ans.status == http.StatusNotFound:
		return nil, a.client.unhealthy(r.failure(key.Outage, ans, "which is how this server reports trouble inside"))
	case ans.status != http.StatusOK:
		return nil, r.failure(key.Wrong, ans, "")
	}
	return readSession(&r, ans)
}

func readSession(r *request, ans *answer) (*session, error) {
	s, err := parseSession(key.NewSecret(string(ans.body)))
	if err != nil {
		return nil, &Error{
			Class:  key.Outage,
			Op:     r.op,
			Status: ans.status,
			Reason: "not the session that this API gives",
			Cause:  NotThisAPI,
		}
	}
	return s, nil
}

// Tend looks after the session: it logs in if there is none, and refreshes it when half of its
// remaining life is gone. It returns how long nothing needs to be done; 0 means for ever.
func (a *Account) Tend(ctx context.Context, g Gate) (time.Duration, error) {
	if err := a.lockFor(ctx); err != nil {
		return 0, err
	}
	defer a.unlock()
	if a.method == byUserKey {
		_, err := a.identifyByKey(ctx, g, false)
		return 0, err
	}
	if err := a.ensure(ctx, g); err != nil {
		return 0, err
	}
	wait, err := a.tryChanged(ctx, g)
	if err != nil {
		return 0, err
	}
	next, err := a.tendSession(ctx, g)
	if wait > 0 && err == nil {
		next = min(max(next, time.Second), wait)
	}
	return next, err
}

// tendSession is Tend for a session that is there. It returns how long it needs nothing.
func (a *Account) tendSession(ctx context.Context, g Gate) (time.Duration, error) {
	now, reliable := a.client.Now()
	if !reliable { // the machine slept, or its clock was set: ask what time it is
		if _, err := a.client.whoami(ctx, g, a.session.token); err != nil && !key.Is(err, key.Refused) {
			return 0, err
		}
		now, _ = a.client.Now()
	}
	if now.Before(a.session.dueAt(now)) {
		return a.session.dueAt(now).Sub(now), nil
	}
	return a.renew(ctx, g, now)
}

// renew moves the session's end, by a refresh or, where that moves nothing, by a login.
func (a *Account) renew(ctx context.Context, g Gate, now time.Time) (time.Duration, error) {
	if !a.session.sliding && a.method == byPassword {
		if err := a.login(ctx, g); err != nil {
			return 0, err
		}
		return a.session.dueAt(now).Sub(now), nil
	}
	if !a.session.sliding {
		return 0, nil // nothing helps; said below, once
	}
	s, err := a.refresh(ctx, g, key.Secret{})
	if key.Is(err, key.Refused) {
		return a.renewRefused(ctx, g, now)
	}
	if err != nil {
		return 0, err
	}
	// A server with JSON_WEB_TOKEN_LIMIT_EXPIRY_REFRESH issues a session that ends when the old
	// one does: compare what came with what was there, not with what was hoped for.
	s.sliding = s.expires.After(a.session.expires.Add(time.Second))
	a.take(s)
	if !s.sliding && a.method == bySession && !a.warned {
		a.warned = true
		a.log.Warn("the session cannot be prolonged: without a password this agent can neither extend nor revoke after its end",
			"session_expires", s.expires)
	}
	return max(time.Second, s.dueAt(now).Sub(now)), nil
}

// renewRefused replaces a session that the server does not refresh. Without a password it may still be good for
// all else: then a refresh is tried again when an eighth of what is left of it has gone.
func (a *Account) renewRefused(ctx context.Context, g Gate, now time.Time) (time.Duration, error) {
	if a.method == byPassword {
		if err := a.login(ctx, g); err != nil {
			return 0, err
		}
		return max(time.Second, a.session.dueAt(now).Sub(now)), nil
	}
	a.setSession(nil)
	if err := a.ensure(ctx, g); err != nil {
		return 0, err
	}
	return max(time.Minute, a.session.dueAt(now).Sub(now), a.session.expires.Sub(now)/8), nil
}
