package harness

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"sync"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// Text returns a text file of n bytes. Files of different seeds differ.
func Text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := uint64(0); b.Len() < n; i++ {
		fmt.Fprintf(&b, "%016x %016x\n", seed, (seed+i)*0x9E3779B97F4A7C15)
	}
	return b.Bytes()[:n]
}

// TinyGIF returns a GIF of one pixel.
func TinyGIF() []byte {
	return []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;")
}

// Preview returns a preview of about the given number of characters. It is a GIF of one pixel; bytes behind its end, which no decoder
// reads, have the label and make up the rest.
func Preview(label string, chars int) *pb.Preview {
	const head = "data:image/gif;base64,"
	image := append(TinyGIF(), label...)
	image = append(image, make([]byte, max(0, (chars-len(head))/4*3-len(image)))...)
	return &pb.Preview{Source: &pb.Preview_DataUri{DataUri: head + base64.StdEncoding.EncodeToString(image)}}
}

// photos has the files that Photo has made, by seed and size.
var photos sync.Map

// Photo returns a JPEG of exactly n bytes, at least 4,000, which cannot be compressed. Files of different seeds differ. The caller may
// change the bytes.
func Photo(tb testing.TB, seed uint64, n int) []byte {
	tb.Helper()
	key := [2]uint64{seed, uint64(n)}
	made, ok := photos.Load(key)
	if !ok {
		photo, err := MakePhoto(seed, n)
		if err != nil {
			tb.Fatal(err)
		}
		made = photo
		photos.Store(key, made)
	}
	return bytes.Clone(made.([]byte))
}

// MakePhoto makes the file of Photo. It encodes a small picture of noise, because encoding is slow with the race detector. Comments of noise before the last marker
// make up the rest.
func MakePhoto(seed uint64, n int) ([]byte, error) {
	const side, least, most = 48, 4, 65537 // of a picture, and of a comment segment
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	binary.BigEndian.PutUint64(key[8:], uint64(n))
	rng := rand.NewChaCha8(key)
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	_, _ = rng.Read(img.Pix)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 50}); err != nil {
		return nil, err
	}
	picture := b.Bytes()
	end := len(picture) - 2
	data := append(make([]byte, 0, n), picture[:end]...)
	for rest := n - len(picture); rest > 0; rest = n - len(data) - 2 {
		size := min(rest, most)
		if after := rest - size; after > 0 && after < least {
			size -= least
		}
		if size < least {
			break
		}
		segment := make([]byte, size)
		_, _ = rng.Read(segment)
		segment[0], segment[1] = 0xFF, 0xFE
		binary.BigEndian.PutUint16(segment[2:], uint16(size-2))
		data = append(data, segment...)
	}
	data = append(data, picture[end:]...)
	if len(data) != n {
		return nil, fmt.Errorf("the photo has %d bytes, want %d", len(data), n)
	}
	return data, nil
}
