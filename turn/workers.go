package turn

import (
	"context"
	"sync"
	"time"
)

// Workers are a few goroutines that do the work of many: thousands of keys that start together wait in line, and only
// those whose turn it is need a stack for a request. Of nil, work is done by who brings it. Make them with NewWorkers.
type Workers struct {
	most  int
	tasks chan func()
	ended chan struct{}

	mu      sync.Mutex
	running int
	last    time.Time // when one of them finished something
}

// NewWorkers returns as many workers, at most. They are started when there is work. Close them.
func NewWorkers(most int) *Workers {
	return &Workers{most: most, tasks: make(chan func()), ended: make(chan struct{})}
}

// Close ends the workers once they have done what they are doing. What comes later is done by who brings it.
func (w *Workers) Close() { close(w.ended) }

// stuck is how long no worker finishes anything until others are served without one.
const stuck = 2 * time.Second

// Do does work on one of the goroutines, and waits until it is done. If ctx is done before any is free for it, nothing is
// done, and Do returns why. Where all of them hang, such as on a dead disk, work is done by who brings it.
func (w *Workers) Do(ctx context.Context, work func()) error {
	if w == nil {
		work()
		return nil
	}
	done := make(chan struct{})
	task := func() { defer close(done); defer w.finished(); work() }
	select {
	case w.tasks <- task:
		<-done
		return nil
	default:
		w.start()
	}
	look := time.NewTimer(stuck)
	defer look.Stop()
	for {
		select {
		case w.tasks <- task:
			<-done
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.ended:
			work()
			return nil
		case <-look.C:
			if w.hang() {
				work()
				return nil
			}
			look.Reset(stuck)
		}
	}
}

// finished notes that a worker has done something.
func (w *Workers) finished() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
}

// hang reports whether no worker has for a while.
func (w *Workers) hang() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.last) >= stuck
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
		for {
			select {
			case task := <-w.tasks:
				task()
			case <-w.ended:
				return
			}
		}
	}()
}
