//go:build unix && !linux

package pgdev

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing where the kernel has no such signal; the guard does the work alone.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// isServer says whether the process is a postgres that was started on this data folder.
func isServer(pid int, data string) bool {
	out, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), data)
}
