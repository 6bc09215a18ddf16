package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/balena-injector/injector/internal/config"
)

// runInstall copies the program into a directory, for exec and wait inside other images.
func runInstall(in *invocation) error {
	if len(in.args) != 1 || in.args[0] == "" || in.args[0][0] == '-' {
		if err := in.flags("install", func(*flag.FlagSet) {}); err != nil {
			return err
		}
		return config.Problems{{Variable: "injector install", Rule: "needs one directory", Fix: "such as: injector install /opt/injector"}}
	}
	target := filepath.Join(in.args[0], "injector")
	if err := installSelf(target); err != nil {
		return fmt.Errorf("install as %s: %w", target, err)
	}
	_, err := fmt.Fprintln(in.stdout, target)
	return err
}

// installSelf copies this program, as a whole: others may be starting the last copy just then.
func installSelf(target string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.CreateTemp(filepath.Dir(target), ".injector-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(to.Name()))
		}
	}()
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Chmod(0o755), to.Close()); err != nil {
		return err
	}
	return os.Rename(to.Name(), target)
}
