package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// expand returns the files that arguments of upload name: files, patterns that no shell has expanded, and with recursive all files of
// folders that are not hidden, in the order of their names. "-" is standard input.
func expand(args []string, recursive bool) ([]string, error) {
	var files []string
	for _, arg := range args {
		found, err := expandOne(arg, recursive)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func expandOne(arg string, recursive bool) ([]string, error) {
	info, err := os.Stat(arg)
	switch {
	case arg == "-" || err == nil && !info.IsDir():
		return []string{arg}, nil
	case err == nil && !recursive:
		return nil, &usageError{arg + " is a folder; upload its files with --recursive"}
	case err == nil:
		return filesBelow(arg)
	case !errors.Is(err, fs.ErrNotExist) || !strings.ContainsAny(arg, "*?["):
		return []string{arg}, nil // opening it reports why
	}
	matches, err := filepath.Glob(arg)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("%s: %v", arg, err)}
	}
	var files []string
	for _, match := range matches {
		info, err := os.Stat(match)
		if err == nil && info.IsDir() && !recursive || hidden(match) && !hidden(arg) {
			continue
		}
		found, err := expandOne(match, recursive)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, &usageError{"no file matches " + arg}
	}
	return files, nil
}

// hidden reports whether a name in a path begins with a dot, so that patterns must spell the dot out, as in shells.
func hidden(path string) bool {
	for name := range strings.SplitSeq(filepath.ToSlash(path), "/") {
		if strings.HasPrefix(name, ".") && strings.Trim(name, ".") != "" {
			return true
		}
	}
	return false
}

// filesBelow returns the regular files in a folder and in the folders below it, without hidden ones.
func filesBelow(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case entry.Type().IsRegular():
			files = append(files, path)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = &usageError{dir + " has no files"}
	}
	return files, err
}

// displayName returns the name of a file for a message, in which bytes that are not UTF-8 are not possible.
func displayName(path string) string { return strings.ToValidUTF8(filepath.Base(path), "\uFFFD") }

// openFile opens a file, and rejects a directory.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a directory, not a file", path)
	}
	return f, nil
}

// peek returns the first bytes of r, and a reader of all of it: r itself if it can seek.
func peek(r io.Reader) (head []byte, whole io.Reader, err error) {
	const enough = 512
	if s, ok := r.(io.ReadSeeker); ok {
		if start, err := s.Seek(0, io.SeekCurrent); err == nil { // else a pipe
			head, err := io.ReadAll(io.LimitReader(s, enough))
			if err == nil {
				_, err = s.Seek(start, io.SeekStart)
			}
			return head, r, err
		}
	}
	buffered := bufio.NewReaderSize(r, 4096)
	head, err = buffered.Peek(enough)
	if err == io.EOF {
		err = nil
	}
	return head, buffered, err
}
