package main

import (
	"os"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/sidecar"
)

// place finds the place that a command which only asks is about. The rest of the configuration does not matter: a
// template that is wrong must not keep anybody from asking how things are.
func (in *invocation) place() (config.Place, error) {
	plain, err := config.Locate(in.env, false)
	if err != nil || plain.Explicit || exists(plain.Dir) {
		return plain, err
	}
	// Nothing says where: exec has chosen a place by itself, with this environment or with another one.
	child, err := config.Locate(in.env, true)
	if err != nil || exists(child.Dir) {
		return child, err
	}
	return plain, nil
}

// placeToShow is place for a person who only looks: if nothing is there, an exec of another environment, if it is the
// only one.
func (in *invocation) placeToShow() (config.Place, error) {
	at, err := in.place()
	if err != nil || at.Explicit || exists(at.Dir) {
		return at, err
	}
	if others := sidecar.UsedPlaces(); len(others) == 1 {
		at.Dir = others[0]
	}
	return at, nil
}

// supervisedHere reports whether the state that is to be dealt with is that of an exec.
func (in *invocation) supervisedHere() bool {
	at, err := in.place()
	if err != nil {
		return false
	}
	plain, err := config.Locate(in.env, false)
	return err == nil && at.Dir != plain.Dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
