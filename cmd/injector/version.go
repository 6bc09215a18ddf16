package main

import (
	"fmt"
	"runtime/debug"
)

// release is set by the linker for released binaries.
var release string

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

func runVersion(in *invocation) error {
	if err := in.flags("version", nil); err != nil {
		return err
	}
	_, err := fmt.Fprintln(in.stdout, "injector", version())
	return err
}
