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
	"github.com/balena-injector/injector/turn"
)

// Account keeps the session of one credential, for any number of Issuers. It is safe for
// concurrent use; work on the session happens once, while others wait for it.
type Account struct {
	client  *Client
	creds   Credentials
	method  method
	cache   Store
	log     *slog.Logger
	turns   *turn.Queue
	batches *batches      // nil: each key is looked after by itself
	token   chan struct{} // holds one token: who has it owns all below
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

	outageSaid time.Time // when an outage was said last; the queue's own
	outageTold bool      // the one at hand was; likewise

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
	// Keys is how many keys the account is used for, so far as that is known. More than one are extended and revoked
	// together where that is possible, and an outage is theirs together. 0 and 1 mean the same.
	Keys int
	// PerMinute is how many requests are sent in a minute at most; 0 means turn.DefaultRate.
	PerMinute int
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
		token: make(chan struct{}, 1), refused: loadRefusals(cfg.Refusals, client.URL(), strings.ToLower(cfg.Credentials.Username))}
	a.turns = turn.New(turn.Config{PerMinute: cfg.PerMinute, Shared: cfg.Keys > 1, Outage: a.noteOutage})
	if cfg.Keys > 1 {
		a.batches = newBatches(a)
	}
	a.keep = patiently(cfg.Cache)
	a.tried = a.secrets()
	a.token <- struct{}{}
	return a, nil
}

// Turns returns the queue in which all keys of the account wait for their requests.
func (a *Account) Turns() *turn.Queue { return a.turns }

// outageQuiet is how long the next outage is not said.
const outageQuiet = 5 * time.Minute

// noteOutage says when requests begin to fail for all keys of the account, and when they succeed again. A server that answers
// some requests and not others is said once in a while.
func (a *Account) noteOutage(failure error, after time.Duration) {
	if failure == nil {
		if a.outageTold || after >= outageQuiet {
			a.log.Info("the API answers again; all keys of this account go on", "after", after.Round(time.Second))
		}
		return
	}
	if a.outageTold = time.Since(a.outageSaid) > outageQuiet; !a.outageTold {
		return
	}
	a.outageSaid = time.Now()
	a.log.Warn("requests fail; until one succeeds, a single one is sent for all keys of this account", "every", turn.ProbePause,
		"error", failure)
}

// lock waits for the account's turn.
func (a *Account) lock(ctx context.Context) error {
	select {
	case <-a.token:
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

// noteNoSession records that no session could be obtained, for the callers waiting in lockFor.
func (a *Account) noteNoSession(err error) error {
	if key.Is(err, key.Outage) { // a pause may be one key's own
		a.failure, a.failedAt = err, time.Now()
	}
	return err
}

func (a *Account) unlock() { a.token <- struct{}{} }

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

// setSession makes s the session, or none.
func (a *Account) setSession(s *session) {
	a.session = s
	if s == nil {
		a.ends.Store(nil)
		return
	}
	a.ends.Store(&s.expires)
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
	a.setSession(s)
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
