package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/balena-injector/injector/balena/balenatest"
)

const (
	// idleFor is how long both do nothing: long enough for a check that the key lives, which comes every five minutes.
	idleFor = 5 * time.Minute
	// warmUp is what a start and its first garbage take.
	warmUp = 30 * time.Second
	// maxIdle is what an idle injector may take of a processor, in milliseconds a minute, and maxIdleRatio as many times
	// as a bare daemon.
	maxIdle      = 6
	maxIdleRatio = 3
)

// bareDaemon is what any daemon has: a timer of 30 s, a watched directory, a listener. It runs until it is killed.
func bareDaemon() error {
	dir := os.Getenv("BENCH_DIR")
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	if err := w.Add(dir); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "bare.sock"))
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, nil) }()
	for tick := time.NewTicker(30 * time.Second); ; {
		select {
		case <-tick.C:
		case <-w.Events:
		}
	}
}

// measureIdle lets an injector and a bare daemon do nothing, side by side.
func measureIdle(binary, dir string) error {
	server := balenatest.New(balenatest.Options{})
	srv := httptest.NewServer(server)
	defer srv.Close()
	place := filepath.Join(dir, "idle")
	login := filepath.Join(place, "login")
	if err := os.MkdirAll(login, 0o700); err != nil {
		return err
	}
	password := filepath.Join(login, "password")
	if err := os.WriteFile(password, []byte(server.DefaultUser().Password), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours := exec.Command(binary, "run")
	ours.Env = []string{"BALENA_API_URL=" + srv.URL, "BALENA_USERNAME=" + server.DefaultUser().Name, "BALENA_PASSWORD_FILE=" + password,
		"INJECTOR_OUTPUT=" + filepath.Join(place, "token"), "INJECTOR_LISTEN=127.0.0.1:0", "INJECTOR_LOG_LEVEL=error"}
	bare := exec.Command(self, "bare-daemon")
	bare.Env = []string{"BENCH_DIR=" + login}
	for _, cmd := range []*exec.Cmd{ours, bare} {
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	time.Sleep(warmUp)
	before := [2]time.Duration{processorTime(ours.Process.Pid), processorTime(bare.Process.Pid)}
	time.Sleep(idleFor)
	a, b := processorTime(ours.Process.Pid)-before[0], processorTime(bare.Process.Pid)-before[1]
	perMinute, ratio := ms(a)/idleFor.Minutes(), float64(a)/float64(b)
	fmt.Printf("idle for %v: %.1f ms of a processor a minute (at most %d), a bare daemon %.1f ms, ratio %.1f (at most %d)\n",
		idleFor, perMinute, maxIdle, ms(b)/idleFor.Minutes(), ratio, maxIdleRatio)
	if err := ours.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if perMinute > maxIdle || ratio > maxIdleRatio {
		return errors.New("idling costs too much")
	}
	return nil
}

// processorTime is what all threads of a process have used.
func processorTime(pid int) (all time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range threads {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if n, err := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64); err == nil {
			all += time.Duration(n)
		}
	}
	return all
}
