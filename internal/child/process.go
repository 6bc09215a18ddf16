package child

import (
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one start of the command.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed after its end
	kill *time.Timer   // nil: nobody asked it to end

	strays map[int]bool // what it left behind and was told to end
	forced atomic.Bool  // there is no more asking
}

// over reports whether the command itself has ended.
func (p *process) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// gone reports whether nothing is left of the command's group, nor of what has left that. A command that shares our
// group is in a shell's hands, and what it leaves behind, too.
func (s *Supervisor) gone(p *process) bool {
	if !p.cmd.SysProcAttr.Setpgid {
		return true
	}
	return syscall.Kill(-p.cmd.Process.Pid, 0) == syscall.ESRCH && len(s.cfg.Reaper.Strays()) == 0
}

// settle ends what waits for a process that has ended.
func (p *process) settle() {
	if p.kill != nil {
		p.kill.Stop()
	}
}

func startError(err error) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return e.Err
	}
	return err
}

// codeOf is how a shell tells of a process's end.
func codeOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
