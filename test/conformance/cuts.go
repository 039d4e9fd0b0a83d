package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

const (
	cutUploads = 16 // at a time
	// After a cut, up to cutEvery uploads end before the next one, and up to cutPause passes: slow machines make progress too.
	cutEvery, cutPause     = 16, 100 * time.Millisecond
	minCutFile, maxCutFile = 5_000, 250_000 // bytes
	cutSeeds               = 40             // number of different files
)

// cuts makes n uploads while connections are cut at random, and has the auditor compare what the clients got with what was stored
// and published.
func (r *Runner) cuts(n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	server, giveBack, err := r.servers.Lease(&Case{Own: true, Name: "cuts"}, r.tmp)
	if err != nil {
		return err
	}
	defer giveBack(false)
	link, err := proxy.Listen(server.addr, proxy.Raw)
	if err != nil {
		return err
	}
	defer link.Close()
	consumer, err := harness.SignUpAndTalk(ctx, server.client, harness.Account)
	if err != nil {
		return err
	}
	if err := r.command(ctx, map[string]any{
		"op": "open", "client": "cuts", "target": link.Addr(), "account": harness.Account,
		"identity": map[string]any{"kind": "consumer", "token": consumer.Token},
	}, nil); err != nil {
		return err
	}
	begun := time.Now()
	done := make(chan struct{})
	var cutter sync.WaitGroup
	cut, ended := 0, make(chan struct{}, n)
	cutter.Go(func() { cut = cutAtRandom(link, ended, done) })
	uploads, err := r.cutUploads(ctx, n, consumer, ended)
	close(done)
	cutter.Wait()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	if err := r.command(ctx, map[string]any{"op": "close", "client": "cuts"}, nil); err != nil {
		return err
	}
	if err := sequences(ctx, consumer, uploads); err != nil {
		return err
	}
	var evidence audit.Evidence
	text, err := json.Marshal(server.sandbox.Journal())
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &evidence); err != nil {
		return err
	}
	report := audit.Check(audit.Record{Uploads: uploads}, evidence)
	for _, f := range report.Findings {
		fmt.Printf("FAIL %s %v\n", r.language, f)
	}
	fmt.Printf("%-12s %d uploads, %d acknowledged, %d connections cut, %d published, %d stored, %d findings, in %v\n", r.language,
		report.Uploads, report.Acknowledged, cut, len(evidence.Published), len(evidence.Stored), len(report.Findings), took.Round(time.Second))
	switch {
	case len(report.Findings) > 0 || report.Acknowledged != n || len(evidence.Published) != n:
		return fmt.Errorf("not every upload was stored and published once")
	case cut < n/20:
		return fmt.Errorf("only %d connections were cut", cut)
	}
	return nil
}

// cutAtRandom cuts all connections again and again, and returns how many there were.
func cutAtRandom(link *proxy.Proxy, ended, done <-chan struct{}) (n int) {
	for {
		for range 1 + rand.N(cutEvery) {
			select {
			case <-done:
				return n
			case <-ended:
			}
		}
		time.Sleep(rand.N(cutPause))
		kind := proxy.Reset
		if rand.N(2) == 0 {
			kind = proxy.Finish
		}
		n += link.Cut(kind)
	}
}

// cutUploads makes the uploads, and returns what the client got.
func (r *Runner) cutUploads(ctx context.Context, n int, consumer harness.Consumer, ended chan<- struct{}) ([]audit.Upload, error) {
	uploads, errs := make([]audit.Upload, n), make([]error, n)
	var work sync.WaitGroup
	turns := make(chan struct{}, cutUploads)
	for i := range n {
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			uploads[i], errs[i] = r.cutUpload(ctx, i, consumer)
			ended <- struct{}{}
		})
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return uploads, nil
}

func (r *Runner) cutUpload(ctx context.Context, i int, consumer harness.Consumer) (audit.Upload, error) {
	seed := i % cutSeeds
	size := minCutFile + seed*(maxCutFile-minCutFile)/cutSeeds
	file := fmt.Sprintf("jpeg:%d:%d", size, seed)
	path, err := r.files.Path(file)
	if err != nil {
		return audit.Upload{}, err
	}
	sha, err := r.files.SHA256(file)
	if err != nil {
		return audit.Upload{}, err
	}
	u := audit.Upload{
		Case: fmt.Sprintf("upload %d", i), Mark: fmt.Sprintf("%s %d", r.language, i), Owner: consumer.ID, SHA256: sha, Size: int64(size),
		Conversation: consumer.Conversation[strings.LastIndexByte(consumer.Conversation, '/')+1:],
	}
	var result struct {
		RequestID string
		File      struct{ StoragePath string }
	}
	err = r.command(ctx, map[string]any{
		"op": "upload", "client": "cuts", "source": map[string]any{"kind": []string{"bytes", "path", "seekable"}[i%3], "path": path},
		"options": map[string]any{"conversation": consumer.Conversation, "caption": u.Mark},
	}, &result)
	if _, failed := err.(*driverError); failed {
		u.Reason = err.Error()
		return u, nil // the auditor reports it
	}
	u.Outcome, u.StoragePath, u.RequestID = audit.Acknowledged, result.File.StoragePath, result.RequestID
	return u, err
}

// sequences sets the sequences of the messages, as a listing has them.
func sequences(ctx context.Context, consumer harness.Consumer, uploads []audit.Upload) error {
	byPath := map[string]int64{}
	for f, err := range consumer.Files(ctx, lpfileshare.FilesOptions{Parent: consumer.Conversation}).All() {
		if err != nil {
			return err
		}
		byPath[f.GetStoragePath()] = f.GetMessageSequence()
	}
	for i := range uploads {
		uploads[i].Sequence = byPath[uploads[i].StoragePath]
	}
	return nil
}

// A driverError is the error of a command, in JSON.
type driverError struct{ text string }

// Error returns it.
func (e *driverError) Error() string { return e.text }

// command sends a command, and stores its result in into.
func (r *Runner) command(ctx context.Context, command map[string]any, into any) error {
	c, err := r.driver.Send(command)
	if err != nil {
		return err
	}
	answer, err := c.Answer(ctx)
	if err != nil {
		return err
	}
	if e, failed := answer["error"]; failed {
		return &driverError{fmt.Sprintf("%v failed: %s", command["op"], short(e))}
	}
	if into == nil {
		return nil
	}
	text, err := json.Marshal(answer["result"])
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
