package pgdev

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// CheckoutDir is the folder of the development cluster that belongs to the checkout at path: /var/lib/headrace/… for
// root, and in the user's own data folder for anyone else.
func CheckoutDir(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("naming the folder of the private Postgres: %w", err)
	}
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, filepath.Base(path))
	name := base[:min(len(base), 20)] + "-" + shortHash(path)
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/headrace", name), nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("naming the folder of the private Postgres: %w", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "headrace", name), nil
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// temporaryParent is where root's user postgres can reach and files may be large, as /tmp is often memory.
const (
	temporaryParent = "/var/tmp"
	temporaryPrefix = "headrace-throwaway-"
)

// longestSocketFolder leaves room for the socket's name under the shortest limit of all systems, 104 bytes.
const longestSocketFolder = 104 - len("/.s.PGSQL.65535") - 1

// prepareFolders makes the cluster's folder, which a server of another user can pass through and only its owner can
// list, and in it the closed folder of the socket.
func (c *Cluster) prepareFolders() error {
	if c.home == "" {
		removeLeftovers()
		dir, err := os.MkdirTemp(temporaryParent, temporaryPrefix)
		if err != nil {
			return err
		}
		c.home = dir
	}
	mode := fs.FileMode(0o700)
	if c.account.other {
		mode = 0o711
	}
	if err := makeFolders(c.home, mode); err != nil {
		return err
	}
	if err := os.Chmod(c.home, mode); err != nil {
		return err
	}
	c.sockets = filepath.Join(c.home, "run")
	if len(c.sockets) > longestSocketFolder {
		c.sockets = filepath.Join("/tmp", fmt.Sprintf("headrace-%d-%s", c.account.uid, shortHash(c.home)))
	}
	return c.makePrivate(c.sockets)
}

// makeFolders makes a folder and what is missing above it, with this mode whatever the umask says. Folders that were
// there keep theirs.
func makeFolders(dir string, mode fs.FileMode) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeFolders(filepath.Dir(dir), mode); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, mode)
}

// makePrivate makes a folder of the server's user that nobody else can enter, and refuses one that is another's.
func (c *Cluster) makePrivate(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return c.account.own(dir)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && info.IsDir() && int(stat.Uid) == c.account.uid:
	case ok && info.IsDir() && int(stat.Uid) == os.Geteuid(): // another start has just made it, and not given it away yet
		if err := c.account.own(dir); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is there and does not belong to the user that runs Postgres", dir)
	}
	return os.Chmod(dir, 0o700)
}

// tryLock takes the folder's lock, which ends with the process that holds it. Nil without an error: another has it.
func tryLock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, err
}

// removeLeftovers removes the throwaways of processes that died together with their guards. One that is younger than a
// minute may just not be locked yet.
func removeLeftovers() {
	found, err := filepath.Glob(filepath.Join(temporaryParent, temporaryPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
			continue
		}
		lock, err := tryLock(dir)
		if err != nil || lock == nil {
			continue
		}
		data := filepath.Join(dir, "data")
		if pid := readPID(data); pid != 0 && isServer(pid, data) {
			// Its data goes away: nothing is lost by the hardest way. What fails here is tried at the next start.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
		lock.Close()
	}
}
