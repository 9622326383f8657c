package pgdev

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// OldestMajor is the oldest major version of Postgres that Headrace runs on.
const OldestMajor = 14

// Binaries is a folder with the server's programs: postgres and initdb.
type Binaries struct {
	Dir   string
	Major int // such as 17
}

// NotFoundError says that no server of Postgres is here, and how to come by one.
type NotFoundError struct {
	TooOld []Binaries // found, but older than OldestMajor
	Wanted int        // the major version that an existing cluster needs; 0: any
	Reason error      // why none was downloaded; nil when that was not tried
}

func (e *NotFoundError) Error() string {
	var b strings.Builder
	switch {
	case e.Wanted != 0:
		fmt.Fprintf(&b, "this cluster was made by Postgres %d, and no server of that version was found (`make reset` drops the cluster)", e.Wanted)
	default:
		fmt.Fprintf(&b, "no Postgres server of version %d or later was found", OldestMajor)
	}
	for _, old := range e.TooOld {
		fmt.Fprintf(&b, "; %s is version %d", old.Dir, old.Major)
	}
	if e.Reason != nil {
		fmt.Fprintf(&b, "; downloading one failed: %v", e.Reason)
	}
	b.WriteString(`. Three ways out:
  1. install it: apt-get install postgresql, brew install postgresql@17, or what your system calls it
  2. put the folder that holds postgres and initdb on PATH
  3. set DATABASE_URL (for tests PGTEST_URL) to a Postgres that runs already`)
	return b.String()
}

func (e *NotFoundError) Unwrap() error { return e.Reason }

// Find looks for a server: on PATH, where pg_config says, and in the folders in which distributions put it. Of several
// versions in such folders it takes the newest. The error is a *NotFoundError.
func Find(ctx context.Context) (Binaries, error) {
	return find(ctx, candidates(ctx), 0)
}

// find returns the first of the folders with a server of the wanted major version; 0: OldestMajor or newer.
func find(ctx context.Context, folders []string, wanted int) (Binaries, error) {
	notFound := &NotFoundError{Wanted: wanted}
	for _, dir := range folders {
		major, err := versionOf(ctx, dir)
		switch {
		case err != nil:
		case wanted != 0 && major == wanted, wanted == 0 && major >= OldestMajor:
			return Binaries{Dir: dir, Major: major}, nil
		case major < OldestMajor:
			notFound.TooOld = append(notFound.TooOld, Binaries{Dir: dir, Major: major})
		}
	}
	return Binaries{}, notFound
}

// The folders of distributions: Debian, Red Hat, Alpine, a build from source, Homebrew on both kinds of Mac, Postgres.app,
// MacPorts, the BSDs.
var distributionFolders = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/opt/local/lib/postgresql*/bin",
	"/usr/local/bin",
}

func candidates(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// A link on PATH leads to the folder that also holds initdb and the server's libraries.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range distributionFolders {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
		dirs = append(dirs, found...)
	}
	return append(dirs, downloaded()...)
}

var (
	firstNumber = regexp.MustCompile(`[0-9]+`)
	version     = regexp.MustCompile(`\(PostgreSQL\) ([0-9]+)`)
)

func numberIn(path string) int {
	n, err := strconv.Atoi(firstNumber.FindString(path))
	if err != nil {
		return 0
	}
	return n
}

func versionOf(ctx context.Context, dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	found := version.FindSubmatch(out)
	if found == nil {
		return 0, errors.New("postgres did not say its version")
	}
	return strconv.Atoi(string(found[1]))
}
