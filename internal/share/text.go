package share

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// Itoa writes a number for the metadata of an error.
func Itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Clip shortens s to at most n bytes of whole characters, ending in "..." if something was cut.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	cut := n - len("...")
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "..."
}

// SplitDataURI returns the type and the bytes of an image's data URI.
func SplitDataURI(uri string) (FileType, []byte, bool) {
	for _, info := range FileTypes() {
		text, ok := strings.CutPrefix(uri, "data:"+info.MediaType+";base64,")
		if !ok || !info.Image {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(text)
		return info.Type, data, err == nil && len(data) > 0 && !strings.ContainsAny(text, "\r\n") // which decoding ignores
	}
	return "", nil, false
}
