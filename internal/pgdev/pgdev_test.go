package pgdev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// With helperFolder set, the test binary opens a cluster in that folder ("": a throwaway), says where, and waits to be
// killed: an owner that dies with its server running.
const helperFolder = "PGDEV_TEST_HELPER_FOLDER"

func TestMain(m *testing.M) {
	if folder, helper := os.LookupEnv(helperFolder); helper {
		cluster, err := Open(context.Background(), Config{Dir: folder})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(cluster.Dir(), cluster.process.pid)
		select {}
	}
	patience = 2 * time.Minute // making a cluster takes long on a slow disk
	os.Exit(m.Run())
}

// owner starts a process that owns a cluster and returns it with the cluster's folder and the server's process.
func owner(t *testing.T, folder string) (helper *exec.Cmd, dir string, server int) {
	t.Helper()
	helper = exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperFolder+"="+folder)
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		helper.Process.Kill()
		helper.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &dir, &server); err != nil {
		t.Fatalf("the helper said %q: %v", line, err)
	}
	return helper, dir, server
}

func kill(t *testing.T, helper *exec.Cmd) {
	t.Helper()
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	helper.Wait()
}

// folder is one that the server's user can reach, which that of t.TempDir is not.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "headrace-pgdev-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "cluster")
}

func open(t *testing.T, config Config) *Cluster {
	t.Helper()
	if config.Settings == nil {
		config.Settings = map[string]string{"shared_buffers": "16MB", "fsync": "off"}
	}
	cluster, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var answer string
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// keep writes something that must be there after the next start; kept says whether it is.
func keep(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "create table kept as select 'kept' as word"); err != nil {
		t.Fatal(err)
	}
}

func kept(t *testing.T, c *Cluster) {
	t.Helper()
	if got := query(t, c.URL(), "select word from kept"); got != "kept" {
		t.Errorf("after the start there is %q", got)
	}
}

func TestDataOutlivesAStopAndAStart(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	first := open(t, Config{Dir: dir})
	keep(t, first.URL())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	kept(t, open(t, Config{Dir: dir}))
}

// Another start at the same moment has made the folder of the socket, and not given it to the server's user yet.
func TestAFolderThatAnotherStartHasJustMadeIsTaken(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for _, made := range []string{dir, filepath.Join(dir, "run")} {
		if err := os.Mkdir(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	query(t, open(t, Config{Dir: dir}).URL(), "select 'it answers'")
}

func TestTwoStartsAtOnceShareOneServer(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	var clusters [2]*Cluster
	var wg sync.WaitGroup
	for i := range clusters {
		wg.Go(func() { clusters[i] = open(t, Config{Dir: dir}) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	owned, attached := clusters[0], clusters[1]
	if owned.Attached() {
		owned, attached = attached, owned
	}
	if owned.Attached() || !attached.Attached() {
		t.Fatal("not one owner and one that is attached")
	}
	keep(t, owned.URL())
	kept(t, attached)
	if err := attached.Remove(); err == nil {
		t.Error("a server in use by another was removed")
	}
	if err := attached.Close(); err != nil {
		t.Error(err)
	}
	kept(t, owned) // the guest's leaving does not end the server
}

func TestStartRightAfterTheOwnerWasKilled(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	helper, _, _ := owner(t, dir)
	guest := open(t, Config{Dir: dir})
	if !guest.Attached() {
		t.Fatal("the helper's server is not attached to")
	}
	keep(t, guest.URL())
	kill(t, helper)
	heir := open(t, Config{Dir: dir})
	if heir.Attached() {
		t.Error("attached to the server of a dead owner")
	}
	kept(t, heir)
}

func TestStartRightAfterEverythingWasKilled(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	helper, _, server := owner(t, dir)
	keep(t, open(t, Config{Dir: dir}).URL())
	syscall.Kill(server, syscall.SIGKILL)
	kill(t, helper)
	kept(t, open(t, Config{Dir: dir}))
}

func TestThrowawayEndsWithItsOwner(t *testing.T) {
	t.Parallel()
	helper, dir, _ := owner(t, "")
	kill(t, helper)
	deadline := time.Now().Add(patience)
	for {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dir)
		}
	}
}

func TestALockFileOfAnotherProgramIsNoObstacle(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	first := open(t, Config{Dir: dir})
	keep(t, first.URL())
	file := filepath.Join(dir, "data", "postmaster.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	// The number of the dead server has gone to another program of the same user: this test's sleeper.
	sleeper := exec.Command("sleep", "600")
	sleeper.SysProcAttr = first.account.attributes()
	sleeper.Dir = "/"
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		sleeper.Process.Kill()
		sleeper.Wait()
	}()
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(file, []byte(strconv.Itoa(sleeper.Process.Pid)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	kept(t, first)
}

func TestAHalfMadeClusterIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if err := os.MkdirAll(filepath.Join(dir, "data.new"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.new", "PG_VERSION"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	as, err := serverAccount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := as.own(filepath.Join(dir, "data.new")); err != nil {
		t.Fatal(err)
	}
	if got := query(t, open(t, Config{Dir: dir}).URL(), "select 'alive'"); got != "alive" {
		t.Error(got)
	}
}

func TestAnotherPortIsTakenAloud(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	first := open(t, Config{Dir: dir, TCP: true})
	before := first.port
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, Config{Dir: dir, TCP: true})
	if again.port != before {
		t.Errorf("the port was %d and is %d", before, again.port)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(before)))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	var said []string
	moved := open(t, Config{Dir: dir, TCP: true, Log: func(message string) { said = append(said, message) }})
	if moved.port == before || len(said) != 1 || !strings.Contains(said[0], strconv.Itoa(before)) {
		t.Errorf("port %d became %d, and was said: %q", before, moved.port, said)
	}
}

func TestTCPNeedsThePassword(t *testing.T) {
	t.Parallel()
	c := open(t, Config{Dir: folder(t), TCP: true})
	password, err := os.ReadFile(filepath.Join(c.Dir(), "password"))
	if err != nil {
		t.Fatal(err)
	}
	url := func(password string) string {
		return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/postgres?sslmode=disable", password, c.port)
	}
	if got := query(t, url(strings.TrimSpace(string(password))), "select 'in'"); got != "in" {
		t.Error(got)
	}
	if conn, err := pgx.Connect(t.Context(), url("wrong")); err == nil {
		conn.Close(t.Context())
		t.Error("a wrong password let in")
	}
}

func TestALongPathGetsItsSocketElsewhere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), strings.Repeat("a long name of a folder ", 5))
	c := open(t, Config{Dir: dir})
	if len(c.sockets) > longestSocketFolder {
		t.Errorf("%s is too long for a socket", c.sockets)
	}
	query(t, c.URL(), "select 'alive'")
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{c.sockets, c.home} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s outlived Remove", gone)
		}
	}
}

func TestTheFolderIsClosedToOthers(t *testing.T) {
	t.Parallel()
	c := open(t, Config{Dir: folder(t)})
	for name, want := range map[string]os.FileMode{"data": 0o700, "run": 0o700, "password": 0o600, "lock": 0o600, "log": 0o600} {
		info, err := os.Stat(filepath.Join(c.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestDatabaseIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := open(t, Config{Dir: folder(t)})
	for range 2 {
		url, err := c.Database(t.Context(), `odd "name"`)
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, url, "select current_database()"); got != `odd "name"` {
			t.Errorf("connected to %s", got)
		}
	}
}

func TestAClusterOfAnotherVersionIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	c := open(t, Config{Dir: dir})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Dir: dir})
	var none *NotFoundError
	if !errors.As(err, &none) || none.Wanted != 99 {
		t.Errorf("a cluster of Postgres 99 gives %v", err)
	}
}

func TestDropRemovesWhatNobodyUses(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	helper, _, _ := owner(t, dir)
	if err := Drop(t.Context(), dir); err == nil {
		t.Error("a server in use was dropped")
	}
	kill(t, helper)
	if err := Drop(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s outlived Drop", dir)
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	_, err := Open(t.Context(), Config{Dir: dir, Settings: map[string]string{"shared_buffers": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("the error is %v", err)
	}
	query(t, open(t, Config{Dir: dir}).URL(), "select 'alive'") // the failed start gave the folder up
}

func TestStopRefusesAModeItDoesNotKnow(t *testing.T) {
	t.Parallel()
	if err := (&Cluster{}).Stop("gently"); err == nil {
		t.Error("no error")
	}
}
