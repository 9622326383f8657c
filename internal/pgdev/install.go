package pgdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Packages names what package managers install. An empty list: that manager does not have it.
type Packages struct {
	Apt, Dnf, Apk []string // asked when the caller is root
	Brew          []string // asked when the caller is not root, to whom Homebrew refuses to work
}

// Server is the package with the server of Postgres.
func Server() Packages {
	return Packages{
		Apt:  []string{"postgresql"},
		Dnf:  []string{"postgresql-server"},
		Apk:  []string{"postgresql"},
		Brew: []string{"postgresql@17"},
	}
}

// ErrNoPackageManager is returned by Install where there is none that the caller may use.
var ErrNoPackageManager = errors.New("no package manager here that this user may use")

// InstallServer installs Postgres when Find finds none and the caller may use a package manager. Where not, it does
// nothing for an ordinary user, for whom Open downloads one, and is a *NotFoundError for root.
func InstallServer(ctx context.Context, out io.Writer) error {
	_, err := Find(ctx)
	if err == nil {
		return nil
	}
	failed := Install(ctx, out, Server())
	if errors.Is(failed, ErrNoPackageManager) {
		if os.Geteuid() != 0 {
			return nil
		}
		return err
	}
	if failed != nil {
		return fmt.Errorf("installing Postgres: %w", failed)
	}
	_, err = Find(ctx)
	return err
}

// Install asks the machine's package manager for packages. What it says goes to out.
func Install(ctx context.Context, out io.Writer, packages Packages) error {
	for _, command := range installCommands(os.Geteuid() == 0, packages) {
		path, err := exec.LookPath(command[0][0])
		if err != nil {
			continue
		}
		for _, step := range command {
			fmt.Fprintln(out, strings.Join(step, " "))
			cmd := exec.CommandContext(ctx, path, step[1:]...)
			cmd.Stdout, cmd.Stderr = out, out
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "HOMEBREW_NO_AUTO_UPDATE=1")
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w", strings.Join(step, " "), err)
			}
		}
		return nil
	}
	return ErrNoPackageManager
}

// installCommands lists, for each manager that may be used, the steps that install the packages.
func installCommands(root bool, packages Packages) [][][]string {
	var all [][][]string
	add := func(names []string, steps ...[]string) {
		if len(names) > 0 {
			last := len(steps) - 1
			steps[last] = append(steps[last], names...)
			all = append(all, steps)
		}
	}
	if root {
		add(packages.Apt, []string{"apt-get", "update"}, []string{"apt-get", "install", "-y", "--no-install-recommends"})
		add(packages.Dnf, []string{"dnf", "install", "-y"})
		add(packages.Apk, []string{"apk", "add"})
	} else {
		add(packages.Brew, []string{"brew", "install"})
	}
	return all
}
