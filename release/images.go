package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// images writes PROGRAM_VERSION_image_PLATFORM.tar for `docker load`, and PROGRAM_VERSION_oci.tar with all in one index.
func (r *release) images(ctx context.Context, p program, binaries map[platform]string, push string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, on := range platforms() {
		if on.os != "linux" {
			continue
		}
		image, err := r.image(p, on, binaries[on])
		if err != nil {
			return err
		}
		tag, err := name.NewTag("balena-token-" + p.name + ":" + r.version)
		if err != nil {
			return err
		}
		if err := tarball.WriteToFile(r.file(p, "image_"+on.name()+".tar"), tag, image); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: on.platform()}})
	}
	if err := r.writeLayout(p, index); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "release: the image of %s is %s\n", p.name, digest)
	if push == "" {
		return nil
	}
	return r.push(ctx, push, index)
}

func (p platform) platform() *v1.Platform {
	on := &v1.Platform{OS: p.os, Architecture: p.arch}
	if p.variant != "" {
		on.Variant = "v" + p.variant
	}
	return on
}

// image is the program's image for one platform.
func (r *release) image(p program, on platform, binary string) (v1.Image, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	licence, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if err != nil {
		return nil, err
	}
	entries := []entry{
		{path: "etc/", mode: 0o755}, {path: "etc/ssl/", mode: 0o755}, {path: "etc/ssl/certs/", mode: 0o755},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: authorities()},
		{path: "licenses/", mode: 0o755}, {path: "licenses/LICENSE", mode: 0o644, content: licence},
		{path: p.name, mode: 0o755, content: program},
	}
	for directory, mode := range p.image.directories {
		entries = append(entries, entry{path: directory + "/", mode: mode})
	}
	var content bytes.Buffer
	if err := writeTar(&content, r.created, entries); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	added, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "release " + r.version},
	})
	if err != nil {
		return nil, err
	}
	config := p.image.config
	config.Labels = map[string]string{
		"org.opencontainers.image.title":       p.image.title,
		"org.opencontainers.image.description": p.image.description,
		"org.opencontainers.image.source":      "https://github.com/balena-injector/injector",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     r.version,
		"org.opencontainers.image.revision":    r.revision,
		"org.opencontainers.image.created":     r.created.Format(time.RFC3339),
	}
	file, err := added.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = on.os, on.arch, on.platform().Variant
	file.Config, file.Created = config, v1.Time{Time: r.created}
	return mutate.ConfigFile(added, file)
}

// authorities are the certificates that Mozilla trusts without conditions, which a file of them could not express.
func authorities() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return out.Bytes()
}

// writeLayout writes an index with its images as an OCI layout in a tar.
func (r *release) writeLayout(p program, index v1.ImageIndex) error {
	dir, err := os.MkdirTemp("", "release-oci-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := to.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version})); err != nil {
		return err
	}
	var entries []entry
	err = filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, file)
		entries = append(entries, entry{path: path.Clean(filepath.ToSlash(relative)), mode: 0o644, content: content})
		return err
	})
	if err != nil {
		return err
	}
	out, err := os.Create(r.file(p, "oci.tar"))
	if err != nil {
		return err
	}
	if err := writeTar(out, r.created, entries); err != nil {
		return err
	}
	return out.Close()
}

// push sends all to a registry, with the credentials that docker login has stored, and prints what to sign.
func (r *release) push(ctx context.Context, repository string, index v1.ImageIndex) error {
	tag, err := name.NewTag(repository + ":" + r.version)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(tag, index, remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push to %s: %w", tag, err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("pushed %s@%s\n", tag, digest)
	return nil
}
