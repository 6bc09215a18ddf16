package rootdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// at puts the whole path into an error about name in d: os.Root names the last step only, and for the directory itself
// nothing but a dot.
func (d *Dir) at(name string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: p.Op, Path: filepath.Join(d.path, name), Err: p.Err}
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return &os.LinkError{Op: l.Op, Old: filepath.Join(d.path, name), New: l.New, Err: l.Err}
	}
	return err
}

// self opens the directory itself, to be read or synced.
func (d *Dir) self() (*os.File, error) {
	f, err := d.root.Open(".")
	return f, d.at("", err)
}

// Names lists what is in the directory, in no order.
func (d *Dir) Names() ([]string, error) {
	f, err := d.self()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	return names, d.at("", err)
}

// WithoutPath returns what is wrong with a path, without the operation and the path that the os package puts before it.
func WithoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
