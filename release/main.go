// Command release makes all files of a release: for each program and platform an archive with the binary, its man page and
// its completions, and a list of what is compiled into it (CycloneDX); an image for all Linux platforms, as an OCI layout and
// as a file for `docker load`; and the checksums of all. The same source makes the same bytes, wherever and whenever.
//
//	go run . -version 1.2.3 -output dist       # as `make release` does
//	go run . -version 1.2.3 -push ghcr.io/balena-injector/injector
//
// It needs git and a source tree without changes, from which revision and time come.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release is one that is being made.
type release struct {
	version  string
	revision string
	created  time.Time // of the revision
	source   string
	output   string
}

func run(ctx context.Context) error {
	r := release{}
	flag.StringVar(&r.version, "version", "", "the release's `version`, such as 1.2.3")
	flag.StringVar(&r.source, "source", "..", "the source's `directory`")
	flag.StringVar(&r.output, "output", "", "the `directory` of the files, which must be empty or not be there")
	push := flag.String("push", "", "also push the images there, such as ghcr.io/owner/name; the `repository` gets the version as a tag")
	dirty := flag.Bool("allow-changes", false, "release a source tree that has changes, to try things out")
	flag.Parse()
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$`).MatchString(r.version) || r.output == "" || flag.NArg() > 0 {
		return errors.New("give -version 1.2.3 and -output DIR; see -help")
	}
	if err := r.identify(ctx, *dirty); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	for _, p := range programs() {
		if err := r.make(ctx, p, *push); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return r.sum()
}

// identify finds out what the source is.
func (r *release) identify(ctx context.Context, dirty bool) (err error) {
	if r.revision, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		return err
	}
	changes, err := r.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" && !dirty {
		return fmt.Errorf("the source has changes, which a release cannot name:\n%s", changes)
	}
	at, err := r.git(ctx, "log", "-1", "--format=%cI")
	if err != nil {
		return err
	}
	r.created, err = time.Parse(time.RFC3339, at)
	r.created = r.created.UTC()
	return err
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stderr = r.source, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (r *release) prepare() error {
	if err := os.MkdirAll(r.output, 0o755); err != nil {
		return err
	}
	left, err := os.ReadDir(r.output)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s is not empty", r.output)
	}
	return err
}

// make makes everything of one program.
func (r *release) make(ctx context.Context, p program, push string) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	extra, err := r.completions(ctx, p, work)
	if err != nil {
		return err
	}
	binaries := map[platform]string{}
	for _, on := range platforms() {
		fmt.Fprintf(os.Stderr, "release: %s for %s\n", p.name, on.name())
		binary := filepath.Join(work, on.name(), p.name)
		if err := r.build(ctx, p, on, binary); err != nil {
			return err
		}
		binaries[on] = binary
		if err := r.archive(p, on, binary, extra); err != nil {
			return err
		}
		if err := r.writeSBOM(p, on, binary); err != nil {
			return err
		}
	}
	if p.image == nil {
		return nil
	}
	return r.images(ctx, p, binaries, push)
}

// build compiles a program as everybody does, but that git's own word on the source is left to us.
func (r *release) build(ctx context.Context, p program, on platform, binary string) error {
	cmd := exec.CommandContext(ctx, "sh", p.build, binary)
	cmd.Dir, cmd.Stderr = r.source, os.Stderr
	cmd.Env = append(os.Environ(), "VERSION="+r.version, "REVISION="+r.revision, "GOFLAGS=-buildvcs=false")
	if on != (platform{}) {
		cmd.Env = append(cmd.Env, "GOOS="+on.os, "GOARCH="+on.arch, "GOARM="+on.variant)
	}
	return cmd.Run()
}

// completions are what the program, built for this machine, prints for each shell.
func (r *release) completions(ctx context.Context, p program, work string) ([]entry, error) {
	binary := filepath.Join(work, "here", p.name)
	if err := r.build(ctx, p, platform{}, binary); err != nil {
		return nil, err
	}
	var list []entry
	for shell, name := range map[string]string{"bash": p.name + ".bash", "zsh": "_" + p.name, "fish": p.name + ".fish"} {
		text, err := exec.CommandContext(ctx, binary, "completion", shell).Output()
		if err != nil {
			return nil, fmt.Errorf("completion %s: %w", shell, err)
		}
		list = append(list, entry{path: "completions/" + name, mode: 0o644, content: text})
	}
	return list, nil
}
