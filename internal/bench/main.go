// Command bench measures what the project promises about its weight: how long a start takes
// until the file is there, beside a bare program that sends the same requests; how much memory
// the sidecar has after a thousand extensions over HTTPS; what it costs while nothing happens; what many keys cost;
// and how large the binary, the image and a running container are. It fails if a limit is exceeded.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

const (
	runs       = 20
	extensions = 1000
	maxRatio   = 1.3
	maxMB      = 14
	maxSizeMB  = 10
)

func main() {
	if len(os.Args) > 1 {
		work := map[string]func() error{"bare": bare, "bare-daemon": bareDaemon}[os.Args[1]]
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
	fmt.Printf("binary, stripped: %.2f MB (at most %d)\n", size, maxSizeMB)
	ratio, err := measureStart(binary, dir)
	if err != nil {
		return err
	}
	memory, err := measureMemory(endless, dir)
	if err != nil {
		return err
	}
	if err := measureIdle(binary, dir); err != nil {
		return err
	}
	for _, keys := range []int{1, 100, 1000} {
		if err := measureKeys(binary, dir, keys); err != nil {
			return err
		}
	}
	imageSize, containerMemory, err := measureImage(dir)
	if err != nil {
		return err
	}
	var problems error
	if max(size, imageSize) > maxSizeMB || max(memory, containerMemory) > maxMB {
		problems = errors.New("over a limit")
	}
	if ratio > maxRatio {
		fmt.Printf("note: the start is slower than the aim of %.1f\n", maxRatio)
	}
	return problems
}

func build(to, tags string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-gcflags=all=-l", "-gcflags=crypto/...=", "-gcflags=runtime=", "-ldflags=-s -w", "-tags", "nethttpomithttp2,"+tags, "-o", to, "./cmd/injector")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// measureStart compares the time from start to file of the injector and of a bare program.
func measureStart(binary, dir string) (ratio float64, err error) {
	server := balenatest.New(balenatest.Options{})
	srv := httptest.NewServer(server)
	defer srv.Close()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	output := filepath.Join(dir, "start", "token")
	if err := os.Mkdir(filepath.Dir(output), 0o700); err != nil {
		return 0, err
	}
	env := environment(server, srv.URL, output)
	var ours, theirs []time.Duration
	for range runs {
		for _, c := range []struct {
			args  []string
			times *[]time.Duration
		}{{[]string{binary, "init"}, &ours}, {[]string{self, "bare"}, &theirs}} {
			took, err := timeStart(c.args, env, output)
			if err != nil {
				return 0, err
			}
			*c.times = append(*c.times, took)
			if err := os.RemoveAll(filepath.Join(filepath.Dir(output), ".injector")); err != nil {
				return 0, err
			}
		}
	}
	a, b := median(ours), median(theirs)
	ratio = float64(a) / float64(b)
	fmt.Printf("start to file: %.1f ms, a bare program %.1f ms, ratio %.2f of medians of %d (aim: at most %.1f)\n", ms(a), ms(b), ratio, runs, maxRatio)
	return ratio, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// timeStart runs a program to its end, and returns how long the file took to appear.
func timeStart(args, env []string, output string) (time.Duration, error) {
	_ = os.Remove(output)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	var log strings.Builder
	cmd.Stderr = &log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var took time.Duration
	for took == 0 && time.Since(began) < 10*time.Second {
		if _, err := os.Stat(output); err == nil {
			took = time.Since(began)
		}
		time.Sleep(50 * time.Microsecond)
	}
	if err := cmd.Wait(); err != nil || took == 0 {
		return 0, fmt.Errorf("%v: %w: %s", args, err, log.String())
	}
	return took, nil
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

// bare sends the requests of a start without anything else: login, mint, verify, write, find.
func bare() error {
	client := &http.Client{}
	base := os.Getenv("BALENA_API_URL")
	send := func(method, path, bearer string, body any) ([]byte, error) {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequest(method, base+path, strings.NewReader(string(raw)))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
		}
		return answer, errors.Join(err, resp.Body.Close())
	}
	session, err := send("POST", "/login_", "", map[string]string{"username": os.Getenv("BALENA_USERNAME"), "password": os.Getenv("BALENA_PASSWORD")})
	if err != nil {
		return err
	}
	k := key.Draft("bare", key.User, 0, time.Now().Add(time.Hour))
	_, err = send("POST", "/api-key/v2", string(session), map[string]any{"actorType": "user", "actorTypeId": json.Number(os.Getenv("BENCH_USER")),
		"roles": []string{"named-user-api-key"}, "name": k.Name, "expiryDate": k.Expiry.UTC().Format("2006-01-02T15:04:05.000Z"), "apiKey": k.Secret.Reveal()})
	if err != nil {
		return err
	}
	if _, err := send("GET", "/actor/v1/whoami", k.Secret.Reveal(), nil); err != nil {
		return err
	}
	if err := os.WriteFile(os.Getenv("INJECTOR_OUTPUT"), []byte(k.Secret.Reveal()), 0o440); err != nil {
		return err
	}
	_, err = send("GET", "/v7/api_key?$select=id,name,expiry_date&$filter=name%20eq%20%27"+k.Name+"%27&$top=2", string(session), nil)
	return err
}
