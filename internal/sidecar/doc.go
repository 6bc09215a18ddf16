// Package sidecar is everything that belongs to one process, wired together: an agent for each key with its account and
// outputs, the state directory, probes, watchers, notifications, and the command of exec.
//
// It knows what the process does; the process itself (arguments, signals, exit codes) is cmd/injector's.
package sidecar
