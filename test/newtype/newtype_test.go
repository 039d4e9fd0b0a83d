// Package newtype shows what it takes to add a file type: rtf.patch adds a value to the contract's enum, a row to the table of
// internal/share, and a test. Everything else follows: the generated code, the server, the clients.
//
// The working tree is not changed: the go command builds with the patched files in place of the originals (-overlay).
package newtype

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lpfileshare/lpfileshare"

// The files of rtf.patch. A new type must not need others.
const (
	contract = "proto/lpfileshare/v1/file.proto"
	table    = "internal/share/filetype.go"
	newTest  = "test/newtype/rtf_test.go"
)

func TestNewFileType(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the server and the client")
	}
	root := strings.TrimSpace(run(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", module))
	work := t.TempDir()
	if err := os.CopyFS(filepath.Join(work, "proto"), os.DirFS(filepath.Join(root, "proto"))); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(root, table), filepath.Join(work, table))
	patch, err := filepath.Abs("rtf.patch")
	if err != nil {
		t.Fatal(err)
	}
	if touched := filesOf(t, patch); !slices.Equal(touched, []string{table, contract, newTest}) {
		t.Fatalf("rtf.patch changes %q", touched)
	}
	run(t, work, "git", "apply", patch)
	run(t, root, "go", "tool", "-modfile=tools/go.mod", "buf", "generate", filepath.Join(work, "proto"), "--template=buf.gen.yaml", "-o", work)

	overlay := map[string]string{table: "", newTest: ""}
	for _, file := range changed(t, filepath.Join(root, "gen"), filepath.Join(work, "gen")) {
		overlay[filepath.Join("gen", file)] = ""
	}
	if want := []string{"gen/go/lpfileshare/v1/file.pb.go", table, newTest}; !slices.Equal(slices.Sorted(maps.Keys(overlay)), want) {
		t.Fatalf("generating changed %q; if gen/ is stale, run make generate", slices.Sorted(maps.Keys(overlay)))
	}
	replace := map[string]string{}
	for file := range overlay {
		replace[filepath.Join(root, file)] = filepath.Join(work, file)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(work, "overlay.json")
	if err := os.WriteFile(overlayFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlayFile))
	out := run(t, root, "go", "test", "-v", "-run", "^(TestRTF|TestFileTypes_.*|TestSniffFormat)$",
		"./internal/share", "./internal/service", "./test/newtype")
	for _, name := range []string{"TestRTF", "TestFileTypes_Table", "TestFileTypes_MatchContract", "TestFileTypes_Convert", "TestSniffFormat"} {
		if !strings.Contains(out, "--- PASS: "+name) {
			t.Errorf("%s did not run:\n%s", name, out)
		}
	}
}

// filesOf returns the files that a patch changes, sorted.
func filesOf(t *testing.T, patch string) []string {
	t.Helper()
	text, err := os.ReadFile(patch)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for line := range strings.Lines(string(text)) {
		if file, ok := strings.CutPrefix(line, "+++ b/"); ok {
			files = append(files, strings.TrimSpace(file))
		}
	}
	slices.Sort(files)
	return files
}

// changed returns the files that differ between two folders, or are in one of them only.
func changed(t *testing.T, before, after string) []string {
	t.Helper()
	read := func(folder string) map[string][]byte {
		files := map[string][]byte{}
		err := fs.WalkDir(os.DirFS(folder), ".", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			files[path], err = os.ReadFile(filepath.Join(folder, path))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	old, new := read(before), read(after)
	var names []string
	for name, text := range new {
		if !bytes.Equal(text, old[name]) {
			names = append(names, name)
		}
		delete(old, name)
	}
	return slices.Sorted(slices.Values(slices.AppendSeq(names, maps.Keys(old))))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
