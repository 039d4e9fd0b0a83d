package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/lpfileshare/lpfileshare/test/harness"
)

// Files makes the files of the cases in a folder. A file is named KIND:SIZE or KIND:SIZE:SEED, with the kinds jpeg, text, gif, noise (of
// no known type), photo (a JPEG with EXIF that is larger than 3 MB, of any size), exif, and empty.
type Files struct {
	dir  string
	mu   sync.Mutex
	made map[string][]byte
}

// Data returns the bytes of a file.
func (f *Files) Data(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.data(name)
}

func (f *Files) data(name string) ([]byte, error) {
	if data, ok := f.made[name]; ok {
		return data, nil
	}
	data, err := makeFile(name)
	if err == nil {
		f.made[name] = data
	}
	return data, err
}

// Path returns the file on disk.
func (f *Files) Path(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := filepath.Join(f.dir, strings.ReplaceAll(name, ":", "-"))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	data, err := f.data(name)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o644)
}

// SHA256 returns the checksum of a part of a file, in hex: the argument is NAME or NAME,FROM,TO.
func (f *Files) SHA256(arg string) (string, error) {
	parts := strings.Split(arg, ",")
	var data []byte
	var err error
	if size, ok := strings.CutPrefix(parts[0], "fake:"); ok {
		n, err := strconv.Atoi(size)
		if err != nil {
			return "", err
		}
		data = fakeBytes(n)
	} else if data, err = f.Data(parts[0]); err != nil {
		return "", err
	}
	if len(parts) == 3 {
		from, err1 := strconv.Atoi(parts[1])
		to, err2 := strconv.Atoi(parts[2])
		if err1 != nil || err2 != nil || from > to || to > len(data) {
			return "", fmt.Errorf("%q is not a part of a file", arg)
		}
		data = data[from:to]
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func makeFile(name string) ([]byte, error) {
	parts := strings.Split(name, ":")
	size, seed := 0, uint64(1)
	var err error
	if len(parts) > 1 {
		if size, err = strconv.Atoi(parts[1]); err != nil {
			return nil, fmt.Errorf("file %s: %w", name, err)
		}
	}
	if len(parts) > 2 {
		if seed, err = strconv.ParseUint(parts[2], 10, 64); err != nil {
			return nil, fmt.Errorf("file %s: %w", name, err)
		}
	}
	switch parts[0] {
	case "empty":
		return nil, nil
	case "gif":
		return harness.TinyGIF(), nil
	case "text":
		return harness.Text(seed, size), nil
	case "noise":
		return fakeBytes(size), nil
	case "jpeg":
		return harness.MakePhoto(seed, size)
	case "exif":
		photo, err := harness.MakePhoto(seed, size-len(exif))
		if err != nil {
			return nil, err
		}
		return append(append(append([]byte{}, photo[:2]...), exif...), photo[2:]...), nil
	}
	return nil, fmt.Errorf("file %s: unknown kind", name)
}

// exif is a segment with EXIF data: an orientation, which is normal.
const exif = "\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"

// fakeBytes are bytes without a meaning.
func fakeBytes(n int) []byte {
	data := make([]byte, n)
	seed := uint32(2463534242)
	for i := range data {
		seed ^= seed << 13
		seed ^= seed >> 17
		seed ^= seed << 5
		data[i] = byte(seed)
	}
	return data
}
