// Package render turns a key into the bytes that apps read, and puts them into files.
//
// All outputs of one generation are rendered and written before the first is put in its place. A
// file is replaced as a whole, with its mode and owner from the first instant, and not at all when
// it would not change. Beside each output lies a public OUTPUT.json that tells generation and
// expiry, and whether the outputs are being replaced at this moment.
package render

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/key"
)

// Owner is a numeric user and group; -1 leaves either as it is. The zero value is root, so give Keep where nobody is
// meant.
type Owner = rootdir.Owner

// Keep is the Owner {-1, -1}: files stay with the user and group that run the program. It must not be changed.
var Keep = rootdir.Keep

// Output is one file that an app reads.
type Output struct {
	Path     string      // absolute
	Mode     fs.FileMode // permission bits, such as 0440; 0 lets nobody read it
	Owner    Owner       // Keep, or the user and group that the file is to belong to; the zero value is root
	Template *Template   // what is in it; nil: the secret's exact bytes
	MakeDir  bool        // make its directory if that is missing
}

// Config says what to write.
type Config struct {
	Outputs []Output // may be empty: then nothing is written
	Dirs    *Dirs    // required with outputs; shared by the Files of several keys
	About   About    // for templates
}

// Files writes the outputs of one key. It is safe for concurrent use. Make it with New. Its methods do not wait for their
// contexts: what is written lies in memory.
type Files struct {
	cfg Config

	mu      sync.Mutex
	shown   *key.Publication // what was published last in this process
	bytes   [][]byte         // what that was, an element for each output
	stale   bool             // a template has changed since
	failed  error            // why the last Publish could not render
	problem error            // why a template cannot be used
}

// New returns Files for cfg. It touches nothing.
func New(cfg Config) *Files { return &Files{cfg: cfg} }

// Prove checks that every output can be rendered and written, without changing what apps see.
func (f *Files) Prove(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	example := key.Draft("example", key.User, 1, time.Now())
	example.ID = 1
	if _, err := f.render(key.Publication{Generation: 1, Key: example}); err != nil {
		return err
	}
	return f.each(func(d *rootdir.Dir, path string, mode fs.FileMode, owner Owner) error {
		return d.Try(filepath.Base(path), mode, owner)
	})
}

// each calls do for every file: the outputs and what lies beside them. All are done, whatever
// fails. The caller holds mu.
func (f *Files) each(do func(d *rootdir.Dir, path string, mode fs.FileMode, owner Owner) error) error {
	var err error
	for _, o := range f.cfg.Outputs {
		d, e := f.dir(o)
		if e == nil {
			e = errors.Join(do(d, o.Path, o.Mode, o.Owner), do(d, infoPath(o.Path), infoMode, o.Owner))
		}
		err = errors.Join(err, e)
	}
	return err
}

// eachThere is each for the outputs whose directories exist.
func (f *Files) eachThere(do func(d *rootdir.Dir, path string, mode fs.FileMode, owner Owner) error) error {
	there := &Files{cfg: f.cfg}
	there.cfg.Outputs = slices.DeleteFunc(slices.Clone(f.cfg.Outputs), func(o Output) bool {
		dir, get := filepath.Dir(o.Path), f.cfg.Dirs.get
		if o.MakeDir {
			get = f.cfg.Dirs.parent
		}
		_, err := get(dir)
		return errors.Is(err, fs.ErrNotExist)
	})
	return there.each(do)
}

func (f *Files) dir(o Output) (*rootdir.Dir, error) {
	path := filepath.Dir(o.Path)
	if o.MakeDir {
		return f.cfg.Dirs.getIn(path, o.Owner)
	}
	return f.cfg.Dirs.get(path)
}

// render returns the bytes of every output. The caller holds mu.
func (f *Files) render(p key.Publication) ([][]byte, error) {
	if f.problem != nil {
		return nil, f.problem
	}
	if p.Key.Secret.IsZero() {
		return nil, errors.New("there is no secret to publish") // never an empty file
	}
	view := f.cfg.About.view(p)
	all := make([][]byte, len(f.cfg.Outputs))
	for i, o := range f.cfg.Outputs {
		if all[i] = []byte(view.Token); o.Template == nil {
			continue // without a newline, which Go and Python clients would send along
		}
		var err error
		if all[i], err = o.Template.render(view); err != nil {
			return nil, fmt.Errorf("render %s: %w", o.Path, err)
		}
	}
	return all, nil
}

// Publish makes all outputs show p. All are rendered, written and checked before the first takes its name, so that a
// failure until then changes nothing. If taking a name fails, which only a change in the directory at that moment can
// cause, the outputs before it show p already; with several outputs of a new generation their OUTPUT.json then say that
// they are changing, until Publish succeeds. Outputs that would not change are left alone.
func (f *Files) Publish(_ context.Context, p key.Publication) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := f.render(p)
	if f.failed = err; err != nil {
		return err
	}
	staged, err := f.stage(all)
	if err != nil {
		return err
	}
	if len(f.cfg.Outputs) > 1 && len(staged) > 0 && (f.shown == nil || f.shown.Generation != p.Generation) {
		if err := f.describe(p, true); err != nil {
			return errors.Join(err, discard(staged))
		}
	}
	for i, s := range staged {
		if err := s.Commit(); err != nil {
			return errors.Join(err, discard(staged[i+1:]))
		}
	}
	f.shown, f.bytes, f.stale = &p, all, false
	return nil
}

// stage writes what has changed, beside the files that are there.
func (f *Files) stage(all [][]byte) (staged []*rootdir.Staged, err error) {
	for i, o := range f.cfg.Outputs {
		d, err := f.dir(o)
		if err != nil {
			return nil, errors.Join(err, discard(staged))
		}
		name := filepath.Base(o.Path)
		if d.Holds(name, all[i], o.Mode, o.Owner) {
			continue
		}
		s, err := d.Stage(name, all[i], o.Mode, o.Owner)
		if err != nil {
			return nil, errors.Join(err, discard(staged))
		}
		staged = append(staged, s)
	}
	for _, s := range staged {
		if err := s.Check(); err != nil { // before the first takes its place
			return nil, errors.Join(err, discard(staged))
		}
	}
	return staged, nil
}

func discard(staged []*rootdir.Staged) error {
	var err error
	for _, s := range staged {
		err = errors.Join(err, s.Discard())
	}
	return err
}

// Remove removes all outputs and what lies beside them. A missing directory is not an error.
func (f *Files) Remove(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.eachThere(func(d *rootdir.Dir, path string, _ fs.FileMode, _ Owner) error {
		if err := d.Remove(filepath.Base(path)); err != nil {
			return fmt.Errorf("remove %s: %w", path, errors.Unwrap(err))
		}
		return nil
	})
}

// Sweep removes what a process that was killed left half written. Nobody else may be writing.
func (f *Files) Sweep(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	for _, o := range f.cfg.Outputs {
		if dir := filepath.Dir(o.Path); o.MakeDir {
			if parent, e := f.cfg.Dirs.parent(dir); e == nil {
				err = errors.Join(err, parent.Sweep(filepath.Base(dir)))
			}
		}
	}
	return errors.Join(err, f.each(func(d *rootdir.Dir, path string, _ fs.FileMode, _ Owner) error {
		return d.Sweep(filepath.Base(path))
	}))
}
