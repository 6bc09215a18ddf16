package statedir

import (
	"errors"
	"io/fs"

	"github.com/balena-injector/injector/internal/rootdir"
)

// File is one file of the state directory that others keep their notes in (a balena.Store).
func (s *Dir) File(name string) *File {
	return &File{name, s.Read, s.Replace}
}

// NewFile returns the file of that name in dir. It need not exist. One that somebody else wrote, or that is open to
// others, is not read.
func NewFile(dir *rootdir.Dir, name string) *File {
	return &File{name, dir.ReadOwn, func(name string, data []byte, mode fs.FileMode) error {
		return dir.Replace(name, data, mode, rootdir.Keep)
	}}
}

// File is a small private file.
type File struct {
	name    string
	read    func(name string, limit int) ([]byte, error)
	replace func(name string, data []byte, mode fs.FileMode) error
}

const maxFile = 64 << 10

// Load returns the file's bytes, nil without an error if there is no file.
func (f *File) Load() ([]byte, error) {
	data, err := f.read(f.name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Save replaces the file.
func (f *File) Save(data []byte) error { return f.replace(f.name, data, 0o600) }
