package pgdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadVersion is what is downloaded when the machine has no server.
const downloadVersion = embeddedpostgres.V17

// downloadDir keeps the downloaded programs for all checkouts of this user.
func downloadDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "headrace", "postgres-"+string(downloadVersion)), nil
}

func downloaded() []string {
	dir, err := downloadDir()
	if err != nil {
		return nil
	}
	return []string{filepath.Join(dir, "bin")}
}

// FindOrDownload is Find, and downloads a server when there is none: into the user's cache folder, and not as root, to
// whom the user postgres could not reach it. The log gets a line before a download. The error is a *NotFoundError.
func FindOrDownload(ctx context.Context, log func(string)) (Binaries, error) {
	found, err := Find(ctx)
	var none *NotFoundError
	if !errors.As(err, &none) {
		return found, err
	}
	if os.Geteuid() == 0 {
		return Binaries{}, none
	}
	log("downloading Postgres " + string(downloadVersion) + ", once")
	if err := download(); err != nil {
		none.Reason = err
		return Binaries{}, none
	}
	return Find(ctx)
}

// download runs the downloaded server once, because the library offers the download only as a part of a start.
func download() error {
	dir, err := downloadDir()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "headrace-download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		CachePath(dir).
		BinariesPath(dir).
		RuntimePath(filepath.Join(scratch, "run")).
		DataPath(filepath.Join(scratch, "data")).
		Port(uint32(port)).
		Logger(io.Discard))
	if err := server.Start(); err != nil {
		return fmt.Errorf("trying the downloaded server: %w", err)
	}
	return server.Stop()
}
