// Package render turns a key into the bytes that apps read, and puts them into files.
//
// All outputs of one generation are rendered before the first is replaced. A file is replaced as
// a whole, with its mode and owner from the first instant, and not at all when it would not
// change. Beside each output lies a public OUTPUT.json that tells generation and expiry.
package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/key"
)

// Owner is a numeric user and group; -1 leaves either as it is.
type Owner = rootdir.Owner

// Keep leaves files to the user and group that run the program.
var Keep = rootdir.Keep

// Output is one file that an app reads.
type Output struct {
	Path  string      // absolute
	Mode  fs.FileMode // permission bits, such as 0440
	Owner Owner       // Keep, or whom the file shall belong to
}

// infoMode is the mode of the OUTPUT.json files: they have nothing to hide.
const infoMode fs.FileMode = 0o444

// Config says what to write.
type Config struct {
	Outputs []Output
	OnDisk  bool // allow outputs on file systems that are not in memory
}

// Files writes the outputs of one key. It is safe for concurrent use.
type Files struct {
	cfg  Config
	mu   sync.Mutex
	dirs map[string]*rootdir.Dir
}

// New returns Files for cfg. It touches nothing.
func New(cfg Config) *Files { return &Files{cfg: cfg, dirs: map[string]*rootdir.Dir{}} }

// Close closes what Files holds open. The outputs stay.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	for path, d := range f.dirs {
		err = errors.Join(err, d.Close())
		delete(f.dirs, path)
	}
	return err
}

// dir returns the open directory of an output, opening it again if the path leads elsewhere by
// now. The caller holds mu.
func (f *Files) dir(path string) (*rootdir.Dir, error) {
	if d := f.dirs[path]; d != nil {
		if !d.Moved() {
			return d, nil
		}
		_ = d.Close()
		delete(f.dirs, path)
	}
	d, err := rootdir.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the output's directory %s does not exist: %s", path, mountHint(path))
		}
		return nil, fmt.Errorf("open the output's directory: %w", err)
	}
	if err := f.checkMemory(d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	f.dirs[path] = d
	return d, nil
}

func (f *Files) checkMemory(d *rootdir.Dir) error {
	if f.cfg.OnDisk {
		return nil
	}
	memory, err := d.InMemory()
	if err == nil && !memory {
		err = fmt.Errorf("%s is not in memory, and a key must not reach a disk: %s, or set INJECTOR_REQUIRE_TMPFS=false", d.Path(), mountHint(d.Path()))
	}
	return err
}

func mountHint(path string) string {
	return fmt.Sprintf("mount a tmpfs there (mkdir -p %s && mount -t tmpfs tmpfs %s, docker run --tmpfs %s, a Compose volume with driver_opts type tmpfs, a Kubernetes emptyDir with medium: Memory)", path, path, path)
}

// Prove tries out, without changing what apps see, that each output can be written where and as
// it shall be.
func (f *Files) Prove() error {
	return f.each(func(d *rootdir.Dir, path string, mode fs.FileMode, owner Owner) error {
		return d.Try(filepath.Base(path), mode, owner)
	})
}

// each calls do for every file: the outputs and what lies beside them. All are done, whatever
// fails.
func (f *Files) each(do func(d *rootdir.Dir, path string, mode fs.FileMode, owner Owner) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	for _, o := range f.cfg.Outputs {
		d, e := f.dir(filepath.Dir(o.Path))
		if e == nil {
			e = errors.Join(do(d, o.Path, o.Mode, o.Owner), do(d, infoPath(o.Path), infoMode, o.Owner))
		}
		err = errors.Join(err, e)
	}
	return err
}

// Publish makes all outputs show p. If one cannot be rendered or written, the error says which;
// those that were not replaced yet keep their last good bytes.
func (f *Files) Publish(p key.Publication) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Key.Secret.IsZero() {
		return errors.New("there is no secret to publish") // never an empty file
	}
	for _, o := range f.cfg.Outputs {
		if err := f.replace(o.Path, raw(p), o.Mode, o.Owner); err != nil {
			return err
		}
	}
	return nil
}

// raw renders the secret alone: its exact bytes, without a newline, which Go and Python clients
// would send along.
func raw(p key.Publication) []byte { return []byte(p.Key.Secret.Reveal()) }

func (f *Files) replace(path string, data []byte, mode fs.FileMode, owner Owner) error {
	d, err := f.dir(filepath.Dir(path))
	if err != nil {
		return err
	}
	if name := filepath.Base(path); !d.Holds(name, data, mode, owner) {
		return d.Replace(name, data, mode, owner)
	}
	return nil
}

// Info is the content of an OUTPUT.json.
type Info struct {
	Generation int       `json:"generation"` // 1 for the first key, one more for each that replaced it
	Name       string    `json:"name"`       // the key's, as the dashboard shows it
	Kind       key.Kind  `json:"kind"`
	Expiry     time.Time `json:"expiry"` // by the server's clock; extensions move it
}

// Describe writes p's generation and expiry beside the outputs, which stay as they are.
func (f *Files) Describe(p key.Publication) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := json.Marshal(Info{Generation: p.Generation, Name: p.Key.Name, Kind: p.Key.Kind, Expiry: p.Key.Expiry.UTC()})
	for _, o := range f.cfg.Outputs {
		err = errors.Join(err, f.replace(infoPath(o.Path), append(data, '\n'), infoMode, o.Owner))
	}
	return err
}

func infoPath(output string) string { return output + ".json" }

// Intact tells whether every output is what Publish(p) wrote, at the path where apps look.
func (f *Files) Intact(p key.Publication) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.cfg.Outputs {
		d, err := f.dir(filepath.Dir(o.Path))
		if err != nil || !d.Holds(filepath.Base(o.Path), raw(p), o.Mode, o.Owner) {
			return false
		}
	}
	return true
}

// Remove removes all outputs and what lies beside them.
func (f *Files) Remove() error {
	return f.each(func(d *rootdir.Dir, path string, _ fs.FileMode, _ Owner) error {
		if err := d.Remove(filepath.Base(path)); err != nil {
			return fmt.Errorf("remove %s: %w", path, errors.Unwrap(err))
		}
		return nil
	})
}

// Sweep removes what a process that was killed left half written. Nobody else may be writing.
func (f *Files) Sweep() error {
	return f.each(func(d *rootdir.Dir, path string, _ fs.FileMode, _ Owner) error {
		return d.Sweep(filepath.Base(path))
	})
}
