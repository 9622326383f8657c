package pgdev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// account is the user as whom the server runs.
type account struct {
	uid, gid int
	other    bool // another than the caller: the caller is root
}

// serverAccount is the caller, or the user postgres when the caller is root, as whom Postgres refuses to run.
func serverAccount(ctx context.Context) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	found, err := user.Lookup("postgres")
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		if err := addPostgresUser(ctx); err != nil {
			return account{}, err
		}
		found, err = user.Lookup("postgres")
	}
	if err != nil {
		return account{}, fmt.Errorf("looking up the user postgres: %w", err)
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		return account{}, fmt.Errorf("the user id of postgres: %w", err)
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return account{}, fmt.Errorf("the group id of postgres: %w", err)
	}
	return account{uid: uid, gid: gid, other: true}, nil
}

func addPostgresUser(ctx context.Context) error {
	command := []string{"useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false", "postgres"}
	if _, err := exec.LookPath(command[0]); err != nil {
		command = []string{"adduser", "-S", "-D", "-H", "-s", "/bin/false", "postgres"} // BusyBox
	}
	if runtime.GOOS != "linux" {
		return errors.New("Postgres refuses to run as root, and there is no user postgres: run this as an ordinary user")
	}
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("Postgres refuses to run as root, and making the user postgres failed: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// own gives a file or folder to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

func (a account) attributes() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		attributes.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attributes
}
