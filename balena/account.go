package balena

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/key"
)

// Account keeps the session of one credential, for any number of Issuers. It is safe for
// concurrent use; work on the session happens once, while others wait for it.
type Account struct {
	client  *Client
	creds   Credentials
	method  method
	cache   Store
	log     *slog.Logger
	turn    chan struct{} // holds one token: who has it owns all below
	session *session
	userKey *userKey
	refused *refusals
	given   key.Secret        // the session token that was given, as it was last read
	before  *session          // that served until another token was given, which is not proven yet
	spent   []key.Secret      // sessions that the server refused
	tried   [sha256.Size]byte // the password and TOTP secret that were used last, or were there at the start
	changed bool              // they are others now, and nobody knows whether they work
	asked   bool              // somebody wants a login to be tried, whatever was refused before
	unsure  bool              // the last login got a 401 during an outage
	doubted time.Time         // the trouble for which a refused login was given a second chance
	logins  pacer             // logins without success
	misses  int               // TOTP codes refused in a row
	warned  bool              // that the session will end
	failure error             // why there was no session at failedAt; nil: there was no outage yet

	failedAt time.Time

	ends    atomic.Pointer[time.Time]  // the session's expiry, for those who must not wait
	trouble atomic.Pointer[trouble]    // what is wrong with the credential, likewise
	proven  atomic.Pointer[key.Secret] // the credential that worked last; nil: none did in this process
	keep    func([]byte) error         // saves in cache
}

// userKey is a long-lived API key as credential, confirmed by the server.
type userKey struct {
	secret key.Secret
	userID int64
}

// AccountConfig says whose account it is.
type AccountConfig struct {
	Credentials Credentials
	Cache       Store        // keeps the session across restarts; nil: in memory only
	Refusals    Store        // counts refused logins across restarts; nil: in memory only
	Log         *slog.Logger // nil: silent
}

// NewAccount returns an account at client's API. It sends nothing. The error says which
// credential is missing.
func NewAccount(client *Client, cfg AccountConfig) (*Account, error) {
	m, err := cfg.Credentials.method()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Account{client: client, creds: cfg.Credentials.checked(), method: m, cache: cfg.Cache, log: cfg.Log,
		turn: make(chan struct{}, 1), refused: loadRefusals(cfg.Refusals, client.URL(), strings.ToLower(cfg.Credentials.Username))}
	a.keep = patiently(cfg.Cache)
	a.tried = a.secrets()
	a.turn <- struct{}{}
	return a, nil
}

// lock waits for the account's turn.
func (a *Account) lock(ctx context.Context) error {
	select {
	case <-a.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lockFor is lock for somebody who wants what those before it want, too: a session. What failed for one of them
// while it waited has failed for it. Otherwise a thousand keys would ask a server that is away one after the other.
func (a *Account) lockFor(ctx context.Context) error {
	began := time.Now()
	if err := a.lock(ctx); err != nil {
		return err
	}
	if a.failure != nil && a.failedAt.After(began) {
		defer a.unlock()
		return a.failure
	}
	return nil
}

// failed remembers for those who wait that there was no session to be had.
func (a *Account) failed(err error) error {
	if key.Is(err, key.Outage) { // a pause may be one key's own
		a.failure, a.failedAt = err, time.Now()
	}
	return err
}

func (a *Account) unlock() { a.turn <- struct{}{} }

// KnownUser returns the account's user id as far as it is known without asking: a session token
// carries it. Otherwise it is 0.
func (a *Account) KnownUser(ctx context.Context) int64 {
	if a.lock(ctx) != nil {
		return 0
	}
	defer a.unlock()
	switch {
	case a.session != nil:
		return a.session.userID
	case a.userKey != nil:
		return a.userKey.userID
	case a.method == bySession:
		if token, err := a.creds.Session.read(); err == nil {
			if s, err := parseSession(token); err == nil {
				return s.userID
			}
		}
	}
	return 0
}

// source is where the secret of the credential comes from.
func (a *Account) source() Source {
	return map[method]Source{byPassword: a.creds.Password, bySession: a.creds.Session, byUserKey: a.creds.UserKey}[a.method]
}

// Mark returns a code over text that takes the account's credential to make, so that a file which others can write
// cannot make us believe that we wrote it. It is made with the credential that worked last, which proven tells, or else
// with the one that is there; it is "" if that cannot be read.
func (a *Account) Mark(text string) (code string, proven bool) {
	var secret key.Secret
	if last := a.proven.Load(); last != nil {
		secret, proven = *last, true
	} else if read, err := a.source().read(); err == nil {
		secret = read
	}
	if secret.IsZero() {
		return "", false
	}
	m := hmac.New(sha256.New, []byte(secret.Reveal()))
	_, _ = fmt.Fprintf(m, "%s\x00%s", a.client.URL(), text)
	return hex.EncodeToString(m.Sum(nil)[:16]), proven
}

// SessionExpiry returns when the session ends by the server's clock; zero without a session.
// It never waits.
func (a *Account) SessionExpiry() time.Time {
	if t := a.ends.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// set makes s the session, or none.
func (a *Account) set(s *session) {
	a.session = s
	if s == nil {
		a.ends.Store(nil)
		return
	}
	a.ends.Store(&s.expires)
}

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
		return identity{}, a.failed(err)
	}
	if fresh {
		if err := a.freshen(ctx, g); err != nil {
			return identity{}, a.failed(err)
		}
	}
	return identity{bearer: a.session.token, userID: a.session.userID, session: true}, nil
}

func (a *Account) identifyByKey(ctx context.Context, g Gate, fresh bool) (identity, error) {
	const op = "use the user key"
	if fresh {
		return identity{}, &Error{Class: key.FreshLogin, Op: op, Reason: "a key cannot mint a user key: that takes a password"}
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
			a.set(nil)
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
		a.spend(a.session.token)
		a.set(a.before)
		if a.before = nil; a.session != nil {
			a.fails(err)
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
		a.works()
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

// cacheFile is the session as it is kept across restarts. The login name and the URL keep it
// from being used for another account or sent to another server.
type cacheFile struct {
	URL     string `json:"url"`
	Login   string `json:"login,omitempty"`
	Session string `json:"session"`
}

func (a *Account) parseCache(raw []byte) *session {
	var f cacheFile
	if json.Unmarshal(raw, &f) != nil || f.URL != a.client.URL() || f.Login != a.loginName() {
		return nil
	}
	s, err := parseSession(key.NewSecret(f.Session))
	if err != nil || s.pending || a.isSpent(s.token) {
		return nil
	}
	return s
}

// suspect is told that a request with that session was answered 401 by a server that is well.
// If the server does not know the session any more, it is dropped, and suspect returns true: a
// new try with a new session makes sense.
func (a *Account) suspect(ctx context.Context, g Gate, bearer key.Secret) (dropped bool, err error) {
	_, err = a.client.whoami(ctx, g, bearer)
	if !key.Is(err, key.Refused) {
		return false, err
	}
	if err := a.lock(ctx); err != nil {
		return false, err
	}
	defer a.unlock()
	if a.session != nil && a.session.token.Equal(bearer) {
		a.spend(bearer)
		a.set(nil)
	}
	return true, nil
}

func (a *Account) loginName() string {
	if a.method == byPassword {
		return strings.ToLower(a.creds.Username)
	}
	return ""
}

// take makes s the session and keeps it.
func (a *Account) take(s *session) {
	s.proven = true
	a.set(s)
	if a.cache == nil {
		return
	}
	raw, err := json.Marshal(cacheFile{URL: a.client.URL(), Login: a.loginName(), Session: s.token.Reveal()})
	if err == nil {
		err = a.keep(raw)
	}
	if err != nil {
		a.log.Warn("the session cache could not be written; a restart logs in again", "error", err)
	}
}

func (a *Account) password() (key.Secret, error) {
	if !a.readable() {
		return key.Secret{}, a.CredentialTrouble()
	}
	return a.creds.Password.read()
}

// Login is the user name that the account logs in with; empty with a session token or a user key.
func (a *Account) Login() string {
	if a.method == byPassword {
		return a.creds.Username
	}
	return ""
}
