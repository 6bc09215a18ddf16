package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

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
		if _, err := exec.LookPath(args[0]); err != nil {
			return configError{{"the command", "cannot be run: " + err.Error(), "give a program in PATH or the path of one"}}
		}
	}
	outputs, limit, err := in.waitFor()
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
			_, _ = fmt.Fprintf(in.stderr, "injector wait: waiting for %s: %s\n", short(limit), missing)
			said = missing
		}
		select {
		case <-time.After(waitPoll):
		case <-ctx.Done():
			if in.stop.Err() != nil {
				return errors.New("stopped while waiting: " + missing)
			}
			return fmt.Errorf("gave up after %s: %s", short(limit), missing)
		}
	}
	if len(args) == 0 {
		return nil
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", args[0], syscall.Exec(path, args, childEnviron()))
}

// waitFor reads what outputs to wait for, and for how long. The app's container has no credentials,
// and only this part of the configuration.
func (in *invocation) waitFor() ([]render.Output, time.Duration, error) {
	v, err := readVariables()
	if err != nil {
		return nil, 0, err
	}
	p := &parser{withoutFiles: true} // templates may lie in the injector's container only
	var s settings
	p.templates(&s, v)
	for _, name := range p.keyNames(v.Keys) {
		p.scope = scope{name}
		k := keySettings{Key: name}
		p.outputs(&s, &k, readKeyVariables(p.scope), false)
		s.Keys = append(s.Keys, k)
	}
	limit := p.duration("INJECTOR_INIT_TIMEOUT", v.InitTimeout, time.Second)
	if len(p.problems) > 0 {
		return nil, 0, configError(p.problems)
	}
	var outputs []render.Output
	for _, k := range s.Keys {
		outputs = append(outputs, k.Outputs...)
	}
	return outputs, limit, nil
}

// withoutFiles makes raw entries of templates that are no presets: only their destinations matter.
func withoutFiles(templates string) string {
	entries := splitList(templates)
	for i, e := range entries {
		source, rest, ok := strings.Cut(e, ":")
		if _, _, preset := render.LookUpPreset(source); ok && !preset {
			entries[i] = "raw:" + rest
		}
	}
	return strings.Join(entries, ",")
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
		about, err := readInfo(o.Path)
		switch {
		case err != nil || about.Generation < 1:
			return o.Path + ".json is not there yet"
		case about.Changing:
			return o.Path + " is being replaced"
		case now.Sub(modified(o.Path+".json")) >= time.Duration(about.SecondsLeft)*time.Second: // by our clock alone, which may be wrong
			return o.Path + " holds a key that has expired"
		}
	}
	return ""
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
