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

// Reaper reaps the processes whose parents are gone and which the kernel has given to us, since we
// are PID 1, or asked for it. Commands that we start must be started and waited for through it. A nil Reaper only
// does that. Without /proc it reaps nothing.
type Reaper struct {
	mu     sync.Mutex
	spared map[int]bool
	caught chan os.Signal
	ended  chan struct{}
}

// NewReaper returns a Reaper at work if this process is PID 1, or, if it wants to adopt all that its commands leave
// behind, on a system that can give them to it; else nil.
func NewReaper(adopt bool) *Reaper {
	if os.Getpid() != 1 && (!adopt || adoptOrphans() != nil) {
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
		r.reap()
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

// reap waits for all dead children that nobody else will wait for.
func (r *Reaper) reap() {
	for pid, state := range r.children() {
		if state == "Z" {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// Strays are the living processes that our commands have left behind, with a process group of their own or none: the
// kernel has given them to us.
func (r *Reaper) Strays() []int {
	if r == nil {
		return nil
	}
	var list []int
	for pid, state := range r.children() {
		if state != "Z" {
			list = append(list, pid)
		}
	}
	return list
}

// children are our children and their states, but for the commands that somebody waits for.
func (r *Reaper) children() map[int]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || r.spared[pid] {
			continue
		}
		if state, ours := stateOf(dir); ours {
			list[pid] = state
		}
	}
	return list
}

// stateOf returns the state of a process, and whether it is our child.
func stateOf(dir string) (state string, ours bool) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return "", false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before may hold anything
	if len(fields) < 2 {
		return "", false
	}
	return fields[0], fields[1] == strconv.Itoa(os.Getpid())
}
