//go:build !linux

package child

import "errors"

// adoptOrphans is not possible on this system.
func adoptOrphans() error { return errors.ErrUnsupported }
