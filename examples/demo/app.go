package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// pace is how often the app reads.
const pace = 50 * time.Millisecond

// app reads the token file as an app would, and checks each token that it reads.
type app struct {
	demo *demo
	done chan struct{}
	idle chan struct{}

	mu       sync.Mutex
	reads    int
	tokens   map[string]bool
	bad      int
	firstBad string
	last     string // the last token that worked
	dead     string // the token whose key was deleted, until another one works
}

func startApp(d *demo) *app {
	a := &app{demo: d, done: make(chan struct{}), idle: make(chan struct{}), tokens: map[string]bool{}}
	go a.loop()
	return a
}

func (a *app) loop() {
	defer close(a.idle)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.read()
		case <-a.done:
			return
		}
	}
}

// read is one read with its check.
func (a *app) read() {
	raw, err := os.ReadFile(a.demo.token())
	problem := ""
	if err != nil {
		problem = err.Error()
	} else if code, err := whoami(a.demo.url, string(raw)); err != nil || code != http.StatusOK {
		problem = fmt.Sprintf("the API answered %d to a token of %d bytes (%v)", code, len(raw), err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reads++
	if problem == "" {
		if !a.tokens[string(raw)] {
			a.tokens[string(raw)] = true
			a.demo.story.say("app", "token number %d works", len(a.tokens))
		}
		a.last = string(raw)
		if a.last != a.dead { // a read may have begun before the deletion
			a.dead = ""
		}
		return
	}
	if a.dead == "" {
		if a.bad++; a.bad == 1 {
			a.firstBad = problem
		}
	}
}

// whoamiPath is another than the injector's, so that the stand-in can tell them apart.
const whoamiPath = "/user/v1/whoami"

func whoami(url, token string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, url+whoamiPath, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// expectGap forgives bad reads until another token works: the key of the last one is about to be deleted.
func (a *app) expectGap() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dead = a.last
}

// awaitGood waits until the app has read a good token again.
func (a *app) awaitGood(ctx context.Context) error {
	for {
		a.mu.Lock()
		gap := a.dead != ""
		a.mu.Unlock()
		if !gap {
			return nil
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stop ends the app and returns its count of bad reads.
func (a *app) stop() int {
	close(a.done)
	<-a.idle
	return a.bad
}
