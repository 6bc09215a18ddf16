package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/balena-injector/injector/balena/balenatest"
)

// deny names the error that system calls end with which only sharpen a diagnosis or close a race, as in a container of
// an old engine or on an old kernel. denySync is the same for those that wait for a disk.
const (
	deny     = "TEST_DENY"
	denySync = "TEST_DENY_SYNC"
)

// denySystemCalls does so for this process and all its threads, if one of the variables is set.
func denySystemCalls() {
	denyCalls(deny, unix.SYS_STATX, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL)
	denyCalls(denySync, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_SYNCFS)
}

func denyCalls(variable string, numbers ...uint32) {
	errno, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		return
	}
	_ = os.Unsetenv(variable)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	result := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{load(0)} // the number of the call
	for _, nr := range numbers {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			result(unix.SECCOMP_RET_ERRNO|uint32(errno)))
	}
	filter = append(filter, result(unix.SECCOMP_RET_ALLOW))
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program))); e != 0 {
		panic(e)
	}
}

// TestSystemCallsThatAreDenied lives a life without statx and the pidfd calls: init, a rotation with a signal to an app,
// a repair, a restart.
func TestSystemCallsThatAreDenied(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EPERM} {
		t.Run(fmt.Sprint(errno), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, balenatest.Options{})
			name := "olddaemon" + itoa(int(errno)) // the other one must not get its signals
			record, app := filepath.Join(s.dir, "record"), filepath.Join(s.dir, name)
			writeText(t, app, "#!/bin/sh\ntrap 'echo told >> "+record+"' HUP\necho ready >> "+record+"\nwhile :; do sleep 0.05; done\n")
			if err := os.Chmod(app, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(app)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }()
			s.set(deny, strconv.Itoa(int(errno)), "INJECTOR_NOTIFY_SIGNAL", "HUP:"+name, "INJECTOR_CHECK_INTERVAL", "1s")
			s.eventually("the app", func() bool { return len(lines(record)) == 1 })
			s.want(0, "check")
			s.want(0, "init")
			p := s.start("run")
			s.ready()
			s.eventually("a signal for the adopted key", func() bool { return len(lines(record)) == 2 })
			s.server.DeleteKey(s.server.Live()[0].ID)
			s.eventually("a signal for another one", func() bool { return len(lines(record)) == 3 })
			if err := os.Remove(s.token()); err != nil {
				t.Fatal(err)
			}
			s.eventually("the repair", func() bool { raw, _ := os.ReadFile(s.token()); return s.server.Accepts(string(raw)) })
			p.signal(syscall.SIGQUIT)
			p.wait(5 * time.Second)
			p = s.start("run")
			s.ready()
			if n := s.server.Count("mint"); n != 2 {
				t.Errorf("%d mints", n)
			}
			if log := s.log.String(); strings.Contains(log, "function not implemented") ||
				strings.Contains(log, "operation not permitted") {
				t.Error("a call that was denied is a failure")
			}
			p.stop()
		})
	}
}

// TestNothingInMemoryIsSynced lives a life in which every wait for a disk fails: in memory there is none. On a disk the
// same environment cannot even begin.
func TestNothingInMemoryIsSynced(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set(denySync, strconv.Itoa(int(syscall.EIO)))
	p := s.start("run")
	s.ready()
	s.server.DeleteKey(s.server.Live()[0].ID)
	p.signal(syscall.SIGHUP)
	s.eventually("another key", func() bool { return s.server.Accepts(s.reads("balena-token")) })
	p.stop()

	disk := t.TempDir()
	var stat unix.Statfs_t
	if err := unix.Statfs(disk, &stat); err != nil || stat.Type == unix.TMPFS_MAGIC {
		t.Skipf("there is no disk for temporary files: %v", err)
	}
	s.set("INJECTOR_OUTPUT", filepath.Join(disk, "balena-token"), "INJECTOR_REQUIRE_TMPFS", "false")
	contains(t, s.want(int(exitFailed), "init"), "input/output error")
	s.wantLive(0)
}
