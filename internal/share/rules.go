package share

// AccountIDRule describes a valid account id, for error messages.
const AccountIDRule = "1 to 32 letters and digits"

// ValidAccountID reports whether s can be a LivePerson account id: 1 to 32 ASCII letters and digits ("12345678",
// "le79144597"). Other text must not reach a URL's path or a resource name.
func ValidAccountID(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return 1 <= len(s) && len(s) <= 32
}

// MaxToken is the maximum length of a token, in bytes. LivePerson's tokens have at most 2,048; an lp-agent-token holds several of
// them, encoded in base64 twice. A longer token is of no use, because gRPC implementations and HTTP proxies accept only 8 KiB
// of metadata by default.
const MaxToken = 8 << 10

// ValidToken reports whether s can be a token or another secret that goes into headers and paths: printable ASCII without
// blanks, 1 to MaxToken bytes.
func ValidToken(s string) bool { return len(s) <= MaxToken && IsPrintableWord(s) }

// IsPrintableWord reports whether s is printable ASCII without blanks, and not empty.
func IsPrintableWord(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}
