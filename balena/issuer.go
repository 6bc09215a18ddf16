package balena

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

// Issuer makes, extends and revokes the keys of one kind and target. It is safe for concurrent
// use.
type Issuer struct {
	account *Account
	client  *Client
	prefix  string
	kind    key.Kind
	target  Target
	about   string
	gate    lane
	found   atomic.Int64 // the target's id, once looked up
}

// IssuerConfig says what keys to make.
type IssuerConfig struct {
	Prefix      string   // of the keys' names: see key.CheckPrefix; required for Draft
	Kind        key.Kind // required
	Target      Target   // the fleet or device; zero for user keys
	Description string   // shown beside the key in the dashboard, up to 150 characters; may be empty
	Gate        Gate     // limits requests, beside the account's turns; nil: only the server's own Retry-After does
}

// NewIssuer returns an issuer in the name of account. It sends nothing.
func NewIssuer(account *Account, cfg IssuerConfig) *Issuer {
	return &Issuer{
		account: account,
		client:  account.client,
		prefix:  cfg.Prefix,
		kind:    cfg.Kind,
		target:  cfg.Target,
		about:   cfg.Description,
		gate:    newLane(cfg.Gate, account),
	}
}

// roles are what a key of each kind may do. The names are balena's.
var roles = map[key.Kind]string{key.User: "named-user-api-key", key.Fleet: "provisioning-api-key", key.Device: "device-api-key"}

// actors are what balena calls those whom keys act for.
var actors = map[key.Kind]string{key.User: "user", key.Fleet: "application", key.Device: "device"}

// Now returns the server's time, and whether it can be relied on.
func (i *Issuer) Now() (time.Time, bool) { return i.client.Now() }

// KnownUser returns the account's user id if it is known without asking: see Account.KnownUser.
func (i *Issuer) KnownUser(ctx context.Context) int64 { return i.account.KnownUser(ctx) }

// Tend looks after the session: see Account.Tend.
func (i *Issuer) Tend(ctx context.Context) (time.Duration, error) { return i.account.Tend(ctx, i.gate) }

// Mark is Account.Mark.
func (i *Issuer) Mark(text string) (code string, proven bool) { return i.account.Mark(text) }

// Identify finds out who we are and whom the keys are for: the user's id, and the id of the user, fleet or device. It
// asks only for what is not known yet; afterwards the server's time is known too. The credential is made fresh if it can
// be and must be for minting.
func (i *Issuer) Identify(ctx context.Context) (userID, targetID int64, err error) {
	who, err := i.account.identify(ctx, i.gate, i.kind == key.User)
	if err != nil {
		return 0, 0, err
	}
	if err := i.clock(ctx, who); err != nil {
		return 0, 0, err
	}
	targetID, err = i.targetID(ctx, who)
	return who.userID, targetID, err
}

// Draft returns a key that exists nowhere yet, for the account and target that Identify finds out about. Its expiry is
// ttl ahead by the server's clock, in whole milliseconds, as balena keeps it.
func (i *Issuer) Draft(ctx context.Context, ttl time.Duration) (key.Key, error) {
	user, target, err := i.Identify(ctx)
	if err != nil {
		return key.Key{}, err
	}
	now, _ := i.client.Now()
	k := key.Draft(i.prefix, i.kind, user, now.Add(ttl).Truncate(time.Millisecond))
	k.TargetID = target
	return k, nil
}

// clock makes sure that the server's time is known before an expiry is written.
func (i *Issuer) clock(ctx context.Context, who identity) error {
	if _, ok := i.client.Now(); ok {
		return nil
	}
	_, err := i.client.whoami(ctx, i.gate, who.bearer)
	return err
}

func (i *Issuer) targetID(ctx context.Context, who identity) (int64, error) {
	if i.kind == key.User {
		return who.userID, nil
	}
	if id := i.found.Load(); id != 0 {
		return id, nil
	}
	id, err := i.client.lookUp(ctx, i.gate, who, i.kind, i.target)
	if err == nil {
		i.found.Store(id)
	}
	return id, err
}

// call sends a request with a confirmed credential. A 401 is looked into: a session that ended
// in the meantime is replaced and the request sent once more; any other refusal is returned as
// an answer.
func (i *Issuer) call(ctx context.Context, fresh bool, build func(identity) (request, error)) (*answer, request, error) {
	for again := false; ; again = true {
		who, err := i.account.identify(ctx, i.gate, fresh)
		if err != nil {
			return nil, request{}, err
		}
		r, err := build(who)
		if err != nil {
			return nil, request{}, err
		}
		r.bearer, r.gate = who.bearer, i.gate
		ans, err := i.client.do(ctx, r)
		if err != nil || ans.status != http.StatusUnauthorized || again {
			return ans, r, err
		}
		if isStale(ans) {
			if err := i.account.stale(ctx, who.bearer); err != nil {
				return ans, r, err
			}
			continue
		}
		if !who.session {
			_, err := i.client.whoami(ctx, i.gate, who.bearer)
			return ans, r, err
		}
		if dropped, err := i.account.suspect(ctx, i.gate, who.bearer); err != nil || !dropped {
			return ans, r, err
		}
	}
}

// isStale recognizes the one 401 that says what it means.
func isStale(ans *answer) bool {
	var text string
	return ans.status == http.StatusUnauthorized && json.Unmarshal(ans.body, &text) == nil && text == "Fresh authentication token required"
}

// Mint creates k, whose name, secret and expiry the caller chose and wrote down. It may be
// called again with the same name and secret until it succeeds: existed then reports that the key
// was there already, perhaps with another expiry (an earlier try's), perhaps expired.
//
// The returned key is the one that counts: a server that ignores the choice of a secret gives its own, which is noted as
// Given.
// A failure of class key.Ambiguous means that the key may come to exist.
func (i *Issuer) Mint(ctx context.Context, k key.Key) (minted key.Key, existed bool, err error) {
	ans, r, err := i.call(ctx, i.kind == key.User, func(who identity) (request, error) {
		if k.UserID != who.userID || k.Kind != i.kind {
			return request{}, &Error{Class: key.Wrong, Op: "mint a " + string(i.kind) + " key",
				Reason: fmt.Sprintf("the draft is a %s key of user %d, and the credential is user %d's", k.Kind, k.UserID, who.userID)}
		}
		target, err := i.targetID(ctx, who)
		return i.mintRequest(k, target), err
	})
	switch {
	case err != nil:
		return key.Key{}, false, err
	case ans.status == http.StatusConflict:
		return k, true, nil
	case isStale(ans) && i.account.method == byPassword:
		return key.Key{}, false, r.failure(key.Wrong, ans, "the server wants a login less than 20 minutes old, and just got one")
	case isStale(ans):
		return key.Key{}, false, r.failure(key.FreshLogin, ans, "the server wants a login less than 20 minutes old")
	case ans.status == http.StatusUnauthorized:
		return key.Key{}, false, r.failure(key.Wrong, ans, "the credential is valid, but may not make this kind of key")
	case ans.status != http.StatusOK:
		return key.Key{}, false, r.failure(key.Wrong, ans, "")
	}
	var text string
	if err := json.Unmarshal(ans.body, &text); err != nil || text == "" || len(text) > 255 {
		return key.Key{}, false, r.failure(key.Ambiguous, ans, "the answer holds no key")
	}
	if given := key.NewSecret(text); !given.Equal(k.Secret) {
		k.Secret, k.Given = given, true
	}
	return k, false, nil
}

// mintBody is the JSON of a mint. The expiry is called expiryDate here and expiry_date in a
// PATCH; with the wrong one the key would never expire.
type mintBody struct {
	ActorType   string   `json:"actorType"`
	ActorTypeID int64    `json:"actorTypeId"`
	Roles       []string `json:"roles"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	ExpiryDate  string   `json:"expiryDate"`
	APIKey      string   `json:"apiKey"`
}

func (i *Issuer) mintRequest(k key.Key, target int64) request {
	return request{
		kind:   "mint",
		op:     "mint a " + string(i.kind) + " key",
		method: http.MethodPost,
		path:   "/api-key/v2",
		sent:   []key.Secret{k.Secret},
		body: mintBody{ActorType: actors[i.kind], ActorTypeID: target, Roles: []string{roles[i.kind]}, Name: k.Name,
			Description: i.about, ExpiryDate: timestamp(k.Expiry), APIKey: k.Secret.Reveal()},
	}
}

// timestamp writes a time as balena wants it: UTC with milliseconds.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Verify asks whether the server accepts k's secret. It returns nil if so, and key.Gone only if
// the server refuses the key, proves to be healthy otherwise, and refuses it again.
func (i *Issuer) Verify(ctx context.Context, k key.Key) error {
	err := i.Accepts(ctx, k)
	if !key.Is(err, key.Gone) {
		return err
	}
	if err := i.account.secondOpinion(ctx, i.gate); err != nil {
		return err
	}
	return i.Accepts(ctx, k)
}

// Accepts asks once whether the server accepts k's secret. A key.Gone from it alone proves
// nothing: see Verify.
func (i *Issuer) Accepts(ctx context.Context, k key.Key) error {
	r := request{kind: "verify", op: "verify the key", method: http.MethodGet, path: "/actor/v1/whoami", bearer: k.Secret, gate: i.gate}
	ans, err := i.client.do(ctx, r)
	switch {
	case err != nil:
		return err
	case ans.status == http.StatusOK:
		return checkActor(&r, ans, actors[k.Kind])
	case ans.status != http.StatusUnauthorized:
		return r.failure(key.Wrong, ans, "")
	}
	return r.failure(key.Gone, ans, "the server does not accept this key")
}

// secondOpinion returns nil if the server proves to be healthy.
func (a *Account) secondOpinion(ctx context.Context, g Gate) error {
	if outage := a.turns.Outage(); outage != nil && !turn.Of(ctx).Probe() { // it is known to be unhealthy
		return &Error{Class: key.Outage, Op: "ask whether the server is well", Err: outage}
	}
	if err := a.lock(ctx); err != nil {
		return err
	}
	var token key.Secret
	if a.session != nil && a.session.proven {
		token = a.session.token
	}
	a.unlock()
	if !token.IsZero() {
		if _, err := a.client.whoami(ctx, g, token); !key.Is(err, key.Refused) {
			return err
		}
		return nil // whoami has asked anonymously, and the server was healthy
	}
	return a.client.healthy(ctx, g)
}

// stale is told that the server finds the session too old to mint, whatever our clocks say.
func (a *Account) stale(ctx context.Context, bearer key.Secret) error {
	if err := a.lock(ctx); err != nil {
		return err
	}
	defer a.unlock()
	if a.session != nil && a.session.token.Equal(bearer) {
		a.session.authTime = time.Time{}
	}
	return nil
}

func checkActor(r *request, ans *answer, want string) error {
	var who struct {
		ActorType string `json:"actorType"`
	}
	if err := decode(r, ans, &who); err != nil {
		return err
	}
	if who.ActorType != want {
		return r.failure(key.Outage, ans, "not the answer that this API gives to a "+want+"'s key")
	}
	return nil
}
