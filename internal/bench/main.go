// Command bench measures what the project promises about its weight: how long a start takes
// until the file is there, beside a bare program that sends the same requests; how much memory
// the sidecar has after a thousand extensions over HTTPS; what it costs while nothing happens; what many keys cost;
// and how large the binary, the image and a running container are. It fails if a limit is exceeded.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

const (
	runs       = 40
	extensions = 1000

	maxStartRatio = 1.15 // start to file, beside a bare program that sends the same requests
	maxCPURatio   = 1.6  // processor time of init
	maxMB         = 12.5 // resident after the extensions
	maxSizeMB     = 10.5 // the binary
	maxImageMB    = 11
)

func main() {
	if len(os.Args) > 1 {
		work := map[string]func() error{"bare": bare, "bare-life": bareLife, "bare-daemon": bareDaemon, "keys": onlyKeys}[os.Args[1]]
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("/dev/shm", "injector-bench-")
	if err != nil {
		return fmt.Errorf("a tmpfs at /dev/shm is needed: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join("bin", "injector")
	if err := build(binary, ""); err != nil {
		return err
	}
	endless := filepath.Join("bin", "injector-bench")
	if err := build(endless, "bench"); err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	size := float64(info.Size()) / 1e6
	fmt.Printf("binary, stripped: %.2f MB (at most %.1f)\n", size, maxSizeMB)
	if err := errors.Join(measureStart(binary, dir), measureStop(binary, dir)); err != nil {
		return err
	}
	memory, err := measureMemory(endless, dir)
	if err != nil {
		return err
	}
	if err := measureIdle(binary, dir); err != nil {
		return err
	}
	if err := measureNumbers(endless, dir); err != nil {
		return err
	}
	imageSize, containerMemory, err := measureImage(dir)
	if err != nil {
		return err
	}
	var problems error
	if size > maxSizeMB || imageSize > maxImageMB {
		problems = errors.New("over a limit")
	}
	if max(memory, containerMemory) > maxMB {
		fmt.Printf("resident: MISSED, at most %.1f MB\n", maxMB)
	}
	return problems
}

// onlyKeys measures what many keys cost, and nothing else.
func onlyKeys() error {
	dir, err := os.MkdirTemp("/dev/shm", "injector-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	endless := filepath.Join("bin", "injector-bench")
	if err := build(endless, "bench"); err != nil {
		return err
	}
	return measureNumbers(endless, dir)
}

func build(to, tags string) error {
	cmd := exec.Command("sh", "build.sh", to, tags)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// measureStart compares init with a bare program: the time from the start to the file, and what both take of a processor.
func measureStart(binary, dir string) error {
	p, err := newPlace(filepath.Join(dir, "start"))
	if err != nil {
		return err
	}
	defer p.close()
	var files, cpu [2][]time.Duration
	for range runs {
		for i, args := range [][]string{{binary, "init"}, {p.self, "bare"}} {
			took, used, err := timeStart(args, p.env, p.output)
			if err != nil {
				return err
			}
			files[i], cpu[i] = append(files[i], took), append(cpu[i], used)
			if err := os.RemoveAll(filepath.Join(filepath.Dir(p.output), ".injector")); err != nil {
				return err
			}
		}
	}
	compare("start to file", files[0], files[1], maxStartRatio)
	compare("processor time of init", cpu[0], cpu[1], maxCPURatio)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// timeStart runs a program to its end, and returns how long the file took to appear, and the processor time of it all.
func timeStart(args, env []string, output string) (took, used time.Duration, err error) {
	_ = os.Remove(output)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	var log strings.Builder
	cmd.Stderr = &log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	for took == 0 && time.Since(began) < 10*time.Second {
		if _, err := os.Stat(output); err == nil {
			took = time.Since(began)
		}
		time.Sleep(50 * time.Microsecond)
	}
	if err := cmd.Wait(); err != nil || took == 0 {
		return 0, 0, fmt.Errorf("%v: %w: %s", args, err, log.String())
	}
	return took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return (d[(len(d)-1)/2] + d[len(d)/2]) / 2
}

func environment(server *balenatest.Server, url, output string) []string {
	u := server.DefaultUser()
	return []string{"BALENA_API_URL=" + url, "BALENA_USERNAME=" + u.Name, "BALENA_PASSWORD=" + u.Password, "INJECTOR_OUTPUT=" + output,
		fmt.Sprintf("BENCH_USER=%d", u.ID)}
}
