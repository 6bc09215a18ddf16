//go:build !linux

package main

// protect does nothing on this system.
func protect() {}
