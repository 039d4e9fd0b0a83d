//go:build linux

// Package walk records the README's first commands on a terminal, from the start of the server to the agent's reply.
package walk

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var frames = wire.NewSuite("walk")

func TestMain(m *testing.M) { os.Exit(frames.Exit(m.Run())) }

var update = flag.Bool("update", false, "write docs/walkthrough.txt")

const recording = "docs/walkthrough.txt"

// timeout bounds the walk. Without the build it takes about a second.
const timeout = 5 * time.Minute

// TestWalk runs the commands of the README's section "Try it" in terminals of their own, and compares what they print with the recording,
// except for ids, times and ports. It needs make and git.
func TestWalk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := newWalk(t, root)
	consumer, agent := w.commands(t)

	w.text.WriteString(w.startServer(t))
	w.title("Terminal 2: the consumer")
	for _, c := range consumer {
		w.run(ctx, t, c)
	}
	w.title("Terminal 3: the agent")
	for _, c := range agent {
		if !strings.Contains(c, "agent watch") {
			w.run(ctx, t, c)
			continue
		}
		watch := w.start(ctx, t, c)
		watch.wait(ctx, t, "watching")
		upload := consumer[2]
		out := w.output(ctx, t, upload)
		watch.wait(ctx, t, "consumer", "jpeg")
		watch.interrupt(t)
		w.title("Terminal 2: the consumer, while the agent watches")
		w.text.WriteString("$ " + upload + "\n" + out)
		w.title("Terminal 3: the agent")
		w.text.WriteString("$ " + c + "\n" + watch.printed())
	}
	w.title("Terminal 2: the consumer")
	w.run(ctx, t, consumer[3])

	got := strings.ReplaceAll(w.text.String(), w.address, "127.0.0.1:50051")
	file := filepath.Join(root, recording)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || normal(got) != normal(string(want)) {
		t.Errorf("%v: %s is stale; if the change is intended, run make test-walk WALK=-update. It is now:\n%s", err, recording, got)
	}
}

// A walk is a recording, and the directory in which its commands run: with the files that they read, and without what they write.
type walk struct {
	root, dir string
	env       []string
	address   string // of the server
	text      bytes.Buffer
}

// newWalk clones the repository, as a newcomer does, and builds it with what make run calls. What is not committed is not in the clone.
func newWalk(t *testing.T, root string) *walk {
	home := t.TempDir()
	w := &walk{root: root, dir: filepath.Join(home, "lpfileshare")}
	w.text.WriteString("From a clone to the agent's reply: the commands of the README's section \"Try it\", recorded by make test-walk.\n")
	w.title("Terminal 1: the server")
	w.text.WriteString("$ git clone https://github.com/lpfileshare/lpfileshare && cd lpfileshare\nCloning into 'lpfileshare'...\n")
	if out, err := exec.Command("git", "clone", "-q", root, w.dir).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	build := exec.Command("make", "build")
	build.Dir = w.dir
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	w.text.WriteString("$ make run\n")
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "make") { // of the make that called this test
			w.text.WriteString(line)
		}
	}
	w.env = append(os.Environ(), "SHELL=/bin/sh", "TERM=dumb", "TZ=UTC", "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, "config"), "LPFILESHARE_PASSWORD=sandbox")
	return w
}

func (w *walk) title(text string) { fmt.Fprintf(&w.text, "\n--- %s ---\n", text) }

// commands returns the commands of the README for the consumer and for the agent.
func (w *walk) commands(t *testing.T) (consumer, agent []string) {
	text, err := os.ReadFile(filepath.Join(w.root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Try it\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		c, ok := strings.CutPrefix(line, "    bin/lpfileshare ")
		c, _, _ = strings.Cut(c, " #")
		c = "bin/lpfileshare " + strings.TrimSpace(c)
		switch {
		case !ok:
		case strings.Contains(c, "agent"):
			agent = append(agent, c)
		default:
			consumer = append(consumer, c)
		}
	}
	if len(consumer) != 5 || len(agent) != 3 {
		t.Fatalf("the README has the commands %q and %q", consumer, agent)
	}
	return consumer, agent
}

// startServer starts the server as make run does, on a free port, and returns its log.
func (w *walk) startServer(t *testing.T) string {
	folder := filepath.Join(t.TempDir(), "frames")
	server, found, err := process.Start(regexp.MustCompile(`msg=ready grpc=(\S+)`), filepath.Join(w.dir, "bin", "lpfileshare-server"),
		"--sandbox", "--listen=127.0.0.1:0", "--sandbox-listen=127.0.0.1:0", "--sandbox-frames="+folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		checkFrames(t, folder)
	})
	w.address = found[1]
	w.env = append(w.env, "LPFILESHARE_ADDRESS="+w.address)
	return server.Logs.String()
}

// checkFrames checks the frames that the server has written.
func checkFrames(t *testing.T, folder string) {
	tap, err := frames.Tap()
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range wire.Recorded(folder) {
		if err != nil {
			t.Fatal(err)
		}
		tap.Check(f)
	}
	if err := tap.Close(); err != nil {
		t.Error(err)
	}
}

// run records a command that ends by itself.
func (w *walk) run(ctx context.Context, t *testing.T, c string) {
	w.text.WriteString("$ " + c + "\n" + w.output(ctx, t, c))
}

// output returns what a command that ends by itself prints.
func (w *walk) output(ctx context.Context, t *testing.T, c string) string {
	p := w.start(ctx, t, c)
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", c, err, p.printed())
	}
	return p.printed()
}

// A command runs on a terminal of its own.
type command struct {
	cmd   *exec.Cmd
	stdin io.Writer

	mu      sync.Mutex
	out     bytes.Buffer
	changed chan struct{} // closed and replaced with each output
}

// start starts a command on a terminal with 120 columns. The command replaces the shell, because a shell that waits for it would end by Ctrl-C too.
func (w *walk) start(ctx context.Context, t *testing.T, c string) *command {
	p := &command{changed: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, "script", "-qec", "stty cols 120 rows 40; exec "+c, "/dev/null")
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout = w.dir, w.env, p
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return p
}

// Write implements io.Writer.
func (p *command) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
	return p.out.Write(b)
}

// wait waits until a line of the output has all the words.
func (p *command) wait(ctx context.Context, t *testing.T, words ...string) {
	for {
		p.mu.Lock()
		text, changed := p.out.String(), p.changed
		p.mu.Unlock()
		for line := range strings.Lines(text) {
			found := strings.HasSuffix(line, "\n")
			for _, word := range words {
				found = found && strings.Contains(line, word)
			}
			if found {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("no line has %q:\n%s", words, text)
		}
	}
}

// interrupt presses Ctrl-C and waits for the end.
func (p *command) interrupt(t *testing.T) {
	if _, err := io.WriteString(p.stdin, "\x03"); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, p.printed())
	}
}

var redrawn = regexp.MustCompile(`[^\n]*\n\x1b\[1A\x1b\[J`)

// printed returns what remains on the terminal: a progress bar that was drawn again only once.
func (p *command) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := strings.ReplaceAll(p.out.String(), "\r\n", "\n")
	for redrawn.MatchString(text) {
		text = redrawn.ReplaceAllString(text, "")
	}
	if !strings.HasSuffix(text, "\n") { // after ^C
		text += "\n"
	}
	return text
}

// changing are the parts of a recording that differ each time.
var changing = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`time=\S+`), "time=TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`/files/\S+`), "/files/FILE"},
	{regexp.MustCompile(`\bf[0-9a-f]{8}\b`), "SHORT"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
}

// normal returns a recording without its changing parts.
func normal(text string) string {
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.name)
	}
	return text
}
