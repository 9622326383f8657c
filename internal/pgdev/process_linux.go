package pgdev

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// dieWithParent asks the kernel to signal the child when the thread that starts it ends.
func dieWithParent(attributes *syscall.SysProcAttr, signal syscall.Signal) {
	attributes.Pdeathsig = signal
}

// isServer says whether the process is a postgres that was started on this data folder.
func isServer(pid int, data string) bool {
	arguments, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Contains(arguments, []byte("\x00"+data+"\x00"))
}
