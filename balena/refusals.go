package balena

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// balena locks an account out for an hour after ten refused logins from one address. A restart
// loop with a wrong password would get there in a minute, so refusals are remembered across
// restarts. One password gets maxSame of the maxRefusals, so that a corrected one finds room.
const (
	maxRefusals   = 5
	maxSame       = 3
	refusalMemory = time.Hour
)

// refusals counts refused logins. Who and which password are kept as salted hashes only.
type refusals struct {
	store    Store
	account  string    // URL and name: what the server counts by
	Salt     string    `json:"salt"`
	Seen     []refusal `json:"refused"`
	LastTOTP int64     `json:"last_totp"` // the period of the last code sent: none is sent twice
}

type refusal struct {
	At       time.Time `json:"at"`
	Account  string    `json:"account"`
	Password string    `json:"password"`
}

// loadRefusals reads the store. What cannot be read counts as nothing: the server keeps a count
// of its own.
func loadRefusals(store Store, url, login string) *refusals {
	r := &refusals{store: store, account: url + "\x00" + login}
	r.load()
	return r
}

// load reads the store again: another process may have written to it.
func (r *refusals) load() {
	if r.store != nil {
		if raw, err := r.store.Load(); err == nil && len(raw) > 0 {
			_ = json.Unmarshal(raw, r)
		}
	}
	if r.Salt == "" {
		r.Salt = rand.Text()
	}
}

// wait returns how long a login with that password must wait, or 0, and whether that is because of
// other passwords.
func (r *refusals) wait(password key.Secret, now time.Time) (wait time.Duration, others bool) {
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
	switch {
	case len(all) >= maxRefusals:
		return all[len(all)-maxRefusals].Add(refusalMemory).Sub(now), len(same) < maxSame
	case len(same) >= maxSame:
		return same[len(same)-maxSame].Add(refusalMemory).Sub(now), false
	}
	return 0, false
}

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
		_ = r.store.Save(raw) // a full disk must not keep anybody from logging in
	}
}
