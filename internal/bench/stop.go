package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

const (
	maxDeadRatio = 1.3 // SIGTERM to dead key, beside a bare program
	maxEndRatio  = 1.8 // SIGTERM to exit
)

// measureStop compares the time from SIGTERM to a dead key and to the exit with that of a bare program.
func measureStop(binary, dir string) error {
	p, err := newPlace(filepath.Join(dir, "stop"))
	if err != nil {
		return err
	}
	defer p.close()
	var dead, end [2][]time.Duration
	for range runs {
		for i, args := range [][]string{{binary, "run"}, {p.self, "bare-life"}} {
			a, b, err := timeStop(p.server, args, p.env, p.output)
			if err != nil {
				return err
			}
			dead[i], end[i] = append(dead[i], a), append(end[i], b)
		}
	}
	for _, c := range []struct {
		what  string
		times [2][]time.Duration
		limit float64
	}{{"SIGTERM to dead key", dead, maxDeadRatio}, {"SIGTERM to exit", end, maxEndRatio}} {
		compare(c.what, c.times[0], c.times[1], c.limit)
	}
	return nil
}

// timeStop runs a program until its key is there and a moment longer, stops it, and returns how long it takes until the
// server refuses the key, and until the process has ended.
func timeStop(server *balenatest.Server, args, env []string, output string) (dead, end time.Duration, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { _ = cmd.Process.Kill() }()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(output); err == nil {
			break
		}
		if time.Since(began) > 10*time.Second {
			return 0, 0, errors.New("no key was published")
		}
	}
	time.Sleep(100 * time.Millisecond) // the id is read
	secret, err := os.ReadFile(output)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, err
	}
	for server.Accepts(string(secret)) {
		if time.Since(began) > 10*time.Second {
			return 0, 0, errors.New("the key was not revoked")
		}
		time.Sleep(20 * time.Microsecond)
	}
	dead = time.Since(began)
	err = cmd.Wait()
	return dead, time.Since(began), err
}

// compare prints the medians of ours and of a bare program, and whether they keep the limit.
func compare(what string, ours, bare []time.Duration, limit float64) {
	a, b := median(ours), median(bare)
	ratio := float64(a) / float64(b)
	note := ""
	if ratio > limit {
		note = ": MISSED"
	}
	fmt.Printf("%s: %.2f ms, a bare program %.2f ms, ratio %.2f of medians of %d (at most %.2f)%s\n", what, ms(a), ms(b), ratio, runs,
		limit, note)
}
