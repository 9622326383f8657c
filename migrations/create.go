package migrations

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

const template = `-- +goose Up

-- +goose Down
`

// Create writes the next file of the application line into dir, the folder that holds both lines, and returns its path.
// The name may hold any words; letters and digits are kept, in lower case and joined by underscores. A file that another
// caller wrote meanwhile is never overwritten.
func Create(dir, name string) (string, error) {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	if len(words) == 0 {
		return "", fmt.Errorf("a migration needs a name of letters or digits, such as %q; got %q", "add wishlist", name)
	}
	if _, err := os.Stat(filepath.Join(dir, string(Application))); err != nil {
		return "", fmt.Errorf("looking for the application's migrations: %w", err)
	}
	existing, err := list(os.DirFS(dir), Application)
	if err != nil {
		return "", err
	}
	next := int64(1)
	if n := len(existing); n > 0 {
		next = existing[n-1].Version + 1
	}
	file := filepath.Join(dir, string(Application), fmt.Sprintf("%05d_%s.sql", next, strings.Join(words, "_")))
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", fmt.Errorf("writing the migration: %w", err)
	}
	if _, err := f.WriteString(template); err != nil {
		f.Close()
		return "", fmt.Errorf("writing the migration: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("writing the migration: %w", err)
	}
	return file, nil
}
