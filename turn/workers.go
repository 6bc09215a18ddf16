package turn

import (
	"context"
	"sync"
)

// Workers are a few goroutines that do the work of many: thousands of keys that start together wait in line, and only
// those whose turn it is need a stack for a request. The zero value has none, and work is done by who brings it.
type Workers struct {
	most  int
	tasks chan func()

	mu      sync.Mutex
	running int
}

// NewWorkers returns as many workers, at most. They are started when there is work, and last as long as the process.
func NewWorkers(most int) *Workers { return &Workers{most: most, tasks: make(chan func())} }

// Do does work on one of the goroutines, and waits until it is done. If ctx is done before any is free for it, nothing is
// done, and Do returns why.
func (w *Workers) Do(ctx context.Context, work func()) error {
	if w == nil {
		work()
		return nil
	}
	done := make(chan struct{})
	task := func() { defer close(done); work() }
	select {
	case w.tasks <- task:
	default:
		w.start()
		select {
		case w.tasks <- task:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	<-done
	return nil
}

// start starts another worker, unless there are enough.
func (w *Workers) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == w.most {
		return
	}
	w.running++
	go func() {
		for task := range w.tasks {
			task()
		}
	}()
}
