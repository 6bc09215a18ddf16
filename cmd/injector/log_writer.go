package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// logWriter takes lines for a reader that may stall, such as a pipe that is full: a writer never waits.
// What does not fit is dropped, and how much that was is said when there is room again.
type logWriter struct {
	lines   chan []byte
	flushed chan chan struct{}
	dropped atomic.Int64
}

// mostLines is how many lines wait at most.
const mostLines = 1000

func newLogWriter(to io.Writer) *logWriter {
	w := &logWriter{lines: make(chan []byte, mostLines), flushed: make(chan chan struct{})}
	go w.run(to)
	return w
}

func (w *logWriter) run(to io.Writer) {
	for {
		select {
		case line := <-w.lines:
			w.put(to, line)
		case done := <-w.flushed:
			for len(w.lines) > 0 {
				w.put(to, <-w.lines)
			}
			close(done)
		}
	}
}

func (w *logWriter) put(to io.Writer, line []byte) {
	_, _ = to.Write(line) // there is nobody to tell
	if n := w.dropped.Swap(0); n > 0 {
		_, _ = fmt.Fprintf(to, "injector: %d lines of the log were dropped: nobody read them\n", n)
	}
}

// Write never fails and never waits.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// flush waits until all is written, or for so long.
func (w *logWriter) flush(atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case w.flushed <- done:
	case <-timer.C:
		return
	}
	select {
	case <-done:
	case <-timer.C:
	}
}
