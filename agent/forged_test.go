package agent_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestAForgedRecord has somebody who may write the state directory and adds a record of another injector's key, in all
// the forms that a journal knows. That key is not touched, and ours are kept and revoked as ever.
func TestAForgedRecord(t *testing.T) {
	for name, forge := range map[string]func(r map[string]any){
		"without a secret":       func(r map[string]any) { delete(r, "secret") },
		"with a given secret":    func(r map[string]any) { r["secret"], r["given"] = "0123456789abcdef", true },
		"with the mark of ours":  func(r map[string]any) { delete(r, "secret") }, // which is there on a disk
		"as a mint on its way":   func(r map[string]any) { delete(r, "secret"); r["state"] = "minting" },
		"as what the app reads":  func(r map[string]any) { delete(r, "secret"); r["state"] = "published" },
		"with somebody's own id": func(r map[string]any) { delete(r, "secret"); delete(r, "minted") },
	} {
		for _, onDisk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, on a disk %v", name, onDisk), func(t *testing.T) {
				inWorld(t, balenatest.Options{}, func(w *world) {
					w.onDisk = onDisk
					expiry := time.Now().Add(1000 * time.Hour).UTC()
					victim := w.server.AddKey(w.server.DefaultUser(), key.Name("test", key.NewSecret("another injector's")), expiry)
					l := w.run()
					w.published(time.Second)
					l.handOver()
					w.forge(func(r map[string]any) {
						r["name"], r["id"], r["state"] = victim.Name, victim.ID, "retiring"
						forge(r)
					})
					l = w.run()
					w.sleep(2 * time.Hour)
					w.wantGood()
					w.wantLog("does not prove that it is ours")
					if _, err := l.end(); err != nil {
						t.Error(err)
					}
					if live := w.server.Live(); len(live) != 1 || live[0].ID != victim.ID || !live[0].Expiry.Equal(expiry) {
						t.Errorf("live: %+v", live)
					}
				})
			})
		}
	}
}

// forge adds a record to the journal, which is a changed copy of the first one.
func (w *world) forge(change func(r map[string]any)) {
	w.t.Helper()
	path := filepath.Join(w.dir, ".injector", "journal.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	var j map[string]any
	if err := json.Unmarshal(raw, &j); err != nil {
		w.t.Fatal(err)
	}
	list := j["keys"].([]any)
	forged := map[string]any{}
	maps.Copy(forged, list[0].(map[string]any))
	change(forged)
	j["keys"] = append(list, forged)
	if raw, err = json.Marshal(j); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestAnotherPasswordOnADisk has a record without a secret whose mark was made with the password before: nothing proves
// it any more, so it is named and left to expire. Once it is marked anew, it is revoked as ever.
func TestAnotherPasswordOnADisk(t *testing.T) {
	inWorld(t, balenatest.Options{}, func(w *world) {
		w.onDisk = true
		u := w.server.DefaultUser()
		l := w.run()
		first := w.published(time.Second)
		l.handOver()
		w.server.ChangePassword(u, "another password")
		w.usePassword(u.Name, "another password")
		l = w.run()
		w.sleep(time.Minute)
		w.wantLog("the credential is another one since")
		if !w.server.Accepts(first) {
			t.Error("a key was revoked that nothing proves to be ours")
		}
		w.sleep(time.Hour)
		w.wantLive(1)
		l.handOver()
		l = w.run()
		w.sleep(time.Minute)
		w.wantLive(1) // the one before was revoked
		l.endWell()
		if strings.Contains(w.log.String(), "another password") {
			t.Error("the log shows the password")
		}
	})
}
