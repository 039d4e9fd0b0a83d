// Package packaging has the tests of what make release builds: make test-packaging runs them.
package packaging

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const (
	version  = "v1.2.3"
	revision = "0123456789abcdef0123456789abcdef01234567"
	epoch    = "1700000000"
	created  = "2023-11-14T22:13:20Z"
	nonroot  = 65532
)

// archs are the architectures to build: both, or those that ARCHS names.
var archs = strings.Fields(cmp.Or(os.Getenv("ARCHS"), "amd64 arm64"))

// programs are the names of the released programs and the packages they are built from.
var programs = map[string]string{"lpfileshare": "cmd/client", "lpfileshare-server": "cmd/server"}

// TestRelease builds a release, and checks each part of it.
func TestRelease(t *testing.T) {
	work := t.TempDir()
	key, public := filepath.Join(work, "key.pem"), filepath.Join(work, "lpfileshare.pub")
	run(t, work, "openssl", "genpkey", "-algorithm", "ed25519", "-out", key)
	run(t, work, "openssl", "pkey", "-in", key, "-pubout", "-out", public)
	dist := filepath.Join(work, "dist")
	release(t, "..", dist, key)

	t.Run("binaries", func(t *testing.T) { checkBinaries(t, dist) })
	t.Run("signature", func(t *testing.T) { checkSignature(t, dist, public) })
	t.Run("image", func(t *testing.T) { checkImage(t, dist) })
	t.Run("deb", func(t *testing.T) { checkDeb(t, dist) })
	t.Run("rpm", func(t *testing.T) { checkRPM(t, dist) })
	t.Run("sbom", func(t *testing.T) { checkSBOM(t, dist) })
	t.Run("reproducible", func(t *testing.T) {
		copied := filepath.Join(work, "elsewhere", "src")
		copyTree(t, copied)
		again := filepath.Join(copied, "dist")
		release(t, copied, again, key)
		sameFiles(t, dist, again)
	})
}

// release runs make release. In a copy of the tree it runs in another time zone and with another umask. If COLD is set, it also compiles
// everything again there.
func release(t *testing.T, tree, dist, key string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `umask 022; exec make release "$@"`, "sh",
		"DIST="+dist, "ARCHS="+strings.Join(archs, " "), "SIGNING_KEY="+key, "VERSION="+version, "REVISION="+revision, "SOURCE_DATE_EPOCH="+epoch)
	if tree != ".." {
		cmd.Args[2] = strings.Replace(cmd.Args[2], "022", "077", 1)
		cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo", "LC_ALL=C")
		if os.Getenv("COLD") != "" {
			cmd.Env = append(cmd.Env, "GOCACHE="+filepath.Join(t.TempDir(), "cache"))
		}
	}
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make release: %v\n%s", err, out)
	}
}

// copyTree copies the files of the repository, also those that are not committed.
func copyTree(t *testing.T, to string) {
	t.Helper()
	for name := range strings.SplitSeq(run(t, "..", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00") {
		if name == "" {
			continue
		}
		data, err := os.ReadFile(filepath.Join("..", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not committed
		} else if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sameFiles checks that two directories have the same files.
func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	files := func(dir string) map[string]string {
		found := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			found[strings.TrimPrefix(path, dir)] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	first, second := files(a), files(b)
	if len(first) < 12*len(archs) {
		t.Errorf("a release has %d files", len(first))
	}
	for name, data := range first {
		if again, ok := second[name]; !ok || again != data {
			t.Errorf("%s differs between two builds", name)
		}
		delete(second, name)
	}
	for name := range second {
		t.Errorf("only the second build has %s", name)
	}
}

func checkBinaries(t *testing.T, dist string) {
	for _, arch := range archs {
		machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
		for name := range programs {
			file, err := elf.Open(filepath.Join(dist, "linux_"+arch, name))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if file.Machine != machine {
				t.Errorf("%s for %s is for %v", name, arch, file.Machine)
			}
			if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC }) {
				t.Errorf("%s for %s is not static", name, arch)
			}
		}
	}
	checkVersions(t, filepath.Join(dist, "linux_"+runtime.GOARCH))
}

// checkVersions runs the programs of a directory.
func checkVersions(t *testing.T, dir string) {
	t.Helper()
	if got := run(t, dir, "./lpfileshare-server", "--version"); got != version+"\n" {
		t.Errorf("lpfileshare-server --version: %q", got)
	}
	if got := run(t, dir, "./lpfileshare", "--version"); !strings.Contains(got, version) || !strings.Contains(got, revision) {
		t.Errorf("lpfileshare --version: %q", got)
	}
}

// checkSignature runs the commands of docs/packaging.md that verify a download.
func checkSignature(t *testing.T, dist, public string) {
	commands := block(t, "sha256sum -c --ignore-missing SHA256SUMS")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(dist)); err != nil {
		t.Fatal(err)
	}
	verify := func() error {
		cmd := exec.Command("bash", "-euc", commands)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PUBLIC_KEY="+public)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := verify(); err != nil {
		t.Errorf("a good release: %v", err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(sums, []byte("\n")); got != 3*len(archs)+4 {
		t.Errorf("SHA256SUMS has %d files; want archives, debs and rpms of each architecture, an image, 2 SBOMs and manifests:\n%s", got, sums)
	}
	for name, data := range map[string][]byte{
		"SHA256SUMS":                   append(sums, '\n'),
		"lpfileshare_v1.2.3_image.tar": []byte("another"),
	} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{data, good} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := verify(); (err == nil) != bytes.Equal(text, good) {
				t.Errorf("%s, changed %t: verification gave %v", name, !bytes.Equal(text, good), err)
			}
		}
	}
}

// checkImage checks the settings of the image, and runs its file system without privileges.
func checkImage(t *testing.T, dist string) {
	root, err := layout.ImageIndexFromPath(filepath.Join(dist, "image"))
	if err != nil {
		t.Fatal(err)
	}
	outer, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(outer.Manifests) != 1 || outer.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != version {
		t.Fatalf("index.json has %+v", outer.Manifests)
	}
	index, err := root.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("digest %s", outer.Manifests[0].Digest)
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
		if m.ArtifactType != "" {
			t.Errorf("%s: artifactType %s", m.Platform, m.ArtifactType)
		}
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkConfig(t, img, m.Platform.Architecture)
		if m.Platform.Architecture == runtime.GOARCH {
			runImage(t, img)
		}
	}
	if want := "linux/" + strings.Join(archs, " linux/"); strings.Join(platforms, " ") != want {
		t.Errorf("platforms: %s; want %s", platforms, want)
	}
}

func checkConfig(t *testing.T, img v1.Image, arch string) {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := file.Config
	if file.Architecture != arch || file.OS != "linux" || file.Created.UTC().Format("2006-01-02T15:04:05Z") != created {
		t.Errorf("%s: platform %s/%s, created %v", arch, file.OS, file.Architecture, file.Created)
	}
	if c.User != "65532:65532" || strings.Join(c.Entrypoint, " ") != "/usr/bin/lpfileshare-server" {
		t.Errorf("%s: user %s, entrypoint %s", arch, c.User, c.Entrypoint)
	}
	for label, want := range map[string]string{
		"version": "^" + version + "$", "revision": "^" + revision + "$", "created": "^" + created + "$", "licenses": "^Apache-2.0$",
	} {
		if got := c.Labels["org.opencontainers.image."+label]; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: label %s is %q", arch, label, got)
		}
	}
	if !regexp.MustCompile("^[0-9a-f]{64}$").MatchString(c.Labels["com.github.lpfileshare.ca-certificates.sha256"]) {
		t.Errorf("%s: labels %v", arch, c.Labels)
	}
}

// runImage runs the demo with the programs of the image, as a user without privileges and on a read-only file system. Then it runs the
// server with the state directory, without the sandbox.
func runImage(t *testing.T, img v1.Image) {
	if os.Geteuid() != 0 {
		t.Fatal("the file system of the image can only be unpacked by root, because its files have owners")
	}
	root := unpack(t, img)
	certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if count := bytes.Count(certificates, []byte("BEGIN CERTIFICATE")); err != nil || count < 100 {
		t.Errorf("the image has %d CA certificates, %v", count, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	contained := func(args ...string) *exec.Cmd {
		cmd := exec.Command("bwrap", append([]string{
			"--unshare-all", "--die-with-parent", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
			"--bind", filepath.Join(root, "var/lib/lpfileshare"), "/var/lib/lpfileshare", "--",
		}, args...)...)
		cmd.Env = config.Config.Env
		cmd.Path, err = exec.LookPath("bwrap")
		if err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nonroot, Gid: nonroot, Groups: []uint32{}}}
		return cmd
	}
	out, err := contained("/usr/bin/lpfileshare", "demo", "--server", "/usr/bin/lpfileshare-server").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("demo: ok")) {
		t.Errorf("lpfileshare demo in the image: %v\n%s", err, out)
	}
	t.Logf("%s", out)

	server := contained(append(config.Config.Entrypoint, "--listen=127.0.0.1:0")...)
	stderr, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for b := make([]byte, 4096); !bytes.Contains(log.Bytes(), []byte("msg=ready")); {
		n, err := stderr.Read(b)
		log.Write(b[:n])
		if err != nil {
			break
		}
	}
	_ = server.Process.Kill()
	_ = server.Wait()
	if !bytes.Contains(log.Bytes(), []byte("msg=ready")) {
		t.Errorf("the server did not start without options:\n%s", log.String())
	}
	if files, err := os.ReadDir(filepath.Join(root, "var/lib/lpfileshare")); err != nil || len(files) == 0 {
		t.Errorf("the server wrote no ledger: %v", err)
	}
}

// unpack writes the file system of an image with its owners and modes.
func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	root, err := os.MkdirTemp("", "image") // other users cannot enter the directories of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	stream := mutate.Extract(img)
	defer stream.Close()
	archive := tar.NewReader(stream)
	var directories []string
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			directories = append(directories, strings.Trim(h.Name, "/"))
			err = os.MkdirAll(path, 0o755)
		} else {
			var data []byte
			if data, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		}
		if err == nil {
			err = errors.Join(os.Chown(path, h.Uid, h.Gid), os.Chmod(path, h.FileInfo().Mode()))
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 && h.Name != "var/lib/lpfileshare/" && h.Name != "var/lib/lpfileshare" {
			t.Errorf("%s belongs to user %d", h.Name, h.Uid)
		}
	}
	for _, name := range []string{"dev", "proc", "sys", "tmp"} {
		if !slices.Contains(directories, name) {
			t.Errorf("the image has no /%s", name)
		}
	}
	return root
}

// checkDeb installs the package into an empty directory.
func checkDeb(t *testing.T, dist string) {
	file := filepath.Join(dist, fmt.Sprintf("lpfileshare_%s_linux_%s.deb", version, runtime.GOARCH))
	root := t.TempDir()
	for _, dir := range []string{"updates", "info"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, root, "dpkg", "--root="+root, "-i", file)
	checkVersions(t, filepath.Join(root, "usr/bin"))
	if got := run(t, root, "dpkg-deb", "-f", file, "Version"); got != "1.2.3-1\n" && got != "1.2.3\n" {
		t.Errorf("version %q", got)
	}
	if got := run(t, root, "dpkg-deb", "-I", file, "conffiles"); got != "/etc/lpfileshare/server.env\n" {
		t.Errorf("conffiles: %q", got)
	}
	checkUnit(t, root)
	run(t, root, "dpkg", "--root="+root, "--purge", "lpfileshare")
	if _, err := os.Stat(filepath.Join(root, "etc/lpfileshare")); err == nil {
		t.Error("purging leaves /etc/lpfileshare")
	}
}

// checkUnit checks the installed unit: systemd-analyze exits with 0 for an unknown setting, so that it must print nothing.
func checkUnit(t *testing.T, root string) {
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/lpfileshare-server.service"))
	if err != nil {
		t.Fatal(err)
	}
	analyze := func(text string) string {
		path := filepath.Join(t.TempDir(), "lpfileshare-server.service")
		text = strings.Replace(text, "ExecStart=/usr", "ExecStart="+root+"/usr", 1)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	if got := analyze(string(unit)); got != "" {
		t.Errorf("systemd-analyze verify:\n%s", got)
	}
	if got := analyze(strings.Replace(string(unit), "ProtectHome", "ProtectHouse", 1)); !strings.Contains(got, "Unknown key") || !strings.Contains(got, "'ProtectHouse'") {
		t.Errorf("systemd-analyze does not find an unknown setting: %q", got)
	}
	if got := regexp.MustCompile(`(?m)^RestrictAddressFamilies=(.*)$`).FindSubmatch(unit); got == nil || string(got[1]) != "AF_INET AF_INET6 AF_UNIX" {
		t.Errorf("the unit has %q; the server needs AF_INET and AF_INET6, and AF_UNIX for clamd's socket", got)
	}
	path := filepath.Join(t.TempDir(), "lpfileshare-server.service")
	if err := os.WriteFile(path, unit, 0o644); err != nil {
		t.Fatal(err)
	}
	// Exposure 1.5 of 10.
	out := run(t, root, "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", path)
	t.Log(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])

	settings, err := os.ReadFile(filepath.Join(root, "etc/lpfileshare/server.env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#?(LPFILESHARE_[A-Z_]+)=`).FindAllSubmatch(settings, -1) {
		if !slices.Contains(flagVariables(), string(m[1])) {
			t.Errorf("server.env: %s is no flag of the server", m[1])
		}
	}
	if info, err := os.Stat(filepath.Join(root, "etc/lpfileshare/secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("/etc/lpfileshare/secrets: %v, %v", info, err)
	}
}

func checkRPM(t *testing.T, dist string) {
	file := filepath.Join(dist, fmt.Sprintf("lpfileshare_%s_linux_%s.rpm", version, runtime.GOARCH))
	if got := run(t, dist, "rpm", "-qp", "--qf", "%{NAME} %{VERSION} %{LICENSE} %{BUILDHOST} %{BUILDTIME}", file); got != "lpfileshare 1.2.3 Apache-2.0 lpfileshare "+epoch {
		t.Errorf("rpm: %s", got)
	}
	got := strings.Fields(run(t, dist, "rpm", "-qpl", file))
	for _, want := range []string{
		"/etc/lpfileshare/secrets", "/etc/lpfileshare/server.env", "/usr/bin/lpfileshare", "/usr/bin/lpfileshare-server",
		"/usr/lib/systemd/system/lpfileshare-server.service", "/usr/share/man/man1/lpfileshare.1.gz",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("the rpm has no %s: %s", want, got)
		}
	}
	if got := run(t, dist, "rpm", "-qp", "--configfiles", file); got != "/etc/lpfileshare/server.env\n" {
		t.Errorf("configuration files: %q", got)
	}
}

// checkSBOM compares the modules that the SBOMs list with those that the binaries have.
func checkSBOM(t *testing.T, dist string) {
	for name := range programs {
		var bom struct {
			SerialNumber string
			Metadata     struct {
				Timestamp string
				Component struct{ Version string }
			}
			Components []struct {
				Name, Version string
				Evidence      any
				Licenses      []any
			}
		}
		text, err := os.ReadFile(filepath.Join(dist, fmt.Sprintf("%s_%s.cdx.json", name, version)))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &bom); err != nil {
			t.Fatal(err)
		}
		if bom.SerialNumber != "" || bom.Metadata.Timestamp != "" || bom.Metadata.Component.Version != version {
			t.Errorf("%s: %q %+v", name, bom.SerialNumber, bom.Metadata)
		}
		var listed []string
		for _, c := range bom.Components {
			listed = append(listed, c.Name+" "+c.Version)
			if len(c.Licenses) == 0 && c.Evidence == nil {
				t.Errorf("%s: %s has no license", name, c.Name)
			}
		}
		slices.Sort(listed)
		for _, arch := range archs {
			info, err := buildinfo.ReadFile(filepath.Join(dist, "linux_"+arch, name))
			if err != nil {
				t.Fatal(err)
			}
			var linked []string
			for _, m := range info.Deps {
				linked = append(linked, m.Path+" "+m.Version)
			}
			slices.Sort(linked)
			if !slices.Equal(listed, linked) {
				t.Errorf("%s for %s: the SBOM lists\n%s\nand the binary has\n%s", name, arch, strings.Join(listed, "\n"), strings.Join(linked, "\n"))
			}
		}
		t.Logf("%s: %d modules", name, len(listed))
	}
}

// block returns the block of commands of docs/packaging.md that begins with a line.
func block(t *testing.T, first string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/packaging.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```sh\n(" + regexp.QuoteMeta(first) + "\n.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatalf("docs/packaging.md has no block that begins with %s", first)
	}
	return string(m[1])
}

// run runs a program that must succeed, and returns its standard output.
func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}
