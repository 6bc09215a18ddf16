package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// askTimeout is how long a running agent may take to answer; it needs no network for it.
const askTimeout = 3 * time.Second

// ErrNoAgent is wrapped by errors of Ask when no agent runs in the state directory.
var ErrNoAgent = errors.New("no injector is running here")

// ErrSilent is wrapped by errors of Ask when an agent is there and does not answer.
var ErrSilent = errors.New("the injector does not answer")

// Ask sends GET path to the agent of a state directory and returns status and body. It waits for an answer that is held
// for that long.
func Ask(ctx context.Context, stateDir, path string, hold time.Duration) (int, []byte, error) {
	return send(ctx, http.MethodGet, stateDir, path, hold)
}

// Tell asks the agent of a state directory to do something, and returns what it answers.
func Tell(ctx context.Context, stateDir, what string) (string, error) {
	code, body, err := send(ctx, http.MethodPost, stateDir, "/ask/"+what, 0)
	text := strings.TrimSpace(string(body))
	switch {
	case errors.Is(err, ErrSilent):
		return "", fmt.Errorf("%w; if it goes on, it may still do what it was asked for", err)
	case err != nil:
		return "", err
	case code == http.StatusNotFound:
		return "", errors.New("the injector that runs here is of an older version, which does not know this: send it SIGQUIT instead")
	case code != http.StatusOK:
		return "", errors.New(text)
	}
	return text, nil
}

func send(ctx context.Context, method, stateDir, path string, hold time.Duration) (int, []byte, error) {
	client := &http.Client{Timeout: askTimeout + hold, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, stateDir) }}}
	req, err := http.NewRequestWithContext(ctx, method, "http://injector"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, explain(err, stateDir)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return 0, nil, explain(err, stateDir)
	}
	return resp.StatusCode, body, nil
}

// AskReport returns all that the agent tells about itself to somebody who asks about those outputs.
func AskReport(ctx context.Context, stateDir string, outputs []string) (Report, error) {
	var r Report
	code, body, err := Ask(ctx, stateDir, "/status?"+url.Values{"output": outputs}.Encode(), 0)
	if err != nil {
		return r, err
	}
	if code != http.StatusOK {
		return r, fmt.Errorf("the agent answered %d: %s", code, strings.TrimSpace(string(body)))
	}
	return r, json.Unmarshal(body, &r)
}

func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	var d net.Dialer
	name := filepath.Join(stateDir, SocketName)
	if len(name) > maxSocketPath {
		dir, err := os.OpenFile(stateDir, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = dir.Close() }()
		name = viaDescriptor(dir)
	}
	return d.DialContext(ctx, "unix", name)
}

// explain tells apart the reasons for which an agent does not answer.
func explain(err error, stateDir string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		if info, e := os.Stat(stateDir); e == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Getuid() {
				return fmt.Errorf("the state directory %s belongs to user %d: run this command as uid %d, not %d", stateDir, stat.Uid,
					stat.Uid, os.Getuid())
			}
		}
		return fmt.Errorf("user %d may not ask the agent in %s", os.Getuid(), stateDir)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (state directory %s)", ErrNoAgent, stateDir)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%w within %v (state directory %s)", ErrSilent, askTimeout, stateDir)
	}
	return fmt.Errorf("%w: it ended, or was killed, while it was asked (state directory %s)", ErrSilent, stateDir)
}
