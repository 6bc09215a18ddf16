package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal sends a signal to the processes of a name that run as the same user and can be seen: in
// other containers only with a shared PID namespace. Of a process and its children of the same
// name only the parent gets it.
type Signal struct {
	Signal  syscall.Signal
	Process string // as in /proc/PID/comm, or the base name of its first argument
}

// String names signal and process.
func (s *Signal) String() string { return unix.SignalName(s.Signal) + " to " + s.Process }

// Tell sends the signal.
func (s *Signal) Tell(context.Context, Event) error {
	found, err := s.find()
	if err != nil {
		return err
	}
	for pid, parent := range found {
		if _, also := found[parent]; also {
			continue
		}
		if e := s.send(pid); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("process %d: %w", pid, e))
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("no process %s of user %d can be seen: does it run, as this user, and in a shared PID namespace?", s.Process,
			os.Getuid())
	}
	return err
}

// find returns the processes of that name, with their parents.
func (s *Signal) find() (map[int]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := map[int]int{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !s.matches(pid) {
			continue
		}
		found[pid] = parentOf(pid)
	}
	return found, nil
}

func (s *Signal) matches(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	info, err := os.Stat(dir)
	if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
		return false
	}
	if state := fieldsOf(pid); len(state) == 0 || state[0] == "Z" || state[0] == "X" {
		return false // it has ended, and nobody would get the signal
	}
	comm, _ := os.ReadFile(dir + "comm")
	line, _ := os.ReadFile(dir + "cmdline")
	first, _, _ := bytes.Cut(line, []byte{0})
	// Some programs, such as nginx, write what they do into their first argument.
	word, _, _ := strings.Cut(string(first), ":")
	return slices.Contains([]string{strings.TrimSpace(string(comm)), filepath.Base(string(first)), word}, s.Process)
}

// fieldsOf are what /proc/PID/stat says after the process's name, which may hold anything: its state, its parent.
func fieldsOf(pid int) []string {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

func parentOf(pid int) int {
	fields := fieldsOf(pid)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// send signals the process through a descriptor, after a second look: its number may be another
// process's by now. Kernels before 5.3, and seccomp profiles that do not know the calls, leave the number alone.
func (s *Signal) send(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
	}
	if !s.matches(pid) {
		return unix.ESRCH
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, s.Signal, nil, 0)
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return syscall.Kill(pid, s.Signal) // which says EPERM itself if that is what is meant
	}
	return err
}
