package swift

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

const account = "12345678"

// sandboxStore is the sandbox's own store, with the limits that test/swift/run gives to the real one.
func sandboxStore(t *testing.T) store {
	const key, limit, timeout = "the sandbox's key", 4_000_000, 3 * time.Second
	sb, err := sandbox.Start(sandbox.Options{SwiftKey: key, MaxObjectSize: limit, StoreTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sb.Close() })
	return store{base: sb.URL(), key: key, folder: "/v1/AUTH_async-images/" + account + "/", maxFileSize: limit, clientTimeout: timeout}
}

// A cluster is the real Swift that test/swift/up has brought up.
type cluster struct {
	endpoint, key, folder string
	user, password, dir   string
	maxFileSize           int64
	clientTimeout         time.Duration
}

// realSwift finds the real Swift in the environment, or skips the test.
func realSwift(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{
		endpoint: os.Getenv("SWIFT_ENDPOINT"), key: os.Getenv("SWIFT_KEY"), folder: os.Getenv("SWIFT_PREFIX"),
		user: os.Getenv("SWIFT_USER"), password: os.Getenv("SWIFT_PASSWORD"), dir: os.Getenv("SWIFT_DIR"),
	}
	if c.endpoint == "" {
		t.Skip("there is no real Swift here: make test-swift brings one up, and runs this over it")
	}
	c.maxFileSize, _ = strconv.ParseInt(os.Getenv("SWIFT_MAX_FILE_SIZE"), 10, 64)
	seconds, _ := strconv.Atoi(os.Getenv("SWIFT_CLIENT_TIMEOUT"))
	c.clientTimeout = time.Duration(seconds) * time.Second
	if c.key == "" || c.folder == "" || c.dir == "" || c.maxFileSize <= 0 || c.clientTimeout <= 0 {
		t.Fatal("SWIFT_ENDPOINT is set, and not all the rest of what test/swift/up prints")
	}
	return c
}

// TestScriptUp_IsIdempotent runs the script once more: nothing starts, and it prints the same.
func TestScriptUp_IsIdempotent(t *testing.T) {
	c := realSwift(t)
	before, again := c.repair(t), c.repair(t)
	if before != again || !strings.Contains(again, "SWIFT_ENDPOINT="+c.endpoint+"\nSWIFT_KEY="+c.key+"\n") {
		t.Error("the second run printed something else")
	}
	c.kill(t)
	if c.repair(t) == again {
		t.Error("the object server that was started anew has the old one's process id")
	}
}

func (c *cluster) store() store {
	return store{base: c.endpoint, key: c.key, folder: c.folder, maxFileSize: c.maxFileSize, clientTimeout: c.clientTimeout}
}
