package notify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// become makes the test binary a process that has a child of the same name.
const become = "TEST_BECOME_FAMILY"

func TestMain(m *testing.M) {
	if os.Getenv(become) != "" {
		family()
	}
	os.Exit(m.Run())
}

// The exit codes of a family.
const (
	parentTold = 10 + iota
	childTold
	nobodyTold
)

// family says when it has a child, and waits until its input ends. Then it ends with who was told.
func family() {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	child := exec.Command("/bin/sleep", "60")
	child.Args[0] = os.Args[0]
	if err := child.Start(); err != nil {
		panic(err)
	}
	for !hasName(child.Process.Pid) {
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = child.Process.Kill()
	_ = child.Wait()
	if child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		os.Exit(childTold)
	}
	select {
	case <-caught:
		os.Exit(parentTold)
	case <-time.After(time.Minute):
		os.Exit(nobodyTold)
	}
}

// hasName reports whether a process that was just started has its own name already.
func hasName(pid int) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return len(line) > 0
}

// name is one that no other test's processes have.
func name(suffix string) string { return fmt.Sprint("told", os.Getpid(), suffix) }

// start starts a program with that first argument, until the test ends.
func start(t *testing.T, program, first string, user *syscall.Credential) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, "60")
	cmd.Args[0] = first
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	eventually(t, "its name", func() bool { return hasName(cmd.Process.Pid) })
	return cmd
}

// end ends a program, and returns the first signal that has reached it.
func end(cmd *exec.Cmd) syscall.Signal {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
}

// wantTold ends a program, and looks whether it got the signal.
func wantTold(t *testing.T, cmd *exec.Cmd, want bool) {
	t.Helper()
	if got := end(cmd); got != map[bool]syscall.Signal{true: syscall.SIGUSR1, false: syscall.SIGKILL}[want] {
		t.Errorf("it got %s", unix.SignalName(got))
	}
}

// TestAProcessIsFoundByEachOfItsNames and not by what only looks like one.
func TestAProcessIsFoundByEachOfItsNames(t *testing.T) {
	const sleep = "/bin/sleep"
	ours := name("")
	copied := filepath.Join(t.TempDir(), ours)
	raw, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	target := &Signal{Signal: syscall.SIGUSR1, Process: ours}
	for _, c := range []struct {
		program string
		first   string
		told    bool
	}{
		{copied, "sleep", true},
		{sleep, ours, true},
		{sleep, "/opt/" + ours, true},
		{sleep, ours + ": master process /opt/sleep", true},
		{sleep, ours + "2", false},
		{sleep, "/opt/" + ours + "/sleep", false},
		{sleep, "sleep: " + ours, false},
		{sleep, ours[:len(ours)-1], false},
	} {
		t.Run(strings.ReplaceAll(c.first, ours, "name"), func(t *testing.T) {
			cmd := start(t, c.program, c.first, nil)
			if err := target.Tell(t.Context(), Event{}); (err == nil) != c.told {
				t.Errorf("error %v", err)
			}
			wantTold(t, cmd, c.told)
		})
	}
}

// TestAllProcessesOfANameAreTold but for children of one of them.
func TestAllProcessesOfANameAreTold(t *testing.T) {
	ours := name("-all")
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(binary)
	parent.Args[0] = ours
	parent.Env = append(os.Environ(), become+"=1")
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = parent.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	others := []*exec.Cmd{start(t, "/bin/sleep", ours, nil), start(t, "/bin/sleep", ours, nil)}
	if err := (&Signal{Signal: syscall.SIGUSR1, Process: ours}).Tell(t.Context(), Event{}); err != nil {
		t.Error(err)
	}
	for _, cmd := range others {
		wantTold(t, cmd, true)
	}
	_ = in.Close()
	_ = parent.Wait()
	if code := parent.ProcessState.ExitCode(); code != parentTold {
		t.Errorf("exit status %d, want %d: the parent was told", code, parentTold)
	}
}

// TestAnotherUsersProcessIsNotTold though root could do that.
func TestAnotherUsersProcessIsNotTold(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start another user's process")
	}
	cmd := start(t, "/bin/sleep", name("-other"), &syscall.Credential{Uid: 65534, Gid: 65534})
	err := (&Signal{Signal: syscall.SIGUSR1, Process: name("-other")}).Tell(t.Context(), Event{})
	if want := fmt.Sprintf("no process %s of user 0 can be seen", name("-other")); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	wantTold(t, cmd, false)
}

// rename gives this process another name, until the test ends.
func rename(t *testing.T, name string) {
	t.Helper()
	const file = "/proc/self/comm"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(name), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(file, before, 0) })
}

// TestThisProcessDoesNotTellItself whatever its name is. If it did, that would be its end.
func TestThisProcessDoesNotTellItself(t *testing.T) {
	rename(t, name("-us"))
	target := &Signal{Signal: syscall.SIGUSR1, Process: name("-us")}
	if !target.matches(os.Getpid()) {
		t.Fatal("this process has not changed its name")
	}
	if err := target.Tell(t.Context(), Event{}); err == nil || !strings.HasPrefix(err.Error(), "no process "+name("-us")) {
		t.Errorf("error %v", err)
	}
}

// TestTheNameOfAProcessMayBeAnything also one that looks like what follows it where the parent is read.
func TestTheNameOfAProcessMayBeAnything(t *testing.T) {
	rename(t, "a) S 1 (b")
	if parent := parentOf(os.Getpid()); parent != os.Getppid() {
		t.Errorf("the parent is %d, want %d", parent, os.Getppid())
	}
}

// TestTheNumberOfAProcessMayBeAnothersByNow which gets no signal then. Nor is there anything to do if it is nobody's.
func TestTheNumberOfAProcessMayBeAnothersByNow(t *testing.T) {
	target := &Signal{Signal: syscall.SIGUSR1, Process: name("-gone")}
	cmd := start(t, "/bin/sleep", name("-another"), nil)
	if err := target.send(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("error %v", err)
	}
	wantTold(t, cmd, false)
	if err := target.send(cmd.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("without a process: error %v", err)
	}
	if parent := parentOf(cmd.Process.Pid); parent != 0 {
		t.Errorf("it has the parent %d", parent)
	}
}

// TestASignalThatCannotBeSent is a failure, which names the process.
func TestASignalThatCannotBeSent(t *testing.T) {
	cmd := start(t, "/bin/sleep", name("-none"), nil)
	err := (&Signal{Signal: 1000, Process: name("-none")}).Tell(t.Context(), Event{})
	if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), fmt.Sprintf("process %d: ", cmd.Process.Pid)) {
		t.Errorf("error %v", err)
	}
	wantTold(t, cmd, false)
}

// TestWithoutDescriptorsOfProcesses the signal is sent to the number, be it that the kernel does not know the calls or
// that somebody denies them.
func TestWithoutDescriptorsOfProcesses(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			ours := name("-" + unix.ErrnoName(errno))
			cmd := start(t, "/bin/sleep", ours, nil)
			var denied, err error
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // for good: the thread ends with this goroutine
				if denied = deny(errno, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL); denied != nil {
					return
				}
				if _, denied = unix.PidfdOpen(os.Getpid(), 0); denied == errno {
					denied = nil
				}
				err = (&Signal{Signal: syscall.SIGUSR1, Process: ours}).Tell(t.Context(), Event{})
			}()
			<-done
			if denied != nil {
				t.Skipf("calls cannot be denied here: %v", denied)
			}
			if err != nil {
				t.Error(err)
			}
			wantTold(t, cmd, true)
		})
	}
}

// deny makes these system calls fail in this thread.
func deny(errno syscall.Errno, calls ...uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for _, nr := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// TestASignalIsNamedWithItsProcess in the log.
func TestASignalIsNamedWithItsProcess(t *testing.T) {
	if got := (&Signal{Signal: syscall.SIGHUP, Process: "nginx"}).String(); got != "SIGHUP to nginx" {
		t.Errorf("its name is %q", got)
	}
}

// TestAProcessThatHasEndedIsNotTold although nobody has waited for it yet: it cannot hear anything.
func TestAProcessThatHasEndedIsNotTold(t *testing.T) {
	cmd := exec.Command("sh", "-c", "exit 0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	s := &Signal{Signal: syscall.SIGHUP, Process: "sh"}
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if state := fieldsOf(cmd.Process.Pid); len(state) > 0 && state[0] == "Z" {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("it does not end")
		}
	}
	if s.matches(cmd.Process.Pid) {
		t.Error("it counts as a process that can be told")
	}
}
