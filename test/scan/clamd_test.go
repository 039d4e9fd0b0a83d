package scan

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/scan"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// eicar returns the EICAR test file, which every scanner reports and which harms nothing. It is in two parts so that scanners do not
// report this source.
func eicar() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`)
}

// signature is what clamd calls the EICAR test file: the name in our signature file, and the suffix for those that are not ClamAV's.
const signature = "Lpfileshare.Eicar.UNOFFICIAL"

// maxStream is clamd's StreamMaxLength.
const maxStream = 4 << 20

// A clamd is Debian's, with one signature, on a Unix socket.
type clamd struct {
	dir, socket string
	cmd         *exec.Cmd
	ended       chan struct{}
}

// startClamd starts a clamd that ends with the test.
func startClamd(t *testing.T) *clamd {
	t.Helper()
	file, err := exec.LookPath("clamd")
	if err != nil {
		if file = "/usr/sbin/clamd"; exec.Command(file, "--version").Run() != nil {
			t.Fatal("clamd is not installed: apt-get install --no-install-recommends clamav-daemon")
		}
	}
	// A short name: the path of a Unix socket has about 100 bytes at most.
	dir, err := os.MkdirTemp("", "clamd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &clamd{dir: dir, socket: filepath.Join(dir, "socket")}
	config := strings.Join([]string{
		"LocalSocket " + c.socket, "DatabaseDirectory " + dir + "/signatures", "TemporaryDirectory " + dir, "Foreground yes", "SelfCheck 0",
		"AlertExceedsMax yes", fmt.Sprintf("StreamMaxLength %d", maxStream),
	}, "\n")
	c.write(t, "clamd.conf", config+"\n")
	c.write(t, "signatures/eicar.ndb", "Lpfileshare.Eicar:0:*:"+hex.EncodeToString(eicar())+"\n") // anywhere in a file of any type
	c.cmd = exec.Command(file, "--config-file="+filepath.Join(dir, "clamd.conf"))
	c.start(t)
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *clamd) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts the process, and returns when it answers.
func (c *clamd) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.ended = make(chan struct{})
	go func() {
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	address, err := scan.ParseAddress(c.url())
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "clamd answers", func() bool {
		select {
		case <-c.ended:
			text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			t.Fatalf("clamd has ended:\n%s", text)
		default:
		}
		return address.Ping(t.Context()) == nil
	})
}

func (c *clamd) url() string { return "clamd://" + c.socket }

// stream has clamd scan content without a server.
func (c *clamd) stream(content []byte) error {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	message := binary.BigEndian.AppendUint32([]byte("zINSTREAM\x00"), uint32(len(content)))
	if _, err := conn.Write(append(append(message, content...), 0, 0, 0, 0)); err != nil {
		return err
	}
	if reply, err := io.ReadAll(conn); err != nil || string(reply) != "stream: OK\x00" {
		return fmt.Errorf("clamd answers %q, %w", reply, err)
	}
	return nil
}

func (c *clamd) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// kill ends the process at once.
func (c *clamd) kill() {
	_ = c.cmd.Process.Kill() // by its id; an error means that it has ended
	<-c.ended
}

// A proxy stands between a server and a clamd, and delays or cuts what the server sends.
type proxy struct {
	listener net.Listener
	socket   string
	// pause is the delay after each read.
	pause time.Duration

	mu   sync.Mutex
	cuts []int // bytes of the next scans after which their connections are cut
	seen int   // scans: not the PING of each start, nor those of the health check
}

// startProxy starts a proxy that ends with the test.
func startProxy(t *testing.T, c *clamd, pause time.Duration, cuts ...int) *proxy {
	t.Helper()
	p := &proxy{socket: filepath.Join(c.dir, "proxy"), pause: pause, cuts: cuts}
	var err error
	if p.listener, err = net.Listen("unix", p.socket); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			from, err := p.listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(from, c.socket) })
		}
	})
	t.Cleanup(func() {
		p.listener.Close()
		running.Wait()
	})
	return p
}

func (p *proxy) url() string { return "clamd://" + p.socket }

func (p *proxy) scans() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// scan counts a scan, and returns after how many bytes it is cut; -1: never.
func (p *proxy) scan() (cut int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	if len(p.cuts) == 0 {
		return -1
	}
	cut, p.cuts = p.cuts[0], p.cuts[1:]
	return cut
}

func (p *proxy) serve(from net.Conn, socket string) {
	defer from.Close()
	to, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { // ends with to
		_, _ = io.Copy(from, to)
		from.Close()
	}()
	buffer := make([]byte, 64<<10)
	cut := -1
	for n := 0; cut < 0 || n < cut; {
		read, err := from.Read(buffer)
		if err != nil {
			return
		}
		if n == 0 && bytes.HasPrefix(buffer[:read], []byte("zINSTREAM")) {
			cut = p.scan()
		}
		n += read
		time.Sleep(p.pause) // the delay that is tested
		if _, err := to.Write(buffer[:read]); err != nil {
			return
		}
	}
}
