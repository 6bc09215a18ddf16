package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is a file or, with a slash at its path's end, a directory in an archive.
type entry struct {
	path    string
	mode    int64
	content []byte
}

// writeTar writes entries by their paths, each of root's and of one time, so that the bytes depend on nothing else.
func writeTar(w io.Writer, at time.Time, entries []entry) error {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return cmp.Compare(a.path, b.path) })
	tw := tar.NewWriter(w)
	for _, e := range entries {
		head := &tar.Header{Name: e.path, Mode: e.mode, Size: int64(len(e.content)), ModTime: at, Typeflag: tar.TypeReg,
			Format: tar.FormatPAX}
		if strings.HasSuffix(e.path, "/") {
			head.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(head); err != nil {
			return err
		}
		if _, err := tw.Write(e.content); err != nil {
			return err
		}
	}
	return tw.Close()
}

// archive writes PROGRAM_VERSION_PLATFORM.tar.gz.
func (r *release) archive(p program, on platform, binary string, extra []entry) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	entries := append([]entry{{path: p.name, mode: 0o755, content: content}}, extra...)
	for from, to := range p.files {
		content, err := os.ReadFile(filepath.Join(r.source, from))
		if err != nil {
			return err
		}
		entries = append(entries, entry{path: to, mode: 0o644, content: content})
	}
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writeTar(zip, r.created, entries); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return os.WriteFile(r.file(p, on.name()+".tar.gz"), out.Bytes(), 0o644)
}

// file is the path of one of a program's files.
func (r *release) file(p program, rest string) string {
	return filepath.Join(r.output, p.name+"_"+r.version+"_"+rest)
}

// sum writes SHA256SUMS, which sha256sum -c reads.
func (r *release) sum() error {
	files, err := os.ReadDir(r.output) // by their names
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(r.output, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), f.Name())
	}
	fmt.Print(sums.String())
	return os.WriteFile(filepath.Join(r.output, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
