package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/balena-injector/injector/balena/balenatest"
)

// A place is where ours and a bare program run in turn: they have one server, one output and one environment.
type place struct {
	server *balenatest.Server
	output string
	env    []string
	self   string // this program, which is the bare one too
	close  func()
}

// newPlace makes a place with its output in dir, which it creates.
func newPlace(dir string) (*place, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	server := balenatest.New(balenatest.Options{})
	srv := httptest.NewServer(server)
	output := filepath.Join(dir, "token")
	return &place{server: server, output: output, env: environment(server, srv.URL, output), self: self, close: srv.Close}, nil
}
