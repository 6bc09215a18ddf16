package render

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/balena-injector/injector/key"
)

// changedError is why outputs are not intact that somebody touched.
type changedError struct{ path string }

func (c *changedError) Error() string {
	return c.path + " is missing or is not what was written; it is written again within half a minute"
}

// errStale is why outputs are not intact whose template is another now.
var errStale = errors.New("the templates were read again, and the outputs not yet made of them")

// Inspect returns nil if every output is what Publish(p) wrote, at the path where apps look; else why not. An expiry that
// has moved since does not matter.
func (f *Files) Inspect(_ context.Context, p key.Publication) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.outdated(); err != nil {
		return err
	}
	all := f.bytes
	if f.shown == nil || f.shown.Generation != p.Generation || !f.shown.Key.Secret.Equal(p.Key.Secret) {
		var err error
		if all, err = f.render(p); err != nil {
			return err
		}
	}
	if err := f.hold(all); err != nil {
		return err
	}
	f.shown, f.bytes = &p, all
	return nil
}

// Damage returns nil if every output is what was published or inspected last, or if nothing was; else why not.
func (f *Files) Damage() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown == nil {
		return nil
	}
	if err := f.outdated(); err != nil {
		return err
	}
	return f.hold(f.bytes)
}

// outdated returns why the outputs are to be made anew, whatever is in them. The caller holds mu.
func (f *Files) outdated() error {
	switch {
	case f.problem != nil:
		return f.problem
	case f.stale && f.failed != nil:
		return f.failed
	case f.stale:
		return errStale
	}
	return nil
}

// hold returns nil if the outputs are these bytes. The caller holds mu.
func (f *Files) hold(all [][]byte) error {
	for i, o := range f.cfg.Outputs {
		d, err := f.dir(o)
		if err != nil {
			return err
		}
		if !d.Holds(filepath.Base(o.Path), all[i], o.Mode, o.Owner) {
			return &changedError{o.Path}
		}
	}
	return nil
}

// Reload reads the templates' files again. An error keeps the outputs as they are, and Inspect and
// Publish return it until a later Reload finds good templates.
func (f *Files) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problem = nil
	for _, o := range f.cfg.Outputs {
		if o.Template == nil {
			continue
		}
		changed, err := o.Template.Load()
		if changed {
			f.stale, f.failed = true, nil // what could not be rendered was another template
		}
		f.problem = errors.Join(f.problem, err)
	}
	return f.problem
}

// Reread is Reload for all that templates read: what they include is read again, too, at the next Publish, which
// Inspect asks for.
func (f *Files) Reread() error {
	err := f.Reload()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = true
	return err
}

// Templates returns the files that templates come from, to be watched.
func (f *Files) Templates() []string {
	var list []string
	for _, o := range f.cfg.Outputs {
		if o.Template != nil && o.Template.Path() != "" {
			list = append(list, o.Template.Path())
		}
	}
	return list
}

// WithoutToken lists the outputs whose template makes the same of every token. They are rendered with examples.
func (f *Files) WithoutToken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	example := key.Draft("example", key.User, 1, time.Now())
	other := example
	other.Secret = key.NewSecret("another-" + example.Secret.Reveal())
	one, err := f.render(key.Publication{Generation: 1, Key: example})
	if err != nil {
		return nil
	}
	two, err := f.render(key.Publication{Generation: 1, Key: other})
	if err != nil {
		return nil
	}
	var list []string
	for i, o := range f.cfg.Outputs {
		if bytes.Equal(one[i], two[i]) {
			list = append(list, o.Path)
		}
	}
	return list
}
