package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

const waitPoll = 100 * time.Millisecond

// runWait blocks until every output is published, and then becomes the command, if there is one.
func runWait(in *invocation) error {
	var args []string
	if len(in.args) > 0 {
		var err error
		if args, err = in.command("wait"); err != nil {
			return err
		}
		if err := lookPath(args[0]); err != nil {
			return err
		}
	}
	outputs, limit, err := config.Awaited(in.env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(in.stop, limit)
	defer cancel()
	for said := ""; ; {
		missing := unpublished(outputs, time.Now())
		if missing == "" {
			break
		}
		if missing != said {
			_, _ = fmt.Fprintf(in.stderr, "injector wait: waiting for %s: %s\n", words.Short(limit), missing)
			said = missing
		}
		select {
		case <-time.After(waitPoll):
		case <-ctx.Done():
			if in.stop.Err() != nil {
				return errors.New("stopped while waiting: " + missing)
			}
			return fmt.Errorf("gave up after %s: %s", words.Short(limit), missing)
		}
	}
	if len(args) == 0 {
		return nil
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", args[0], syscall.Exec(path, args, in.env.ForChild()))
}

// unpublished says what is missing, or "".
func unpublished(outputs []render.Output, now time.Time) string {
	for _, o := range outputs {
		if dir := filepath.Dir(o.Path); !exists(dir) {
			return "there is no directory " + dir + " here: mount the injector's volume there"
		}
		info, err := os.Stat(o.Path)
		if err != nil || info.Size() == 0 {
			return o.Path + " is not there yet"
		}
		about, err := render.ReadInfo(o.Path)
		switch {
		case err != nil || about.Generation < 1:
			return o.Path + ".json is not there yet"
		case about.Changing:
			return o.Path + " is being replaced"
		case render.Age(o.Path, now) >= time.Duration(about.SecondsLeft)*time.Second: // by our clock alone, which may be wrong
			return o.Path + " holds a key that has expired"
		}
	}
	return ""
}
