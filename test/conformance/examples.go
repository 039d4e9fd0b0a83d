package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// exampleNames are the headings of the examples that each client's README must have, in this order.
var exampleNames = []string{"Upload", "Download", "List", "Watch", "Errors", "Renew"}

// exampleTime bounds one example. The first one of a language compiles the package.
const exampleTime = 10 * time.Minute

// fences are the info strings of the code blocks, and the file names of programs.
var fences = map[string]struct{ info, file string }{
	"go": {"go", "main.go"}, "python": {"python", "main.py"}, "typescript": {"ts", "main.ts"}, "java": {"java", "Main.java"}, "rust": {"rust", "main.rs"},
}

// examples runs the examples of a client's README, each as it stands, in an empty project that depends on the built package.
func (r *Runner) examples() error {
	page, err := os.ReadFile(filepath.Join(r.root, "clients", r.language, "README.md"))
	if err != nil {
		return err
	}
	programs, err := extract(string(page), fences[r.language].info)
	if err != nil {
		return fmt.Errorf("clients/%s/README.md: %w", r.language, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	server, giveBack, err := r.servers.Lease(&Case{Own: true}, r.tmp)
	if err != nil {
		return err
	}
	defer giveBack(true)
	var failed []error
	for _, name := range exampleNames {
		begun := time.Now()
		if err := r.example(ctx, server, name, programs[name]); err != nil {
			failed = append(failed, fmt.Errorf("%s %s: %w", r.language, name, err))
			continue
		}
		fmt.Printf("ok   %s example %s (%v)\n", r.language, name, time.Since(begun).Round(100*time.Millisecond))
	}
	return errors.Join(failed...)
}

// extract returns the code block below each heading of the section "Examples".
func extract(page, info string) (map[string]string, error) {
	_, section, ok := strings.Cut("\n"+page, "\n## Examples\n")
	if !ok {
		return nil, errors.New("there is no section Examples")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	programs := map[string]string{}
	var order []string
	for _, part := range strings.Split(section, "\n### ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		blocks := strings.Split("\n"+text, "\n```"+info+"\n")
		if len(blocks) != 2 {
			return nil, fmt.Errorf("%s has %d blocks of %s, want 1", name, len(blocks)-1, info)
		}
		program, _, ok := strings.Cut(blocks[1], "\n```")
		if !ok {
			return nil, fmt.Errorf("the block of %s does not end", name)
		}
		order = append(order, name)
		programs[name] = program + "\n"
	}
	if !slices.Equal(order, exampleNames) {
		return nil, fmt.Errorf("the examples are %q, want %q", order, exampleNames)
	}
	return programs, nil
}

// example runs one program with a new consumer, in a folder with a picture.
func (r *Runner) example(ctx context.Context, server *Server, name, program string) error {
	ctx, cancel := context.WithTimeout(ctx, exampleTime)
	defer cancel()
	session, err := server.client.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: harness.AccountPath, Grant: &pb.SignInConsumerRequest_Anonymous{Anonymous: &pb.AnonymousSignIn{ConnectorId: "1"}}, // only that can be renewed
	})
	if err != nil {
		return err
	}
	consumer := harness.Consumer{Token: session.Token, ID: session.ConsumerID}
	consumer.Client = server.client.As(consumer.Credential())
	if consumer.Conversation, err = harness.Open(ctx, consumer.Client, harness.Account); err != nil {
		return err
	}
	picture, err := r.files.Data("jpeg:50000")
	if err != nil {
		return err
	}
	if _, err := publish(ctx, consumer, 1, picture); err != nil {
		return err
	}
	dir, err := tempDir(r.tmp)
	if err != nil {
		return err
	}
	work := filepath.Join(dir, "work")
	source := filepath.Join(dir, fences[r.language].file)
	if err := errors.Join(os.Mkdir(work, 0o755), os.WriteFile(filepath.Join(work, "picture.jpg"), picture, 0o644), os.WriteFile(source, []byte(program), 0o644)); err != nil {
		return err
	}
	stop := keepPublishing(ctx, consumer, picture)
	defer stop()
	run := exec.CommandContext(ctx, filepath.Join(r.root, "test", "conformance", r.language, "example"), source)
	run.Dir = work
	run.Env = append(os.Environ(),
		"LPFILESHARE_ADDRESS="+server.addr, "LPFILESHARE_ACCOUNT="+harness.Account, "LPFILESHARE_TOKEN="+session.Token,
		"LPFILESHARE_CONVERSATION="+consumer.Conversation, "LPFILESHARE_RENEWAL_SECRET="+session.RenewalSecret)
	out, err := run.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// keepPublishing uploads a file every second, for the example that watches.
func keepPublishing(ctx context.Context, c harness.Consumer, data []byte) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, 1000) {
			_, _ = c.UploadBytes(ctx, lpfileshare.UploadOptions{Conversation: c.Conversation, Caption: "watched"}, data)
		}
	}()
	return func() { cancel(); <-done }
}
