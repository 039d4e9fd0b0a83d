// Package contract checks that a change that breaks released clients cannot pass: buf breaking, as `make breaking` runs it, must
// notice it.
package contract

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository's, relative to this package.
const root = "../.."

// buf runs buf in the root, where its module (tools/go.mod) and its configuration (buf.yaml) are found.
func buf(t *testing.T, args ...string) (output string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "-modfile=tools/go.mod", "buf"}, args...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("running buf: %v", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// released returns the image that `make breaking` compares with. Before the first release it is an image of the contract as it is.
func released(t *testing.T) string {
	t.Helper()
	image, err := filepath.Abs(root + "/proto/released.binpb")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(image); err == nil {
		return image
	}
	image = filepath.Join(t.TempDir(), "released.binpb")
	if out, exit := buf(t, "build", "-o", image); exit != 0 {
		t.Fatalf("buf build: exit code %d\n%s", exit, out)
	}
	return image
}

// contractCopy returns a folder with a copy of the contract and of buf's configuration.
func contractCopy(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(filepath.Join(folder, "proto"), os.DirFS(root+"/proto")); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(root + "/buf.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "buf.yaml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// TestBreaking changes copies of the contract. buf exits with 100 if it finds a breaking change, and with other codes if it fails.
func TestBreaking(t *testing.T) {
	image := released(t)
	for name, test := range map[string]struct {
		file, old, replacement string
		want                   string // in buf's output; empty: nothing is broken
	}{
		"unchanged":         {},
		"field added":       {"file.proto", `(?m)^  string etag = 6;$`, "  string etag = 6;\n  // New.\n  string added = 10000;", ""},
		"field removed":     {"file.proto", `(?m)^  string etag = 6;$`, "", `Previously present field "6" with name "etag" on message "File" was deleted`},
		"type changed":      {"file.proto", `(?m)^  string etag = 6;$`, "  bytes etag = 6;", `changed type from "string" to "bytes"`},
		"enum value gone":   {"error_reason.proto", `(?m)^  ERROR_REASON_FILE_EMPTY = 7;$`, "", `Previously present enum value "7"`},
		"method removed":    {"file_sharing_service.proto", `(?s)  rpc StatFile\(.*?\n  }\n`, "", `Previously present RPC "StatFile"`},
		"Java package gone": {"file.proto", `(?m)^option java_package = .*$`, "", `"java_package" changed`},
	} {
		t.Run(name, func(t *testing.T) {
			folder := contractCopy(t)
			if test.file != "" {
				file := filepath.Join(folder, "proto/lpfileshare/v1", test.file)
				before, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				after := regexp.MustCompile(test.old).ReplaceAll(before, []byte(test.replacement))
				if bytes.Equal(before, after) {
					t.Fatalf("%s has nothing that matches %s", test.file, test.old)
				}
				if err := os.WriteFile(file, after, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, exit := buf(t, "breaking", folder, "--against", image)
			switch {
			case test.want == "" && exit != 0:
				t.Errorf("exit code %d, want 0:\n%s", exit, out)
			case test.want != "" && (exit != 100 || !strings.Contains(out, test.want)):
				t.Errorf("exit code %d, want 100 and %s:\n%s", exit, test.want, out)
			}
		})
	}
}
