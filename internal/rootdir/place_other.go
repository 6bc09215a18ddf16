//go:build !linux

package rootdir

import "os"

// openPlace opens the directory at path. On this system links that are planted at this very moment are followed.
func openPlace(path string) (*os.Root, error) { return os.OpenRoot(path) }
