package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/balena-injector/injector/key"
)

// storedJournal is a journal as its bytes have it.
type storedJournal struct {
	journal
	Keys []storedRecord `json:"keys"`
}

// storedRecord is a record as its bytes have it: the only place where its secrets are text.
type storedRecord struct {
	record
	Secret string `json:"secret,omitempty"` // only in a store that keeps secrets, as Handle
	Handle string `json:"handle,omitempty"`
}

// encode returns the journal's bytes. Without its secret, a key is proven by a mark that takes the credential to make.
func (j journal) encode(secrets bool, mark func(string) (string, bool)) ([]byte, error) {
	s := storedJournal{journal: j, Keys: []storedRecord{}}
	for _, r := range j.Keys {
		out := storedRecord{record: r}
		if secrets {
			out.Secret, out.Handle = r.Secret.Reveal(), r.Handle.Reveal()
		}
		if out.Secret == "" || r.Given {
			if m, worked := mark(r.Name); worked || r.Mark == "" { // a typo in a file must not unmake what was proven
				out.Mark = m
			}
		}
		s.Keys = append(s.Keys, out)
	}
	raw, err := json.MarshalIndent(s, "", " ")
	return append(raw, '\n'), err
}

// parseJournal reads and checks a journal.
func parseJournal(raw []byte) (journal, error) {
	var s storedJournal
	if err := json.Unmarshal(raw, &s); err != nil {
		return journal{}, fmt.Errorf("not the JSON of a journal: %w", err)
	}
	j := s.journal
	if j.Version != journalVersion {
		return journal{}, fmt.Errorf("version %d, and this program knows version %d", j.Version, journalVersion)
	}
	for _, in := range s.Keys {
		r := in.record
		r.Secret, r.Handle = key.NewSecret(in.Secret), key.NewSecret(in.Handle)
		if err := r.check(); err != nil {
			return journal{}, fmt.Errorf("key %q: %w", r.Name, err)
		}
		j.Keys = append(j.Keys, r)
	}
	return j, nil
}

// errSetAside is wrapped by errors about a journal that cannot be used.
var errSetAside = errors.New("the journal cannot be used")

// loadJournal reads the journal; an empty one if there is none. One that is corrupt or of another version is set aside,
// and reported with errSetAside.
func loadJournal(ctx context.Context, store Store) (journal, error) {
	empty := journal{Version: journalVersion}
	raw, err := store.Load(ctx)
	if err == nil && raw == nil {
		return empty, nil
	}
	if err == nil {
		var j journal
		if j, err = parseJournal(raw); err == nil {
			return j, nil
		}
	}
	where, e := store.SetAside(ctx)
	if e != nil {
		return empty, fmt.Errorf("%w: %w; it could not be set aside: %w", errSetAside, err, e)
	}
	return empty, fmt.Errorf("%w: %w; it was set aside as %s, and keys that it named die at their expiry", errSetAside, err, where)
}
