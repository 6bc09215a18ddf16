package render

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/key"
)

// Info is the content of an OUTPUT.json. A reader that finds the same generation, and Changing
// false, in one OUTPUT.json before and after reading several outputs has read a single generation.
type Info struct {
	Generation int       `json:"generation"` // 1 for the first key, one more for each that replaced it
	Name       string    `json:"name"`       // the key's, as the dashboard shows it
	Kind       key.Kind  `json:"kind"`
	Expiry     time.Time `json:"expiry"` // by the server's clock; extensions move it
	// SecondsLeft is how much life the key had when this was written: with the file's time it tells,
	// whatever the clock says, whether it has expired.
	SecondsLeft int64 `json:"seconds_left"`
	Changing    bool  `json:"changing,omitempty"` // several outputs are being replaced at this moment
}

// maxInfo is how long an OUTPUT.json can be: an app may put anything in its place.
const maxInfo = 64 << 10

// ReadInfo reads what lies beside an output, which says what an app may have put there.
func ReadInfo(output string) (Info, error) {
	var info Info
	raw, err := rootdir.ReadFile(infoPath(output), maxInfo)
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	return info, err
}

// Age is how long ago what lies beside an output was written, by the local clock.
func Age(output string, now time.Time) time.Duration {
	info, err := os.Stat(infoPath(output))
	if err != nil {
		return now.Sub(time.Time{})
	}
	return now.Sub(info.ModTime())
}

func infoPath(output string) string { return output + ".json" }

// infoMode is the mode of the OUTPUT.json files: they have nothing to hide.
const infoMode fs.FileMode = 0o444

// Describe writes p's generation and expiry beside the outputs, which stay as they are.
func (f *Files) Describe(_ context.Context, p key.Publication) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.describe(p, false)
}

func (f *Files) describe(p key.Publication, changing bool) error {
	data, err := json.Marshal(Info{
		Generation:  p.Generation,
		Name:        p.Key.Name,
		Kind:        p.Key.Kind,
		Expiry:      p.Key.Expiry.UTC(),
		SecondsLeft: int64(p.Left.Seconds()),
		Changing:    changing,
	})
	for _, o := range f.cfg.Outputs {
		err = errors.Join(err, f.writeInfo(o, append(data, '\n')))
	}
	return err
}

func (f *Files) writeInfo(o Output, data []byte) error {
	d, err := f.dir(o)
	if err != nil {
		return err
	}
	if name := filepath.Base(infoPath(o.Path)); !d.Holds(name, data, infoMode, o.Owner) {
		return d.Replace(name, data, infoMode, o.Owner)
	}
	return nil
}
