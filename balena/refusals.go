package balena

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// balena locks an account out for an hour after ten refused logins from one address. A restart
// loop with a wrong password would get there in a minute, so refusals are remembered across
// restarts. One password gets maxSame of the maxRefusals, so that a corrected one finds room; and those are spread over
// the hour, since a password may be changed and changed back. A person who asks for it gets more, up to maxAsked: two
// are left to the person who logs in by hand.
const (
	maxRefusals   = 5
	maxSame       = 3
	maxAsked      = 8
	refusalMemory = time.Hour
)

// spread is how long after the first and the second refusal a password is tried again.
var spread = [maxSame - 1]time.Duration{10 * time.Minute, 20 * time.Minute}

// refusals counts refused logins. Who and which password are kept as salted hashes only.
type refusals struct {
	store    Store
	keep     func([]byte) error // saves in it
	unsaved  bool               // the last time that did not succeed
	account  string             // URL and name: what the server counts by
	Salt     string             `json:"salt"`
	Seen     []refusal          `json:"refused"`
	LastTOTP int64              `json:"last_totp"` // the period of the last code sent: none is sent twice
}

type refusal struct {
	At       time.Time `json:"at"`
	Account  string    `json:"account"`
	Password string    `json:"password"`
}

// loadRefusals reads the store. What cannot be read counts as nothing: the server keeps a count
// of its own.
func loadRefusals(store Store, url, login string) *refusals {
	r := &refusals{store: store, keep: patiently(store), account: url + "\x00" + login}
	r.load()
	return r
}

// load reads the store again: another process may have written to it.
func (r *refusals) load() {
	if r.store != nil && !r.unsaved { // what is not there yet must not be forgotten for that
		if raw, err := r.store.Load(); err == nil && len(raw) > 0 {
			_ = json.Unmarshal(raw, r)
		}
	}
	if r.Salt == "" {
		r.Salt = rand.Text()
	}
}

// tries is what the refusals of the last hour leave.
type tries struct {
	wait  time.Duration // until the password may be tried again; 0: now
	at    time.Time     // when that is
	left  int           // how many of maxRefusals are left
	same  int           // refusals of this very password
	asked bool          // a person may ask for one more
}

// tries returns what is left for that password.
func (r *refusals) tries(password key.Secret, now time.Time) tries {
	r.load()
	r.forget(now)
	account, hash := r.hash(""), r.hash(password.Reveal())
	var all, same []time.Time
	for _, s := range r.Seen {
		if s.Account != account {
			continue
		}
		all = append(all, s.At)
		if s.Password == hash {
			same = append(same, s.At)
		}
	}
	t := tries{left: max(0, maxRefusals-len(all)), same: len(same), asked: len(all) < maxAsked}
	if n := len(all); n >= maxRefusals {
		t.wait = all[n-maxRefusals].Add(refusalMemory).Sub(now)
	}
	switch n := len(same); {
	case n >= maxSame:
		t.wait = max(t.wait, same[n-maxSame].Add(refusalMemory).Sub(now))
	case n > 0:
		t.wait = max(t.wait, same[n-1].Add(spread[n-1]).Sub(now))
	}
	t.at = now.Add(t.wait)
	return t
}

// String says what may be tried, and when, for people.
func (t tries) String() string {
	const why = "since balena locks an account out after ten refusals"
	if t.left == 0 {
		return fmt.Sprintf("no try of this hour is left until %s, %s", clockTime(t.at), why)
	}
	return fmt.Sprintf("another one is tried at once, this one at %s; %d of %d tries of this hour are left, %s",
		clockTime(t.at), t.left, maxRefusals, why)
}

// clockTime writes a time, by this machine's clock, that stays true however long the text is shown.
func clockTime(t time.Time) string { return t.Add(time.Second - 1).UTC().Format("15:04:05 UTC") }

// add remembers a refusal.
func (r *refusals) add(password key.Secret, now time.Time) {
	r.load()
	r.forget(now)
	r.Seen = append(r.Seen, refusal{At: now.Round(0).UTC(), Account: r.hash(""), Password: r.hash(password.Reveal())})
	r.save()
}

// sent remembers that the code of that period was sent.
func (r *refusals) sent(step int64) {
	r.LastTOTP = step
	r.save()
}

// clear forgets this account's refusals: a login went well.
func (r *refusals) clear() {
	account, before := r.hash(""), len(r.Seen)
	r.Seen = slices.DeleteFunc(r.Seen, func(s refusal) bool { return s.Account == account })
	if len(r.Seen) != before {
		r.save()
	}
}

// forget drops what is older than an hour, and what a clock that was set back left in the future.
func (r *refusals) forget(now time.Time) {
	r.Seen = slices.DeleteFunc(r.Seen, func(s refusal) bool { return now.Sub(s.At).Abs() >= refusalMemory })
}

func (r *refusals) hash(password string) string {
	sum := sha256.Sum256([]byte(r.Salt + "\x00" + r.account + "\x00" + password))
	return hex.EncodeToString(sum[:])
}

func (r *refusals) save() {
	if r.store == nil {
		return
	}
	if raw, err := json.Marshal(r); err == nil {
		r.unsaved = r.keep(raw) != nil // a full disk must not keep anybody from logging in
	}
}

// RefusalsMatter reports whether the bytes of an AccountConfig.Refusals say something that a later login has to heed:
// refusals within the last hour, or a TOTP code that was sent within the last minutes.
func RefusalsMatter(raw []byte, now time.Time) bool {
	var r refusals
	if json.Unmarshal(raw, &r) != nil {
		return true
	}
	r.forget(now)
	return len(r.Seen) > 0 || totpStep(now)-r.LastTOTP < 10
}
