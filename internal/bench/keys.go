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

// What many keys should cost. consul-template was measured at 52 kB a key and 11.6 s of CPU for a thousand.
const (
	aimPerKey   = 15  // kB of resident memory beyond one key
	aimCPU      = 2.0 // milliseconds a key until all are written
	aimRequests = 2.1 // a key
)

var oneKey float64 // kB resident with one key

// measureNumbers is measureKeys for more and more keys.
func measureNumbers(binary, dir string) error {
	for _, keys := range []int{1, 100, 1000, 10000} {
		if err := measureKeys(binary, dir, keys); err != nil {
			return err
		}
	}
	return nil
}

// measureKeys starts one injector, whose request budgets are out of the way, with so many keys, and prints what it takes
// until every output is written, and to stop it.
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
	cmd.Env = append(cmd.Env, outputs(place, keys)...)
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
	time.Sleep(2 * time.Second) // garbage is collected
	kb, err := resident(cmd.Process.Pid)
	if err != nil {
		return err
	}
	if keys == 1 {
		oneKey = float64(kb)
	}
	requests, n := server.Count(""), float64(keys)
	fmt.Printf("%5d keys: all written after %.2f s and %.2f s of CPU, %d requests, resident %.1f MB\n", keys, took.Seconds(), cpu, requests,
		float64(kb)*1024/1e6)
	if keys > 1 {
		fmt.Printf("%5d keys: each %.1f kB (aim: %d), %.1f ms of CPU (aim: %.0f), %.2f requests (aim: %.1f)\n", keys,
			(float64(kb)-oneKey)/(n-1), aimPerKey, 1000*cpu/n, aimCPU, float64(requests)/n, aimRequests)
	}
	for wait := 0; keys > 1 && server.Count("find") < keys/100 && wait < 60; wait++ { // ids are read together, half a minute later
		time.Sleep(time.Second)
	}
	return measureEnd(cmd, server, keys)
}

// outputs gives so many keys a name and an output.
func outputs(place string, keys int) []string {
	var env, names []string
	for i := range keys {
		name := "k" + strconv.Itoa(i)
		names = append(names, name)
		env = append(env, "INJECTOR_"+strings.ToUpper(name)+"_OUTPUT="+filepath.Join(place, name))
	}
	return append(env, "INJECTOR_KEYS="+strings.Join(names, ","))
}

// measureEnd stops an injector, and prints what that takes.
func measureEnd(cmd *exec.Cmd, server *balenatest.Server, keys int) error {
	began, before := time.Now(), server.Count("")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the end of %d keys: %w", keys, err)
	}
	fmt.Printf("%5d keys: the stop took %.2f s and %d requests\n", keys, time.Since(began).Seconds(), server.Count("")-before)
	if live := len(server.Live()); live > 0 {
		return fmt.Errorf("%d keys are live after the end", live)
	}
	return nil
}

// written counts the outputs.
func written(dir string) int {
	entries, _ := os.ReadDir(dir)
	outputs := map[string]bool{} // while files are renamed, one can be listed twice
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "k") && !strings.HasSuffix(e.Name(), ".json") {
			outputs[e.Name()] = true
		}
	}
	return len(outputs)
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
