package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

// story prints what happens as a timeline, and lets the demo wait for it.
type story struct {
	out    io.Writer
	start  time.Time
	mu     sync.Mutex
	events chan string
}

func newStory(out io.Writer) *story {
	return &story{out: out, start: time.Now(), events: make(chan string, 100)}
}

// say prints one line.
func (s *story) say(who, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, "%6.1f s  %-8s %s\n", time.Since(s.start).Seconds(), who, fmt.Sprintf(format, args...))
}

// listen returns a writer that retells an injector's JSON log.
func (s *story) listen(who string) io.Writer {
	r, w := io.Pipe()
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			s.retell(who, lines.Bytes())
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	return w
}

func (s *story) retell(who string, line []byte) {
	var e map[string]any
	if json.Unmarshal(line, &e) != nil {
		s.say(who, "%s", line)
		return
	}
	msg, _ := e["msg"].(string)
	var more []string
	for _, name := range []string{"name", "generation", "next_extension_in", "old_key_lives_for", "output", "error"} {
		if v, ok := e[name]; ok {
			more = append(more, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), v))
		}
	}
	if len(more) > 0 {
		msg += " (" + strings.Join(more, ", ") + ")"
	}
	s.say(who, "%s", msg)
	if who == "run" {
		s.events <- e["msg"].(string)
	}
}

// forget makes await wait for what comes from now on.
func (s *story) forget() {
	for len(s.events) > 0 {
		<-s.events
	}
}

// await waits until the sidecar says msg.
func (s *story) await(ctx context.Context, msg string) error {
	for {
		select {
		case got := <-s.events:
			if got == msg {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q: %w", msg, context.Cause(ctx))
		}
	}
}

// requests counts what the injector sent; the app's own whoami are left out.
func (s *story) requests(server *balenatest.Server) string {
	counts := server.Counts()
	var parts []string
	for _, kind := range []string{"login", "fresh", "mint", "verify", "find", "extend", "revoke"} {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	return strings.Join(parts, ", ")
}
