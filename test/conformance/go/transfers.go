package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var (
	errSource = errors.New("source failed")
	errSink   = errors.New("sink failed")
)

// source is where the bytes of an upload come from.
type source struct {
	Kind, Path                        string
	FailAfter, DelayMs, DeclaredBytes int
}

// sink is where those of a download go.
type sink struct {
	Kind, Path         string
	FailAfter, DelayMs int
}

type uploadOptions struct {
	Conversation, DialogID, DisplayName, FileType, Caption, Preview string
	Image                                                           []string
	RequestID, PublishMode                                          string
	ValidateOnly                                                    bool
	WantChecksums                                                   []string
	ChunkBytes, RetryForMs                                          int
}

func (d *driver) upload(ctx context.Context, client *lpfileshare.Client, c command) (any, error) {
	var in uploadOptions
	if err := json.Unmarshal(c.Options, &in); err != nil {
		return nil, err
	}
	o := lpfileshare.UploadOptions{
		Conversation: in.Conversation, DialogID: in.DialogID, DisplayName: in.DisplayName,
		FileType: value[pb.FileType](pb.FileType_value, "FILE_TYPE_", in.FileType), Caption: in.Caption,
		RequestID: in.RequestID, PublishMode: value[pb.PublishMode](pb.PublishMode_value, "PUBLISH_MODE_", in.PublishMode),
		ValidateOnly: in.ValidateOnly, WantChecksums: checksums(in.WantChecksums), ChunkBytes: in.ChunkBytes,
		RetryFor: time.Duration(in.RetryForMs) * time.Millisecond,
	}
	switch {
	case in.Preview == "generate":
		o.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
	case in.Preview != "":
		o.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: in.Preview}}
	}
	if len(in.Image) > 0 {
		o.Image = &pb.ImageOptions{Fit: slices.Contains(in.Image, "fit"), StripMetadata: slices.Contains(in.Image, "strip")}
	}
	o.OnProgress = d.progress(c)
	r, err := send(ctx, client, o, c.Source)
	if err != nil {
		return nil, err
	}
	var image any
	if i := r.GetImage(); i != nil {
		removed := []any{}
		for _, m := range i.GetRemovedMetadata() {
			removed = append(removed, enum(m, "IMAGE_METADATA_"))
		}
		image = object{
			"inputSizeBytes": i.GetInputSizeBytes(), "recoded": i.GetRecoded(), "scaled": i.GetScaled(), "removedMetadata": removed,
		}
	}
	return object{
		"upload": r.GetUpload(), "requestId": r.GetRequestId(), "replayed": r.GetReplayed(), "previewOmitted": r.GetPreviewOmitted(),
		"file": file(r.GetFile()), "image": image,
	}, nil
}

func send(ctx context.Context, client *lpfileshare.Client, o lpfileshare.UploadOptions, from source) (*pb.UploadResponse, error) {
	if from.Kind == "path" {
		return client.UploadFile(ctx, o, from.Path)
	}
	data, err := os.ReadFile(from.Path)
	if err != nil {
		return nil, err
	}
	slow := &slowReader{ctx: ctx, failAfter: from.FailAfter, failure: errSource, delay: time.Duration(from.DelayMs) * time.Millisecond}
	switch from.Kind {
	case "bytes":
		return client.UploadBytes(ctx, o, data)
	case "stream":
		slow.r = bytes.NewReader(data)
		return client.Upload(ctx, o, struct{ io.Reader }{slow})
	}
	s := &seekable{slowReader: slow, passes: [][]byte{data}}
	if n := from.DeclaredBytes; n > 0 {
		s.passes = [][]byte{append(bytes.Clone(data), make([]byte, max(0, n-len(data)))...)[:n], data}
	}
	s.rewind()
	return client.Upload(ctx, o, s)
}

// slowReader fails and waits as the runner asks.
type slowReader struct {
	ctx       context.Context
	r         io.Reader
	failAfter int // 0: does not fail
	failure   error
	delay     time.Duration // after each 64 KiB
	n         int
}

// Read reads at most to the next place where something is to happen.
func (s *slowReader) Read(p []byte) (int, error) {
	if s.failAfter > 0 && s.n >= s.failAfter {
		return 0, s.failure
	}
	if s.delay > 0 {
		p = p[:min(len(p), 64<<10)]
	}
	if s.failAfter > 0 {
		p = p[:min(len(p), s.failAfter-s.n)]
	}
	n, err := s.r.Read(p)
	if s.delay > 0 && (s.n+n)>>16 > s.n>>16 {
		select {
		case <-time.After(s.delay):
		case <-s.ctx.Done():
		}
	}
	s.n += n
	return n, err
}

// seekable can be read again from its beginning. Its bytes can differ from pass to pass.
type seekable struct {
	*slowReader
	passes [][]byte // the last one stays
	used   bool
}

func (s *seekable) rewind() {
	if s.used && len(s.passes) > 1 {
		s.passes = s.passes[1:]
	}
	s.used = false
	s.slowReader.r, s.slowReader.n = bytes.NewReader(s.passes[0]), 0
}

// Read marks the pass as used.
func (s *seekable) Read(p []byte) (int, error) {
	s.used = true
	return s.slowReader.Read(p)
}

// Seek accepts what a client asks of a source: its position, and its beginning.
func (s *seekable) Seek(offset int64, whence int) (int64, error) {
	switch {
	case whence == io.SeekCurrent && offset == 0:
		return int64(s.n), nil
	case whence == io.SeekStart && offset == 0:
		s.rewind()
		return 0, nil
	}
	return 0, fmt.Errorf("cannot seek to %d from %d", offset, whence)
}

type downloadOptions struct {
	Offset, Limit          int64
	IfMatchEtag            string
	ChunkBytes, RetryForMs int
}

func (d *driver) download(ctx context.Context, client *lpfileshare.Client, c command) (any, error) {
	var in downloadOptions
	if len(c.Options) > 0 {
		if err := json.Unmarshal(c.Options, &in); err != nil {
			return nil, err
		}
	}
	o := lpfileshare.DownloadOptions{
		Name: c.File, Offset: in.Offset, Limit: in.Limit, IfMatchETag: in.IfMatchEtag, ChunkBytes: int32(in.ChunkBytes),
		RetryFor: time.Duration(in.RetryForMs) * time.Millisecond,
	}
	o.OnProgress = d.progress(c)
	into := &slowWriter{ctx: ctx, hash: sha256.New(), failAfter: c.Sink.FailAfter, delay: time.Duration(c.Sink.DelayMs) * time.Millisecond}
	header, err := receive(ctx, client, o, c.Sink, into)
	if err != nil {
		return nil, err
	}
	return object{
		"file": file(header.GetFile()), "bytes": into.n, "sha256": hex.EncodeToString(into.hash.Sum(nil)),
		"start": header.GetContentRange().GetStartBytes(), "total": header.GetContentRange().GetTotalBytes(),
	}, nil
}

func receive(ctx context.Context, client *lpfileshare.Client, o lpfileshare.DownloadOptions, to sink, into *slowWriter) (*pb.DownloadHeader, error) {
	switch to.Kind {
	case "path":
		r, err := client.DownloadFile(ctx, o, to.Path, false)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(to.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		_, err = io.Copy(into, f)
		return r.Header, err
	case "reader":
		r, err := client.OpenDownload(ctx, o)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		_, err = io.Copy(into, r)
		return r.Header(), err
	}
	r, err := client.Download(ctx, o, into)
	if err != nil {
		return nil, err
	}
	return r.Header, nil
}

// slowWriter fails and waits as the runner asks.
type slowWriter struct {
	ctx       context.Context
	hash      hash.Hash
	n         int
	failAfter int
	delay     time.Duration
}

// Write hashes what it gets.
func (w *slowWriter) Write(p []byte) (int, error) {
	if w.failAfter > 0 && w.n+len(p) > w.failAfter {
		return 0, errSink
	}
	if w.delay > 0 && (w.n+len(p))>>16 > w.n>>16 {
		select {
		case <-time.After(w.delay):
		case <-w.ctx.Done():
		}
	}
	w.n += len(p)
	w.hash.Write(p)
	return len(p), nil
}

// progress writes the first and last progress of an attempt, and one in each 256 KiB.
func (d *driver) progress(c command) func(n, total int64) {
	var mu sync.Mutex
	last := int64(-1)
	return func(n, total int64) {
		mu.Lock()
		due := last < 0 || n < last || n == total || n>>18 > last>>18
		if due {
			last = n
		}
		mu.Unlock()
		if due {
			d.event(c, object{"progress": []int64{n, total}})
		}
	}
}

func checksums(names []string) (kinds []pb.ChecksumKind) {
	for _, n := range names {
		kinds = append(kinds, value[pb.ChecksumKind](pb.ChecksumKind_value, "CHECKSUM_KIND_", n))
	}
	return kinds
}

type filesOptions struct {
	NewestFirst          bool
	PageSize             int32
	SenderRole, DialogID string
}

func files(ctx context.Context, client *lpfileshare.Client, c command) (any, error) {
	var in filesOptions
	if len(c.Options) > 0 {
		if err := json.Unmarshal(c.Options, &in); err != nil {
			return nil, err
		}
	}
	list := client.Files(ctx, lpfileshare.FilesOptions{
		Parent: c.Parent, NewestFirst: in.NewestFirst, PageSize: in.PageSize, DialogID: in.DialogID,
		SenderRole: value[pb.ParticipantRole](pb.ParticipantRole_value, "PARTICIPANT_ROLE_", in.SenderRole),
	})
	all, err := list.Collect()
	if err != nil {
		return nil, err
	}
	out, unreadable := []any{}, []string{}
	for _, f := range all {
		out = append(out, file(f))
	}
	for _, u := range list.Unreadable() {
		unreadable = append(unreadable, u.GetName())
	}
	return object{"files": out, "watchToken": list.WatchToken(), "unreadable": unreadable}, nil
}

func (d *driver) watch(ctx context.Context, client *lpfileshare.Client, c command) (any, error) {
	w := client.Watch(ctx, lpfileshare.WatchOptions{
		Parent: c.Parent, Token: c.Token, MaxSilence: time.Duration(c.MaxSilenceMs) * time.Millisecond,
		RetryFor: time.Duration(c.RetryForMs) * time.Millisecond,
		OnConnection: func(err error) {
			state := "open"
			if err != nil {
				state = "lost"
			}
			d.event(c, object{"connection": state})
		},
	})
	got := []any{}
	for f, err := range w.All() {
		if err != nil {
			return nil, err
		}
		got = append(got, file(f))
		d.event(c, object{"file": file(f), "token": w.Token()})
		if c.DelayMs > 0 {
			select {
			case <-time.After(time.Duration(c.DelayMs) * time.Millisecond):
			case <-ctx.Done():
			}
		}
		if c.Limit > 0 && len(got) >= c.Limit {
			break
		}
	}
	return object{"files": got, "token": w.Token()}, nil
}
