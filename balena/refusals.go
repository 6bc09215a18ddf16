package balena

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
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

// refusals counts refused logins. The password is kept as a salted hash only.
type refusals struct {
	store Store
	Salt  string    `json:"salt"`
	Seen  []refusal `json:"refused"`
}

type refusal struct {
	At   time.Time `json:"at"`
	Hash string    `json:"password"`
}

// loadRefusals reads the store. What cannot be read counts as nothing: the server keeps a count
// of its own.
func loadRefusals(store Store) *refusals {
	r := &refusals{store: store}
	if store != nil {
		if raw, err := store.Load(); err == nil && len(raw) > 0 {
			_ = json.Unmarshal(raw, r)
		}
	}
	if r.Salt == "" {
		r.Salt = rand.Text()
	}
	return r
}

// wait returns how long a login with that password must wait, or 0.
func (r *refusals) wait(password key.Secret, now time.Time) time.Duration {
	r.forget(now)
	hash, same := r.hash(password), 0
	var oldestSame time.Time
	for _, s := range r.Seen {
		if subtle.ConstantTimeCompare([]byte(s.Hash), []byte(hash)) == 1 {
			if same++; same == 1 {
				oldestSame = s.At
			}
		}
	}
	switch {
	case len(r.Seen) >= maxRefusals:
		return r.Seen[0].At.Add(refusalMemory).Sub(now)
	case same >= maxSame:
		return oldestSame.Add(refusalMemory).Sub(now)
	}
	return 0
}

// add remembers a refusal.
func (r *refusals) add(password key.Secret, now time.Time) {
	r.forget(now)
	r.Seen = append(r.Seen, refusal{At: now.Round(0).UTC(), Hash: r.hash(password)})
	r.save()
}

// clear forgets all: a login went well.
func (r *refusals) clear() {
	if len(r.Seen) > 0 {
		r.Seen = nil
		r.save()
	}
}

// forget drops what is older than an hour, and what a clock that was set back left in the future.
func (r *refusals) forget(now time.Time) {
	kept := r.Seen[:0]
	for _, s := range r.Seen {
		if age := now.Sub(s.At); age < refusalMemory && age > -refusalMemory {
			kept = append(kept, s)
		}
	}
	r.Seen = kept
}

func (r *refusals) hash(password key.Secret) string {
	sum := sha256.Sum256([]byte(r.Salt + "\x00" + password.Reveal()))
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
