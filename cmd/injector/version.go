package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release and commit are set by the linker where the Go toolchain cannot know them: in released binaries and in images.
var release, commit string

// version returns the release, or what the Go toolchain knows of the build.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// revision returns the commit that the program was built from, or "" if nobody knows.
func revision() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

func runVersion(in *invocation) error {
	if err := in.flags("version", nil); err != nil {
		return err
	}
	from := "unknown revision"
	if r := revision(); r != "" {
		from = "revision " + r
	}
	_, err := fmt.Fprintf(in.stdout, "injector %s (%s, %s, %s/%s)\n", version(), from, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
