// Package steps carries out what a document tells its reader to do, in a copy of the checkout. So the documents that
// are followed by hand are also compiled and tested.
//
// Three kinds of fenced blocks count, in the order in which they stand; everything else is for the reader alone:
//
//   - a block after a line that is nothing but a path in backquotes is the whole of a new file;
//   - a diff block after such a line changes a file: the lines that stay and the lines that go must stand in it exactly
//     once, together and in this order. A line @@ separates changes of one file;
//   - a block in the language sh is run by sh -eu in the root of the copy.
package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Step is one thing to do.
type Step struct {
	Line int    // in the document, of the block's first line
	Path string // of the file to write or change; empty when Text is to be run
	Diff bool   // Text changes the file
	Text string
}

var path = regexp.MustCompile("^`([^`\\s]+)`$")

// Parse finds the steps of a document.
func Parse(document string) ([]Step, error) {
	var found []Step
	file := ""
	lines := strings.Split(document, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if named := path.FindStringSubmatch(line); named != nil {
			file = named[1]
			continue
		}
		language, fence := strings.CutPrefix(lines[i], "```")
		if !fence {
			if line != "" {
				file = ""
			}
			continue
		}
		begin := i + 1
		for i = begin; i < len(lines) && lines[i] != "```"; i++ {
			continue
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block has no end", begin)
		}
		step := Step{Line: begin + 1, Path: file, Diff: language == "diff", Text: strings.Join(lines[begin:i], "\n") + "\n"}
		switch {
		case file != "" && language == "sh":
			return nil, fmt.Errorf("line %d: commands stand under the path %s", begin, file)
		case file == "" && step.Diff:
			return nil, fmt.Errorf("line %d: the change names no file", begin)
		case file != "" || language == "sh":
			found = append(found, step)
		}
		file = ""
	}
	return found, nil
}

// Apply does the step in the folder.
func (s Step) Apply(ctx context.Context, dir string) error {
	if s.Path == "" {
		cmd := exec.CommandContext(ctx, "sh", "-euc", s.Text)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("line %d: %s: %w", s.Line, strings.TrimSpace(s.Text), err)
		}
		return nil
	}
	name := filepath.Join(dir, filepath.FromSlash(s.Path))
	before, err := os.ReadFile(name)
	switch {
	case s.Diff && err == nil:
		after, err := Change(string(before), s.Text)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", s.Line, s.Path, err)
		}
		return os.WriteFile(name, []byte(after), 0o644)
	case s.Diff:
		return fmt.Errorf("line %d: %w", s.Line, err)
	case err == nil:
		return fmt.Errorf("line %d: %s is there already", s.Line, s.Path)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(s.Text), 0o644)
}

// Change makes the changes of a diff block.
func Change(text, diff string) (string, error) {
	for hunk := range strings.SplitSeq("\n"+diff, "\n@@\n") {
		var before, after strings.Builder
		before.WriteString("\n")
		after.WriteString("\n")
		for line := range strings.Lines(strings.TrimPrefix(hunk, "\n")) {
			line = strings.TrimSuffix(line, "\n")
			mark, rest := byte(' '), ""
			if line != "" {
				mark, rest = line[0], line[1:]
			}
			switch mark {
			case ' ':
				before.WriteString(rest + "\n")
				after.WriteString(rest + "\n")
			case '-':
				before.WriteString(rest + "\n")
			case '+':
				after.WriteString(rest + "\n")
			default:
				return "", fmt.Errorf("a line of a change begins with a space, + or -: %q", line)
			}
		}
		whole := "\n" + text
		switch n := strings.Count(whole, before.String()); {
		case before.Len() == 1:
			return "", errors.New("the change has no line that stands in the file")
		case n != 1:
			return "", fmt.Errorf("these lines stand there %d times, and should once:%s", n, before.String())
		}
		text = strings.Replace(whole, before.String(), after.String(), 1)[1:]
	}
	return text, nil
}

// Copy copies all files of the checkout that git knows, or would add, to a new temporary folder, and returns that. The
// caller removes it.
func Copy(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("listing the files of the checkout: %w", err)
	}
	dir, err := os.MkdirTemp("", "checkout-")
	if err != nil {
		return "", err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		if err := copyFile(filepath.Join(root, string(name)), filepath.Join(dir, string(name))); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	// The build looks for the commit, and go on a copy that lies in another checkout would take that one's.
	cmd = exec.CommandContext(ctx, "git", "init", "--quiet", dir)
	if err := cmd.Run(); err != nil {
		return "", errors.Join(fmt.Errorf("making a repository of the copy: %w", err), os.RemoveAll(dir))
	}
	return dir, nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if errors.Is(err, os.ErrNotExist) { // deleted, and git was not told yet
		return nil
	}
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}
