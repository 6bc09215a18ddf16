package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// aimPerKey and aimCPU are what a thousand keys should cost; consul-template was measured at 52 kB
// a key and 11.6 s.
const (
	aimPerKey = 25  // kB of resident memory beyond one key
	aimCPU    = 3.0 // seconds until all are written
)

var oneKey float64 // kB resident with one key

// measureKeys starts one injector with so many keys and prints what it takes until every output is
// written.
func measureKeys(binary, dir string, keys int) error {
	server := balenatest.New(balenatest.Options{})
	srv := httptest.NewServer(server)
	defer srv.Close()
	place := filepath.Join(dir, "keys-"+strconv.Itoa(keys))
	if err := os.Mkdir(place, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(binary, "run")
	cmd.Env = append(environment(server, srv.URL, ""), "INJECTOR_OUTPUT=", "INJECTOR_LOG_LEVEL=error", "INJECTOR_SHUTDOWN_TIMEOUT=60s")
	var names []string
	for i := range keys {
		name := "k" + strconv.Itoa(i)
		names = append(names, name)
		cmd.Env = append(cmd.Env, "INJECTOR_"+strings.ToUpper(name)+"_OUTPUT="+filepath.Join(place, name))
	}
	cmd.Env = append(cmd.Env, "INJECTOR_KEYS="+strings.Join(names, ","))
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill() }()
	for written(place) < keys {
		if time.Since(began) > 2*time.Minute {
			return fmt.Errorf("only %d of %d keys were written", written(place), keys)
		}
		time.Sleep(20 * time.Millisecond)
	}
	took, cpu := time.Since(began), processor(cmd.Process.Pid)
	time.Sleep(2 * time.Second) // the ids are read, and garbage is collected
	kb, err := resident(cmd.Process.Pid)
	if err != nil {
		return err
	}
	requests := server.Count("")
	if keys == 1 {
		oneKey = float64(kb)
	}
	perKey := ""
	if keys > 1 {
		perKey = fmt.Sprintf(", %.1f kB a key (aim: at most %d)", (float64(kb)-oneKey)/float64(keys-1), aimPerKey)
	}
	fmt.Printf("%4d keys: all written after %.2f s and %.2f s of CPU (aim at 1000: %.0f), %d requests, resident %.1f MB%s\n",
		keys, took.Seconds(), cpu, aimCPU, requests, float64(kb)*1024/1e6, perKey)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the end of %d keys: %w", keys, err)
	}
	if live := len(server.Live()); live > 0 {
		return fmt.Errorf("%d keys are live after the end", live)
	}
	return nil
}

// written counts the outputs.
func written(dir string) int {
	entries, _ := os.ReadDir(dir)
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "k") && !strings.HasSuffix(e.Name(), ".json") {
			n++
		}
	}
	return n
}

// processor returns how many seconds of CPU a process has used.
func processor(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) / 100
}
