package agent

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// journalVersion changes when an older program could misread the file.
const journalVersion = 1

// maxJournal caps what is read: some 400 keys.
const maxJournal = 256 << 10

// state is how far a key has come.
type state string

const (
	minting   state = "minting"   // the request that creates it was or is about to be sent
	minted    state = "minted"    // it exists, and no app has seen it
	published state = "published" // apps read it
	retiring  state = "retiring"  // to be revoked, at RetireAt
)

// record is one key in the journal. Times are the server's, but for RetireAt.
type record struct {
	Name     string    `json:"name"`
	Secret   string    `json:"secret,omitempty"` // only in memory
	ID       int64     `json:"id,omitempty"`
	State    state     `json:"state"`
	Expiry   time.Time `json:"expiry"`
	Latest   time.Time `json:"latest,omitzero"` // an expiry that was asked for, and may count
	Created  time.Time `json:"created"`
	RetireAt time.Time `json:"retire_at,omitzero"`
	Proof    string    `json:"proof,omitempty"` // that ID was written by somebody who knew the secret
	// Given: the server ignored the chosen secret, so name and secret do not prove each other.
	Given bool `json:"given,omitempty"`

	URL      string   `json:"url"`
	UserID   int64    `json:"user_id"`
	Login    string   `json:"login,omitempty"`
	Kind     key.Kind `json:"kind"`
	Target   string   `json:"target,omitempty"`
	TargetID int64    `json:"target_id,omitempty"`
}

// journal is the private record of every key that this agent has, or may have, at balena.
type journal struct {
	Version    int      `json:"version"`
	Generation int      `json:"generation"`
	Told       int      `json:"told,omitempty"` // the last generation that whoever must be told knows of
	Outputs    []string `json:"outputs,omitempty"`
	Keys       []record `json:"keys"`

	slot string // whose file it is
}

// journalName is the file of a slot's journal: each key of several has one of its own, since a
// thousand of them in one file would be written thousands of times.
func journalName(slot string) string {
	if slot == "" {
		return "journal.json"
	}
	return "journal-" + slot + ".json"
}

// Slots lists the slots that have a journal in the directory.
func (s *StateDir) Slots() ([]string, error) {
	dir, err := s.Root().Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	var slots []string
	for _, name := range names {
		if name == journalName("") {
			slots = append(slots, "")
		} else if slot, ok := strings.CutPrefix(name, "journal-"); ok {
			if slot, ok = strings.CutSuffix(slot, ".json"); ok {
				slots = append(slots, slot)
			}
		}
	}
	slices.Sort(slots)
	return slots, err
}

// Recorded is what a slot's journal tells to who has to clean up after it.
type Recorded struct {
	Outputs []string // the paths that were written
	Names   []string // of the keys
	Login   string   // whose credential minted the last of them
}

// Recorded reads a slot's journal, and changes nothing.
func (s *StateDir) Recorded(slot string) (Recorded, error) {
	raw, err := s.Read(journalName(slot), maxJournal)
	if err != nil {
		return Recorded{}, err
	}
	j, err := parseJournal(raw)
	r := Recorded{Outputs: j.Outputs}
	for _, k := range j.Keys {
		r.Names, r.Login = append(r.Names, k.Name), k.Login
	}
	return r, err
}

// Forget removes a slot's journal if it names no key.
func (s *StateDir) Forget(slot string) error {
	j, err := loadJournal(s, slot)
	if err != nil || len(j.Keys) > 0 {
		return err
	}
	return s.current().Remove(journalName(slot))
}

// errSetAside is wrapped by errors about a journal that cannot be used.
var errSetAside = errors.New("the journal cannot be used")

// loadJournal reads the journal; an empty one if there is none. One that is corrupt or of
// another version is set aside under another name, and reported with errSetAside.
func loadJournal(dir *StateDir, slot string) (journal, error) {
	journalFile := journalName(slot)
	empty := journal{Version: journalVersion, slot: slot}
	raw, err := dir.Read(journalFile, maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	var j journal
	if err == nil {
		j, err = parseJournal(raw)
	}
	if j.slot = slot; err == nil {
		return j, nil
	}
	aside := journalFile + ".unusable"
	if e := dir.Root().Rename(journalFile, aside); e != nil {
		return empty, fmt.Errorf("%w: %w; it could not be set aside: %w", errSetAside, err, e)
	}
	return empty, fmt.Errorf("%w: %w; it was set aside as %s/%s, and keys that it named die at their expiry", errSetAside, err, dir.Path(), aside)
}

// parseJournal reads and checks a journal.
func parseJournal(raw []byte) (journal, error) {
	var j journal
	if err := json.Unmarshal(raw, &j); err != nil {
		return j, fmt.Errorf("not the JSON of a journal: %w", err)
	}
	if j.Version != journalVersion {
		return j, fmt.Errorf("version %d, and this program knows version %d", j.Version, journalVersion)
	}
	for i, r := range j.Keys {
		if err := r.check(); err != nil {
			return j, fmt.Errorf("key %q: %w", r.Name, err)
		}
		if r.Proof != r.prove() {
			j.Keys[i].ID = 0 // the name will tell
		}
	}
	return j, nil
}

// check refuses records that this program cannot have written. A name must have our form and,
// where the secret is there, be the secret's: nobody who edits the file can make us revoke a key
// that is not ours.
func (r record) check() error {
	cut := len(r.Name) - len("-") - 20
	switch {
	case cut < 1 || !key.Named(r.Name[:cut], r.Name):
		return errors.New("not a name that this program gives")
	case r.Secret != "" && !r.Given && key.Name(r.Name[:cut], key.NewSecret(r.Secret)) != r.Name:
		return errors.New("name and secret do not belong together")
	case r.State != minting && r.State != minted && r.State != published && r.State != retiring:
		return fmt.Errorf("state %q", r.State)
	case r.Expiry.IsZero() || r.URL == "" || r.UserID <= 0 || r.ID < 0:
		return errors.New("expiry, URL or user is missing")
	case r.Kind != key.User && r.Kind != key.Fleet && r.Kind != key.Device:
		return fmt.Errorf("kind %q", r.Kind)
	}
	return nil
}

// prove returns the proof that belongs to the record's id and secret.
func (r record) prove() string {
	if r.ID == 0 || r.Secret == "" {
		return ""
	}
	m := hmac.New(sha256.New, []byte(r.Secret))
	_, _ = fmt.Fprintf(m, "%s %d", r.Name, r.ID)
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// save writes the journal as a whole. Secrets are kept only where the directory is in memory:
// there the app's own file shows no less.
func (j journal) save(dir *StateDir) error {
	if _, err := dir.Follow(); err != nil {
		return err
	}
	j.Keys = append([]record(nil), j.Keys...)
	for i := range j.Keys {
		j.Keys[i].Proof = j.Keys[i].prove()
		if !dir.KeepsSecrets() {
			j.Keys[i].Secret, j.Keys[i].Proof = "", ""
		}
	}
	raw, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	return dir.Replace(journalName(j.slot), append(raw, '\n'), 0o600)
}

// latest is the expiry that must be reckoned with.
func (r record) latest() time.Time {
	if r.Latest.After(r.Expiry) {
		return r.Latest
	}
	return r.Expiry
}

// key returns the record as the other packages see it.
func (r record) key() key.Key {
	return key.Key{ID: r.ID, Name: r.Name, Kind: r.Kind, Secret: key.NewSecret(r.Secret), Expiry: r.Expiry, UserID: r.UserID}
}
