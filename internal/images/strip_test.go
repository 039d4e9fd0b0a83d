package images

import (
	"bytes"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestStrip_DamagedScan damages the bytes after FF within coded pixels. What no encoder writes there is copied, because decoders continue
// behind it. A segment that is none, and an early end, are ImageInvalid. test/images/cases has all values.
func TestStrip_DamagedScan(t *testing.T) {
	plain := asJPEG(t, noise(64, 48))
	scan := bytes.Index(plain, []byte{0xff, sos})
	places := 0
	for at := scan + 14; at < len(plain)-2; at++ {
		if plain[at] != 0xff || plain[at+1] != 0 {
			continue
		}
		places++
		for v, harmless := range map[byte]bool{0x01: true, 0x41: true, 0xbf: true, soi: true, 0xd3: true, 0xe1: false, com: false, dht: false, eoi: false} {
			b := bytes.Clone(plain)
			b[at+1] = v
			var out bytes.Buffer
			_, err := strip(share.JPEG, bytes.NewReader(b), &out)
			if harmless && (err != nil || !bytes.Equal(out.Bytes(), b)) {
				t.Errorf("FF %02X at %d: %d of %d bytes: %v", v, at, out.Len(), len(b), err)
			}
			if !harmless && !share.Is(err, share.ImageInvalid) {
				t.Errorf("FF %02X at %d: %d of %d bytes: %v", v, at, out.Len(), len(b), err)
			}
		}
	}
	if places < 3 {
		t.Fatalf("%d places", places)
	}
}
