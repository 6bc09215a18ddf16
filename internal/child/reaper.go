package child

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Reaper buries the processes whose parents are gone and which the kernel has given to us, since we
// are PID 1. Commands that we start must be started and waited for through it. A nil Reaper only
// does that.
type Reaper struct {
	mu     sync.Mutex
	spared map[int]bool
	caught chan os.Signal
	ended  chan struct{}
}

// NewReaper returns a Reaper at work if this process is PID 1, else nil.
func NewReaper() *Reaper {
	if os.Getpid() != 1 {
		return nil
	}
	r := &Reaper{spared: map[int]bool{}, caught: make(chan os.Signal, 1), ended: make(chan struct{})}
	signal.Notify(r.caught, syscall.SIGCHLD)
	go r.run()
	return r
}

func (r *Reaper) run() {
	defer close(r.ended)
	for range r.caught {
		r.bury()
	}
}

// Stop ends the work.
func (r *Reaper) Stop() {
	if r == nil {
		return
	}
	signal.Stop(r.caught)
	close(r.caught)
	<-r.ended
}

// Start starts a command that Wait will wait for.
func (r *Reaper) Start(cmd *exec.Cmd) error {
	if r == nil {
		return cmd.Start()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err := cmd.Start()
	if err == nil {
		r.spared[cmd.Process.Pid] = true
	}
	return err
}

// Wait waits for a command that Start has started.
func (r *Reaper) Wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.spared, cmd.Process.Pid)
	}
	return err
}

// bury waits for all dead children that nobody else will wait for.
func (r *Reaper) bury() {
	r.mu.Lock()
	defer r.mu.Unlock()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || r.spared[pid] || !isOurZombie(dir) {
			continue
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// isOurZombie tells whether a process is dead and our child.
func isOurZombie(dir string) bool {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before may hold anything
	return len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid())
}
