//go:build !crash

// Package crashpoint marks the places in file work where a crash would leave something half
// done. It does nothing, but in binaries built with the tag crash, for the crash tests.
package crashpoint

// Here does nothing.
func Here(string) {}
