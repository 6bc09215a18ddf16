package agent

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/key"
)

func goodRecord() record {
	k := key.Draft("test", key.User, 7, time.Now().Add(time.Hour).UTC())
	return record{
		Name:    k.Name,
		Secret:  k.Secret,
		ID:      42,
		State:   published,
		Expiry:  k.Expiry,
		Created: time.Now().UTC(),
		URL:     "https://x",
		UserID:  7,
		Kind:    key.User,
	}
}

func encode(t testing.TB, version int, records ...record) []byte {
	t.Helper()
	raw, err := journal{Version: version, Keys: records}.encode(true, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseJournal(t *testing.T) {
	good := goodRecord()
	j, err := parseJournal(encode(t, journalVersion, good))
	if err != nil || len(j.Keys) != 1 || j.Keys[0].ID != 42 {
		t.Fatalf("%+v, %v", j, err)
	}
	for name, change := range map[string]func(r *record){
		"another name":      func(r *record) { r.Name = "somebody's" },
		"name of our form":  func(r *record) { r.Name = "test-00000000000000000000" },
		"another secret":    func(r *record) { r.Secret = key.NewSecret("0") },
		"unknown state":     func(r *record) { r.State = "x" },
		"no expiry":         func(r *record) { r.Expiry = time.Time{} },
		"no server":         func(r *record) { r.URL = "" },
		"no user":           func(r *record) { r.UserID = 0 },
		"negative id":       func(r *record) { r.ID = -1 },
		"unknown kind":      func(r *record) { r.Kind = "x" },
		"a name of nothing": func(r *record) { r.Name = "" },
	} {
		r := good
		change(&r)
		if _, err := parseJournal(encode(t, journalVersion, r)); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if _, err := parseJournal(encode(t, journalVersion+1, good)); err == nil {
		t.Error("another version passes")
	}
}

// TestWhatARecordProves has records of keys that are not ours, whose writer does not have the credential.
func TestWhatARecordProves(t *testing.T) {
	mark := func(text string) (string, bool) { return "mark of " + text, true }
	good := goodRecord()
	if !good.proven(mark) {
		t.Error("name and secret do not prove a record")
	}
	for name, change := range map[string]func(r *record){
		"no secret":              func(r *record) { r.Secret = key.Secret{} },
		"a given secret":         func(r *record) { r.Given = true },
		"another's mark":         func(r *record) { r.Secret, r.Mark = key.Secret{}, "mark of somebody's" },
		"an unreadable password": func(r *record) { r.Secret = key.Secret{} },
	} {
		r := good
		change(&r)
		if r.proven(mark) || r.proven(func(string) (string, bool) { return "", false }) {
			t.Errorf("%s proves a record", name)
		}
		if r.Mark, _ = mark(r.Name); !r.proven(mark) {
			t.Errorf("%s: the mark does not prove it", name)
		}
	}
}

// TestSecretsAreTextOnlyInTheirBytes prints records, and encodes them for a store that keeps secrets and for one that does
// not: what only the key's source can read is as secret as the key.
func TestSecretsAreTextOnlyInTheirBytes(t *testing.T) {
	r := goodRecord()
	r.Handle = key.NewSecret("a lease of the source")
	secrets := []string{r.Secret.Reveal(), r.Handle.Reveal()}
	j := journal{Version: journalVersion, Keys: []record{r}}
	kept, err := j.encode(true, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	cut, err := j.encode(false, func(name string) (string, bool) { return "mark of " + name, true })
	if err != nil {
		t.Fatal(err)
	}
	direct, _ := json.Marshal(j)
	for _, secret := range secrets {
		if !strings.Contains(string(kept), secret) {
			t.Errorf("a store that keeps secrets has lost %q", secret)
		}
		for _, text := range []string{string(cut), string(direct), fmt.Sprintf("%v %+v %#v %v", r, r, r, j.Keys)} {
			if strings.Contains(text, secret) {
				t.Errorf("it shows %q: %s", secret, text)
			}
		}
	}
	back, err := parseJournal(kept)
	if err != nil || !back.Keys[0].key().Secret.Equal(r.Secret) || !back.Keys[0].key().Handle.Equal(r.Handle) {
		t.Errorf("%+v, %v", back, err)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(encode(f, journalVersion, goodRecord()))
	f.Add([]byte(`{"version":1,"keys":[{}]}`))
	f.Add([]byte(`{"version":1,"keys":null}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := parseJournal(raw)
		if err != nil {
			return
		}
		for _, r := range j.Keys {
			if err := r.check(); err != nil {
				t.Errorf("a record passes that is wrong: %v", err)
			}
		}
	})
}
