package balena

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/balena-injector/injector/key"
)

const (
	// recovering is how long after trouble a refused login still counts as part of it: the
	// refusal and the second opinion are two requests, and the server may get well in between.
	recovering = 30 * time.Second
)

// pacer limits logins that led nowhere: at most 3 a minute and 8 an hour.
type pacer struct{ tries []time.Time }

func (p *pacer) wait(now time.Time) time.Duration {
	kept := p.tries[:0]
	for _, t := range p.tries {
		if now.Sub(t) < time.Hour {
			kept = append(kept, t)
		}
	}
	p.tries = kept
	var wait time.Duration
	if n := len(kept); n >= 8 {
		wait = kept[n-8].Add(time.Hour).Sub(now)
	}
	if n := len(kept); n >= 3 {
		wait = max(wait, kept[n-3].Add(time.Minute).Sub(now))
	}
	return wait
}

// login gets a session for the password, and for the TOTP secret if the account asks.
func (a *Account) login(ctx context.Context, g Gate) error {
	password, err := a.password()
	if err != nil {
		return err
	}
	if err := a.mayTry(password); err != nil {
		return err
	}
	if wait := a.logins.wait(time.Now()); wait > 0 {
		return &Error{Class: key.Busy, Op: "log in", Wait: wait, Reason: "too many logins without an answer that says why"}
	}
	if a.unsure {
		// The last 401 came from an outage. Do not spend logins, which may be counted, on
		// finding out whether it is over.
		if err := a.client.healthy(ctx, g); err != nil {
			return err
		}
	}
	r := request{kind: "login", op: "log in", method: http.MethodPost, path: "/login_", gate: g, sent: []key.Secret{password},
		body: map[string]string{"username": a.creds.Username, "password": password.Reveal()}}
	ans, err := a.client.do(ctx, r)
	a.asked = a.asked && err != nil
	switch {
	case err != nil:
		return err
	case ans.status == http.StatusUnauthorized:
		return a.loginRefused(ctx, g, &r, ans, password)
	case ans.status != http.StatusOK:
		return r.notThisAPI(key.Wrong, ans, "which is not how a balena API answers a login: is the URL right?")
	}
	s, err := readSession(&r, ans)
	if err != nil {
		return err
	}
	if s.pending {
		if s, err = a.secondFactor(ctx, g, s); err != nil {
			if e, ok := errors.AsType[*Error](err); ok && e.Class == key.Refused {
				return a.countRefusal(e, password)
			}
			return err
		}
	}
	a.unsure, a.logins, a.misses = false, pacer{}, 0
	a.refused.clear()
	a.noteAccepted()
	a.take(s)
	return nil
}

// mayTry returns an error if the password was refused before and its next try is not due yet. Who asked for a try gets
// one all the same, as long as that locks nobody out.
func (a *Account) mayTry(password key.Secret) error {
	left := a.refused.tries(a.attempt(password), time.Now())
	if left.wait <= 0 || a.asked && left.asked {
		return nil
	}
	e := &Error{Class: key.Refused, Op: "log in", Wait: left.wait, Unasked: true, Locked: !left.asked}
	switch {
	case e.Locked:
		e.Reason = fmt.Sprintf(
			"balena was not asked, not even for a person: %d logins of this account were refused within the last hour, and ten "+
				"lock it out. "+
				"The next try is at %s", maxAsked, clockTime(left.at))
	case left.same == 0:
		e.Reason = "balena was not asked: other passwords of this account were refused; " + left.String()
	default:
		e.Reason = fmt.Sprintf("balena was not asked: it refused this password %s within the last hour; %v", times(left.same), left)
	}
	return e
}

// attempt is what a login is made with: with another TOTP secret it is another one.
func (a *Account) attempt(password key.Secret) key.Secret {
	code, _ := a.creds.TOTP.read()
	return key.NewSecret(password.Reveal() + "\x00" + code.Reveal())
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// countRefusal remembers a refused login, and says in its error how many tries are left.
func (a *Account) countRefusal(e *Error, password key.Secret) error {
	a.refused.add(a.attempt(password), time.Now())
	left := a.refused.tries(a.attempt(password), time.Now())
	e.Wait = left.wait
	e.Reason += "; " + left.String()
	a.noteRefused(e)
	return e
}

// loginRefused tells a wrong password from an outage: both answer 401. Only a server that is
// provably healthy at that moment refuses; one that was unhealthy a moment ago is asked once more.
func (a *Account) loginRefused(ctx context.Context, g Gate, r *request, ans *answer, password key.Secret) error {
	trouble := a.client.lastTrouble()
	doubtful := time.Since(trouble) < recovering && trouble != a.doubted
	if err := a.client.healthy(ctx, g); err != nil || doubtful {
		a.logins.tries = append(a.logins.tries, time.Now()) // refusals are counted apart
		a.unsure, a.doubted = true, trouble
		return r.failure(key.Outage, ans,
			"but the server is, or was moments ago, unhealthy, so this does not mean that the password is wrong")
	}
	return a.countRefusal(r.failure(key.Refused, ans, "the user name or the password is not accepted"), password)
}

// secondFactor turns a pending session into a full one.
func (a *Account) secondFactor(ctx context.Context, g Gate, pending *session) (*session, error) {
	const op = "answer the two-factor request"
	secret, err := a.creds.TOTP.read()
	if err == nil && secret.IsZero() {
		return nil, &Error{Class: key.Refused, Op: op, Reason: "this account has two-factor login, and no TOTP secret was given"}
	}
	if err != nil {
		return nil, &Error{Class: key.Refused, Op: op, Err: err}
	}
	now, _ := a.client.Now()
	step := totpStep(now)
	a.refused.load()
	if step <= a.refused.LastTOTP && step > a.refused.LastTOTP-10 { // far back, a clock was wrong
		next := time.Unix((a.refused.LastTOTP+1)*int64(totpPeriod/time.Second), 0)
		return nil, &Error{
			Class:  key.Busy,
			Op:     op,
			Wait:   max(time.Second, next.Sub(now)),
			Reason: "this code was sent already; waiting for the next one",
		}
	}
	code, err := TOTP(secret, step)
	if err != nil {
		return nil, &Error{Class: key.Refused, Op: op, Err: err}
	}
	a.refused.sent(step)
	r := request{kind: "totp", op: op, method: http.MethodPost, path: "/auth/totp/verify", bearer: pending.token, gate: g,
		body: map[string]string{"code": code}, sent: []key.Secret{key.NewSecret(code)}}
	ans, err := a.client.do(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case ans.status == http.StatusUnauthorized:
		if err := a.client.healthy(ctx, g); err != nil {
			return nil, err
		}
		return nil, a.codeRefused(&r, ans, now)
	case ans.status != http.StatusOK:
		return nil, r.failure(key.Wrong, ans, "")
	}
	s, err := readSession(&r, ans)
	if err == nil && s.pending {
		err = r.failure(key.Refused, ans, "the session still waits for a second factor")
	}
	return s, err
}

// codeRefused judges a refused code: the first may have come at the edge of its period, or been
// used by another process already, so another one is tried.
func (a *Account) codeRefused(r *request, ans *answer, now time.Time) error {
	if a.misses++; a.misses > 1 {
		return r.failure(key.Refused, ans, "two codes were not accepted: is the TOTP secret this account's, and the clock right?")
	}
	next := totpPeriod - time.Duration(now.UnixNano()%int64(totpPeriod))
	return &Error{Class: key.Busy, Op: r.op, Status: ans.status, Wait: next, Reason: "the code was not accepted; trying the next one"}
}
