// Command image writes the container image as an OCI layout. It needs neither a container engine, a base image nor the network, and
// gives the same digest for the same input.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nonroot is the user and the group that the server runs as.
const nonroot = 65532

// state is the directory for the files of an embedded ledger.
const state = "/var/lib/lpfileshare"

func main() {
	var o options
	flag.StringVar(&o.version, "version", "", "version of the programs")
	flag.StringVar(&o.revision, "revision", "", "commit of the programs")
	created := flag.Int64("created", 0, "time of the commit, in seconds since 1970")
	flag.StringVar(&o.binaries, "binaries", "", "directory that has the programs of each architecture, in linux_amd64 and so on")
	flag.StringVar(&o.license, "license", "", "file of the license")
	archs := flag.String("archs", "amd64 arm64", "architectures")
	out := flag.String("out", "", "directory to write the layout to")
	flag.Parse()
	o.archs = strings.Fields(*archs)
	o.created = time.Unix(*created, 0).UTC()
	digest, err := write(*out, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

type options struct {
	version, revision string
	created           time.Time
	binaries, license string
	archs             []string
}

// write replaces the layout in dir, and returns the digest of the index of all platforms.
func write(dir string, o options) (v1.Hash, error) {
	roots, err := certificates()
	if err != nil {
		return v1.Hash{}, err
	}
	license, err := os.ReadFile(o.license)
	if err != nil {
		return v1.Hash{}, err
	}
	base, err := layer(baseFiles(roots, license))
	if err != nil {
		return v1.Hash{}, err
	}
	labels := map[string]string{
		"org.opencontainers.image.title":                "lpfileshare",
		"org.opencontainers.image.description":          "Serves lpfileshare.v1 over gRPC: files in LivePerson conversations",
		"org.opencontainers.image.version":              o.version,
		"org.opencontainers.image.revision":             o.revision,
		"org.opencontainers.image.created":              o.created.Format(time.RFC3339),
		"org.opencontainers.image.licenses":             "Apache-2.0",
		"com.github.lpfileshare.ca-certificates.sha256": fmt.Sprintf("%x", sha256.Sum256(roots)),
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range o.archs {
		img, err := platform(base, arch, labels, o)
		if err != nil {
			return v1.Hash{}, fmt.Errorf("%s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image{img}, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	index = mutate.Annotations(index, labels).(v1.ImageIndex)
	if err := os.RemoveAll(dir); err != nil {
		return v1.Hash{}, err
	}
	l, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return v1.Hash{}, err
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": o.version})
	if err := l.AppendIndex(index, name); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// platform returns the image of one architecture.
func platform(base v1.Layer, arch string, labels map[string]string, o options) (v1.Image, error) {
	var files []file
	for _, name := range []string{"lpfileshare", "lpfileshare-server"} {
		program, err := os.ReadFile(filepath.Join(o.binaries, "linux_"+arch, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: "usr/bin/" + name, mode: 0o755, data: program})
	}
	programs, err := layer(files)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range []struct {
		layer v1.Layer
		by    string
	}{{base, "directories, user, CA certificates"}, {programs, "programs"}} {
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: l.layer, MediaType: types.OCILayer,
			History: v1.History{CreatedBy: l.by, Created: v1.Time{Time: o.created}},
		})
		if err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: o.created}
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", nonroot, nonroot),
		Entrypoint:   []string{"/usr/bin/lpfileshare-server"},
		Env:          []string{"PATH=/usr/bin", "HOME=" + state, "STATE_DIRECTORY=" + state},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"50051/tcp": {}},
		Labels:       labels,
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(img, labels).(v1.Image), nil
}

// An image is no artifact of another type. Without this, its entry in the index would have the type of its config as artifactType.
type image struct{ v1.Image }

func (image) ArtifactType() (string, error) { return "", nil }

// A file is an entry of a layer. Names that end in "/" are directories.
type file struct {
	name  string
	mode  int64
	owner int
	data  []byte
}

// baseFiles returns what the image has besides the programs. Container engines mount /dev, /proc and /sys, and some require that the
// directories exist.
func baseFiles(roots, license []byte) []file {
	const account = "nonroot"
	return []file{
		{name: "dev/", mode: 0o755},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o644, data: fmt.Appendf(nil, "root:x:0:\n%s:x:%d:\n", account, nonroot)},
		{name: "etc/passwd", mode: 0o644, data: fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\n", account, nonroot, nonroot, state)},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: roots},
		{name: "proc/", mode: 0o755},
		{name: "sys/", mode: 0o755},
		{name: "tmp/", mode: 0o1777},
		{name: "usr/share/doc/lpfileshare/LICENSE", mode: 0o644, data: license},
		{name: strings.TrimPrefix(state, "/") + "/", mode: 0o700, owner: nonroot},
	}
}

// certificates returns Mozilla's root certificates in PEM. Roots that Mozilla trusts only for certificates of before a date are left out,
// because a PEM file cannot express that.
func certificates() ([]byte, error) {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// layer returns a layer of the files and of all directories above them. No entry depends on the time or on the machine.
func layer(files []file) (v1.Layer, error) {
	entries := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.name, "/")); dir != "."; dir = path.Dir(dir) {
			if _, ok := entries[dir+"/"]; !ok {
				entries[dir+"/"] = file{name: dir + "/", mode: 0o755}
			}
		}
		entries[f.name] = f
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		f := entries[name]
		header := &tar.Header{
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.data)),
			ModTime: time.Unix(0, 0),
		}
		if strings.HasSuffix(name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}
