package main

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// program is what a release has in it. A further one is a further entry here.
type program struct {
	name  string
	build string            // the script that builds it: OUTPUT, and VERSION, REVISION, GOOS, GOARCH, GOARM in its environment
	files map[string]string // what its archives have beside it, by path in the source
	// image is how its image runs; nil: it has none
	image *image
}

// image is what an image has beside the binary at /NAME, the licence and the certificates of the world's authorities.
type image struct {
	title, description string
	directories        map[string]int64 // their modes
	config             v1.Config
}

func programs() []program {
	return []program{injector()}
}

// injector's image is the one that the Dockerfile makes; a test compares the two.
func injector() program {
	return program{
		name:  "injector",
		build: "build.sh",
		files: map[string]string{"LICENSE": "LICENSE", "docs/injector.1": "injector.1", "CHANGELOG.md": "CHANGELOG.md"},
		image: &image{
			title:       "balena token injector",
			description: "Keeps one short-lived balena API key in a file in memory for an app beside it",
			directories: map[string]int64{"secrets": 0o1777},
			config: v1.Config{
				User:       "65532:65532",
				Entrypoint: []string{"/injector"},
				Cmd:        []string{"run"},
				StopSignal: "SIGTERM",
				Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/injector", "healthcheck", "--hold=1m"}, Interval: 2 * time.Second,
					Timeout: 75 * time.Second, Retries: 3},
			},
		},
	}
}

// platform is what a binary is built for.
type platform struct{ os, arch, variant string }

// platforms are those of binaries. Those of images are the Linux ones.
func platforms() []platform {
	return []platform{
		{"linux", "amd64", ""},
		{"linux", "arm64", ""},
		{"linux", "arm", "7"},
		{"linux", "arm", "6"},
		{"darwin", "amd64", ""},
		{"darwin", "arm64", ""},
	}
}

// name is the platform in files' names, such as linux_armv6.
func (p platform) name() string {
	if p.variant != "" {
		return p.os + "_" + p.arch + "v" + p.variant
	}
	return p.os + "_" + p.arch
}
