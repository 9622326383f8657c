package pgdev

import (
	"context"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

// process is a running server that this process started, with its guard.
type process struct {
	pid   int
	done  chan struct{} // closed when the server has ended
	err   error         // how it ended; read after done
	guard *exec.Cmd
}

// spawn starts the command and a guard. The goroutine that starts it keeps its thread until the child has ended: the
// kernel's parent-death signal is tied to the thread, not to the process.
func spawn(cmd *exec.Cmd, onDeath syscall.Signal, remove string) (*process, error) {
	dieWithParent(cmd.SysProcAttr, onDeath)
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	if err := p.startGuard(onDeath, remove); err != nil {
		return nil, p.end(err)
	}
	return p, nil
}

// guardScript waits until its standard input ends, which it does when the process that holds the other end dies in
// whatever way, then ends the server and removes a throwaway's folder.
const guardScript = `read -r _
kill -"$2" "$1"
if [ -n "$3" ]; then
	while kill -0 "$1"; do sleep 0.1; done
	rm -rf "$3"
fi`

func (p *process) startGuard(onDeath syscall.Signal, remove string) error {
	// No context ends the guard: it is there for when this process cannot.
	p.guard = exec.CommandContext(context.Background(), "/bin/sh", "-c", guardScript, "guard", strconv.Itoa(p.pid), strconv.Itoa(int(onDeath)), remove)
	p.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var hold io.WriteCloser
	hold, err := p.guard.StdinPipe() // its write end is never used and closes with this process
	if err != nil {
		return err
	}
	if err := p.guard.Start(); err != nil {
		hold.Close()
		return err
	}
	return nil
}

// end kills a server whose guard could not be started and returns the error.
func (p *process) end(err error) error {
	p.guard = nil
	if killErr := syscall.Kill(p.pid, syscall.SIGKILL); killErr != nil {
		return killErr
	}
	<-p.done
	return err
}

// dismiss ends the guard of a server that has ended.
func (p *process) dismiss() error {
	if err := p.guard.Process.Kill(); err != nil {
		return err
	}
	return ignoreExit(p.guard.Wait())
}
