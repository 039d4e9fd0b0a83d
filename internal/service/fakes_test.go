package service

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/iotest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/ledger/ledgertest"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// secret is part of everything that must never be logged or returned: tokens, signatures, bearers, passwords.
const secret = "s3cr3t"

// faults are what a test does to the calls of a fake, by method name. before can delay a call or fail it before it has any effect.
// after can lose its answer. The zero value has no faults.
type faults struct {
	mu            sync.Mutex
	before, after map[string]func(ctx context.Context) error
	calls         map[string]int
}

// on sets the function that is called before each call of method; nil: none.
func (f *faults) on(method string, before func(ctx context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before == nil {
		f.before = make(map[string]func(context.Context) error)
	}
	f.before[method] = before
}

// then sets the function that is called after each call of method; nil: none.
func (f *faults) then(method string, after func(ctx context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.after == nil {
		f.after = make(map[string]func(context.Context) error)
	}
	f.after[method] = after
}

// fail makes the next calls of method fail, one with each of errs.
func (f *faults) fail(method string, errs ...error) { f.on(method, inSequence(errs)) }

// failAlways makes all calls of method fail.
func (f *faults) failAlways(method string, err error) {
	f.on(method, func(context.Context) error { return err })
}

func inSequence(errs []error) func(context.Context) error {
	var mu sync.Mutex
	return func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
}

func (f *faults) enter(ctx context.Context, method string) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = make(map[string]int)
	}
	f.calls[method]++
	do := f.before[method]
	f.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if do == nil {
		return nil
	}
	return do(ctx)
}

func (f *faults) leave(ctx context.Context, method string) error {
	f.mu.Lock()
	do := f.after[method]
	f.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

func (f *faults) count(methods ...string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, m := range methods {
		n += f.calls[m]
	}
	return n
}

// A fakeMessenger is a Messenger in memory: conversations, their messages, and their participants.
type fakeMessenger struct {
	unreadable map[string]*share.Error // by dialog
	faults
	state   sync.Mutex
	tokens  map[string]share.Principal
	opened  map[string]bool      // by token
	convs   []share.Conversation // oldest first
	files   []share.FileEvent
	changed chan struct{} // closed and replaced when files are added
	open    int           // sessions that were not released
	paths   int
	sigs    int
	urlLife time.Duration
	sight   share.Sight
	marked  []string
	unread  atomic.Bool // what Unread returns
	unknown atomic.Bool // the session knows no conversation
}

func newFakeMessenger() *fakeMessenger {
	return &fakeMessenger{tokens: make(map[string]share.Principal), opened: make(map[string]bool), changed: make(chan struct{}), urlLife: time.Minute}
}

func (l *fakeMessenger) Session(ctx context.Context, c share.Credential) (Session, error) {
	if err := l.enter(ctx, "Session"); err != nil {
		return nil, err
	}
	l.state.Lock()
	defer l.state.Unlock()
	p, ok := l.tokens[c.Secret]
	if !ok {
		return nil, share.Errorf(share.TokenInvalid, "LivePerson does not accept the token", nil)
	}
	if c.Scheme == share.ExternalConsumerID {
		p.Caller = c.Caller
	}
	l.open++
	l.opened[c.Secret] = true
	return &fakeSession{fakeMessenger: l, p: p}, nil
}

func (l *fakeMessenger) Opened(c share.Credential) bool {
	l.state.Lock()
	defer l.state.Unlock()
	return l.opened[c.Secret]
}

func (l *fakeMessenger) End(c share.Credential) { _ = l.enter(context.Background(), "End") }

func (l *fakeMessenger) sessions() int {
	l.state.Lock()
	defer l.state.Unlock()
	return l.open
}

func (l *fakeMessenger) addConversation(id string, open bool, who ...string) {
	l.state.Lock()
	defer l.state.Unlock()
	c := share.Conversation{ID: id, Open: open, Start: time.Unix(int64(len(l.convs)), 0), Dialogs: []share.Dialog{{ID: id, Type: "MAIN", Open: open}}}
	for _, w := range who {
		c.Participants = append(c.Participants, share.Participant{ID: w, Role: share.RoleConsumer})
	}
	l.convs = append(l.convs, c)
}

// send sends a file to the main dialog of a conversation, as another client.
func (l *fakeMessenger) send(conversation, path, sender string) share.FileEvent {
	return l.sendFile(conversation, sender, share.HostedFile{StoragePath: path, FileType: "JPG"})
}

func (l *fakeMessenger) sendFile(conversation, sender string, f share.HostedFile) share.FileEvent {
	l.state.Lock()
	defer l.state.Unlock()
	e := share.FileEvent{Conversation: conversation, Dialog: conversation, SenderID: sender, SenderRole: share.RoleConsumer, Time: time.Now(), File: f}
	for _, x := range l.files {
		if x.Dialog == e.Dialog {
			e.Sequence = x.Sequence + 1
		}
	}
	l.files = append(l.files, e)
	close(l.changed)
	l.changed = make(chan struct{})
	return e
}

func (l *fakeMessenger) messages() []share.FileEvent {
	l.state.Lock()
	defer l.state.Unlock()
	return slices.Clone(l.files)
}

type fakeSession struct {
	*fakeMessenger
	p        share.Principal
	released bool
}

func (s *fakeSession) Principal() share.Principal { return s.p }

func (s *fakeSession) Release() {
	s.state.Lock()
	defer s.state.Unlock()
	if s.released {
		panic("a session was released twice")
	}
	s.released = true
	s.open--
}

func (s *fakeSession) enter(ctx context.Context, method string) error {
	s.state.Lock()
	released := s.released
	s.state.Unlock()
	if released {
		panic(method + " on a session that was released")
	}
	return s.fakeMessenger.enter(ctx, method)
}

func (s *fakeSession) UploadURL(ctx context.Context, size int64, t share.FileType) (share.TempURL, error) {
	if err := s.enter(ctx, "UploadURL"); err != nil {
		return share.TempURL{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	s.paths++
	return s.sign(fmt.Sprintf("/v1/AUTH_async/%s/%s/%d.%s", s.p.Account, s.p.ID, s.paths, t)), nil
}

func (s *fakeSession) sign(path string) share.TempURL {
	s.sigs++
	return share.TempURL{Path: path, Sig: fmt.Sprintf("%s-sig-%d", secret, s.sigs), Expires: "1", ExpireTime: time.Now().Add(s.urlLife)}
}

func (s *fakeSession) DownloadURL(ctx context.Context, path string) (share.TempURL, error) {
	if err := s.enter(ctx, "DownloadURL"); err != nil {
		return share.TempURL{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	return s.sign(path), nil
}

func (s *fakeSession) PublishFile(ctx context.Context, conversation, _ string, f share.HostedFile) (int64, error) {
	if err := s.enter(ctx, "PublishFile"); err != nil {
		return 0, err
	}
	e := s.sendFile(conversation, s.p.ID, f)
	return e.Sequence, s.leave(ctx, "PublishFile")
}

func (s *fakeSession) MarkAccessed(ctx context.Context, conversation, _ string, seq int64) error {
	return s.mark(ctx, "accessed", conversation, seq)
}

func (s *fakeSession) MarkAccepted(ctx context.Context, conversation, _ string, seq int64) error {
	return s.mark(ctx, "accepted", conversation, seq)
}

func (s *fakeSession) mark(ctx context.Context, how, conversation string, seq int64) error {
	if err := s.enter(ctx, "Mark"); err != nil {
		return err
	}
	s.state.Lock()
	defer s.state.Unlock()
	s.marked = append(s.marked, fmt.Sprintf("%s %s %d", how, conversation, seq))
	return nil
}

func (s *fakeSession) sees(c share.Conversation) bool {
	return slices.ContainsFunc(c.Participants, func(p share.Participant) bool { return p.ID == s.p.ID })
}

func (s *fakeSession) find(id string) (int, error) {
	for i, c := range s.convs {
		if c.ID == id && s.sees(c) {
			return i, nil
		}
	}
	return 0, share.Errorf(share.ConversationNotFound, "there is no such conversation", nil)
}

func (s *fakeSession) CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error) {
	if err := s.enter(ctx, "CreateConversation"); err != nil {
		return share.Conversation{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	id := fmt.Sprintf("created-%d", len(s.convs))
	c := share.Conversation{
		ID: id, Open: true, Start: time.Now(), SkillID: n.SkillID,
		Participants: []share.Participant{{ID: s.p.ID, Role: s.p.Role}},
	}
	s.convs = append(s.convs, c)
	return c, nil
}

func (s *fakeSession) Conversation(ctx context.Context, id string) (share.Conversation, error) {
	if err := s.enter(ctx, "Conversation"); err != nil {
		return share.Conversation{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	i, err := s.find(id)
	if err != nil {
		return share.Conversation{}, err
	}
	return s.convs[i], nil
}

func (s *fakeSession) ListConversations(ctx context.Context) ([]share.Conversation, error) {
	if err := s.enter(ctx, "ListConversations"); err != nil {
		return nil, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	var mine []share.Conversation
	for _, c := range s.convs {
		if s.sees(c) {
			mine = append(mine, c)
		}
	}
	slices.Reverse(mine)
	return mine, nil
}

func (s *fakeSession) RefreshConversations(ctx context.Context) ([]share.Conversation, error) {
	return s.ListConversations(ctx)
}

func (s *fakeSession) CloseConversation(ctx context.Context, id string) (share.Conversation, error) {
	if err := s.enter(ctx, "CloseConversation"); err != nil {
		return share.Conversation{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	i, err := s.find(id)
	if err != nil {
		return share.Conversation{}, err
	}
	c := &s.convs[i]
	if c.Open {
		c.Open, c.End = false, time.Now()
		c.Dialogs = slices.Clone(c.Dialogs)
		for j := range c.Dialogs {
			c.Dialogs[j].Open = false
		}
	}
	return *c, nil
}

// Sight returns the sight that the test has set.
func (s *fakeSession) Sight() share.Sight {
	s.state.Lock()
	defer s.state.Unlock()
	return s.sight
}

func (s *fakeSession) FindFile(ctx context.Context, conversation, dialog, path string) (share.FileEvent, error) {
	if err := s.enter(ctx, "FindFile"); err != nil {
		return share.FileEvent{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	if _, err := s.find(conversation); err != nil {
		return share.FileEvent{}, err
	}
	for _, e := range s.files {
		if e.Conversation == conversation && (dialog == "" || e.Dialog == dialog) && e.File.StoragePath == path {
			return e.Brief(), nil
		}
	}
	return share.FileEvent{}, share.Errorf(share.FileNotFound, "there is no such file", nil)
}

func (s *fakeSession) Unread(conversation, dialog string) bool { return s.unread.Load() }

func (s *fakeSession) Knows(conversation string) bool { return !s.unknown.Load() }

// visible returns the files of a conversation ("": of all), in the order of ListFiles, and the dialogs.
func (s *fakeSession) visible(conversation string) (files []share.FileEvent, dialogs []string, err error) {
	if conversation != "" {
		if _, err := s.find(conversation); err != nil {
			return nil, nil, err
		}
	}
	for _, c := range s.convs {
		if s.sees(c) && (conversation == "" || c.ID == conversation) {
			dialogs = append(dialogs, c.ID)
			for _, e := range s.files {
				if e.Conversation == c.ID {
					files = append(files, e)
				}
			}
		}
	}
	return files, dialogs, nil
}

func (s *fakeSession) ListFiles(ctx context.Context, conversation string, upTo share.Cursor) (share.FileList, error) {
	if err := s.enter(ctx, "ListFiles"); err != nil {
		return share.FileList{}, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	files, dialogs, err := s.visible(conversation)
	if err != nil {
		return share.FileList{}, err
	}
	list := share.FileList{Cursor: make(share.Cursor)}
	for _, d := range dialogs {
		if s.unreadable[d] != nil {
			list.Unreadable = append(list.Unreadable, share.UnreadableDialog{Conversation: d, Dialog: d, Last: -1, Err: s.unreadable[d]})
			continue
		}
		list.Cursor[d] = -1
	}
	for _, e := range files {
		if s.unreadable[e.Dialog] != nil {
			continue
		}
		list.Cursor[e.Dialog] = e.Sequence
		n := len(list.Dialogs) - 1
		if n < 0 || list.Dialogs[n].Dialog != e.Dialog {
			list.Dialogs = append(list.Dialogs, share.DialogFiles{Conversation: e.Conversation, Dialog: e.Dialog})
			n++
		}
		list.Dialogs[n].Files = append(list.Dialogs[n].Files, e.Brief())
	}
	return list, nil
}

func (s *fakeSession) Complete(ctx context.Context, files []share.FileEvent) ([]share.UnreadableDialog, error) {
	if err := s.enter(ctx, "Complete"); err != nil {
		return nil, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	for i, e := range files {
		for _, f := range s.files {
			if e.Omitted > 0 && f.Dialog == e.Dialog && f.Sequence == e.Sequence {
				files[i] = f
			}
		}
	}
	return nil, nil
}

func (s *fakeSession) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (FileWatch, error) {
	if err := s.enter(ctx, "WatchFiles"); err != nil {
		return nil, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	if conversation != "" {
		if _, err := s.find(conversation); err != nil {
			return nil, err
		}
	}
	at := maps.Clone(after)
	if at == nil {
		at = make(share.Cursor)
	}
	return &fakeWatch{s: s, conversation: conversation, at: at}, nil
}

type fakeWatch struct {
	s            *fakeSession
	conversation string
	at           share.Cursor
}

func (w *fakeWatch) Next(ctx context.Context) (share.FileEvent, error) {
	for {
		if err := w.s.enter(ctx, "Next"); err != nil {
			return share.FileEvent{}, err
		}
		w.s.state.Lock()
		files, _, _ := w.s.visible(w.conversation)
		changed := w.s.changed
		w.s.state.Unlock()
		for _, e := range files {
			if last, seen := w.at[e.Dialog]; !seen || e.Sequence > last {
				w.at[e.Dialog] = e.Sequence
				return e, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return share.FileEvent{}, context.Cause(ctx)
		}
	}
}

func (w *fakeWatch) Cursor() share.Cursor { return maps.Clone(w.at) }
func (w *fakeWatch) Close()               {}

// A fakeStore is a Store in memory. It records each PUT, including those that fail.
type fakeStore struct {
	faults
	state   sync.Mutex
	objects map[string][]byte
	puts    []*recordedPut
	// midway is called during a PUT with the bytes read so far. An error ends the PUT.
	midway func(put, read int) error
	// answer changes the answer to a PUT that was committed.
	answer func(*share.StoredObject)
	// breaks has, for each of the next GETs, the bytes after which it ends early; negative: it does not.
	breaks []int
	// body changes how the body of a GET is read; nil: not at all.
	body func(io.Reader) io.Reader
	gets []string
	// described changes what GETs say of an object; nil: nothing.
	described func(*share.StoredObject)
}

// A recordedPut is what a PUT read of its body, and the error that ended the body: io.EOF if it was complete.
type recordedPut struct {
	path string
	size int64
	got  []byte
	end  error
}

func newFakeStore() *fakeStore { return &fakeStore{objects: make(map[string][]byte)} }

func (w *fakeStore) Put(ctx context.Context, _ string, u share.TempURL, size int64, _ string, body io.ReadCloser) (share.StoredObject, error) {
	defer body.Close()
	defer context.AfterFunc(ctx, func() { body.Close() })()
	if err := w.enter(ctx, "Put"); err != nil {
		return share.StoredObject{}, err
	}
	w.state.Lock()
	p := &recordedPut{path: u.Path, size: size}
	w.puts = append(w.puts, p)
	number, midway := len(w.puts), w.midway
	w.state.Unlock()
	buf := make([]byte, 10_000)
	for {
		n, err := body.Read(buf)
		w.state.Lock()
		p.got, p.end = append(p.got, buf[:n]...), err
		read := len(p.got)
		w.state.Unlock()
		if midway != nil {
			if broken := midway(number, read); broken != nil {
				return share.StoredObject{}, broken
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return share.StoredObject{}, err
		}
	}
	if int64(len(p.got)) != size {
		return share.StoredObject{}, errors.New("the body does not have the declared length")
	}
	if err := w.leave(ctx, "Put"); err != nil {
		return share.StoredObject{}, err
	}
	w.keep(u.Path, p.got)
	o := describe(p.got)
	if w.answer != nil {
		w.answer(&o)
	}
	return o, nil
}

func describe(b []byte) share.StoredObject {
	sum := md5.Sum(b)
	return share.StoredObject{Size: int64(len(b)), ETag: share.ETag(hex.EncodeToString(sum[:]))}
}

func (w *fakeStore) keep(path string, b []byte) {
	w.state.Lock()
	defer w.state.Unlock()
	w.objects[path] = bytes.Clone(b)
}

func (w *fakeStore) object(path string) []byte {
	w.state.Lock()
	defer w.state.Unlock()
	return w.objects[path]
}

func (w *fakeStore) stored() int {
	w.state.Lock()
	defer w.state.Unlock()
	return len(w.objects)
}

// recordedPuts returns the PUTs so far.
func (w *fakeStore) recordedPuts() []recordedPut {
	w.state.Lock()
	defer w.state.Unlock()
	var all []recordedPut
	for _, p := range w.puts {
		all = append(all, recordedPut{p.path, p.size, bytes.Clone(p.got), p.end})
	}
	return all
}

func (w *fakeStore) Get(ctx context.Context, _ string, u share.TempURL, start, limit int64, ifMatch share.ETag) (*share.ObjectReader, error) {
	if err := w.enter(ctx, "Get"); err != nil {
		return nil, err
	}
	w.state.Lock()
	defer w.state.Unlock()
	w.gets = append(w.gets, fmt.Sprintf("%d+%d if %s", start, limit, ifMatch))
	b, ok := w.objects[u.Path]
	if !ok {
		return nil, share.Errorf(share.FileNotFound, "there is no such file", nil)
	}
	o := &share.ObjectReader{StoredObject: describe(b)}
	if w.described != nil {
		w.described(&o.StoredObject)
	}
	if ifMatch != "" && !ifMatch.Matches(o.ETag) {
		return nil, share.Errorf(share.FileChanged, "the file is another one by now", nil)
	}
	if o.Start = start; start < 0 {
		o.Start = max(0, o.Size+start)
	}
	if o.Start > o.Size || o.Start == o.Size && start > 0 {
		return nil, share.Reject(share.RangeNotSatisfiable, "the range lies outside of the file").With("sizeBytes", share.Itoa(o.Size))
	}
	if o.End = o.Size; limit > 0 && limit < o.End-o.Start {
		o.End = o.Start + limit
	}
	part := bytes.Clone(b[o.Start:o.End])
	var end error = io.EOF
	if len(w.breaks) > 0 {
		if n := w.breaks[0]; n >= 0 {
			part, end = part[:min(n, len(part))], share.Errorf(share.StorageTruncated, "the store ended the file early", nil)
		}
		w.breaks = w.breaks[1:]
	}
	body := io.MultiReader(bytes.NewReader(part), iotest.ErrReader(end))
	if w.body != nil {
		body = w.body(body)
	}
	o.Body = io.NopCloser(body)
	return o, nil
}

func (w *fakeStore) Head(ctx context.Context, _ string, u share.TempURL) (share.StoredObject, error) {
	if err := w.enter(ctx, "Head"); err != nil {
		return share.StoredObject{}, err
	}
	b := w.object(u.Path)
	if b == nil {
		return share.StoredObject{}, share.Errorf(share.FileNotFound, "there is no such file", nil)
	}
	return describe(b), nil
}

// A fakeLedger is the ledger in memory, with faults.
type fakeLedger struct {
	faults
	*ledgertest.Memory
	unfinished sync.Map // attempts that wrote a record and have not finished
}

func (l *fakeLedger) Finish(key, attempt string) { l.unfinished.Delete(key + attempt) }

func (l *fakeLedger) Load(ctx context.Context, key string) (share.Record, uint64, error) {
	if err := l.enter(ctx, "Load"); err != nil {
		return share.Record{}, 0, err
	}
	return l.Memory.Load(ctx, key)
}

func (l *fakeLedger) Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error) {
	if err := l.enter(ctx, "Save"); err != nil {
		return 0, err
	}
	if err := l.enter(ctx, "Save "+string(r.State)); err != nil {
		return 0, err
	}
	n, err := l.Memory.Save(ctx, key, r, rev)
	if err != nil {
		return 0, err
	}
	err = l.leave(ctx, "Save "+string(r.State))
	if err == nil && r.Attempt != "" {
		l.unfinished.Store(key+r.Attempt, true)
	}
	return n, err
}

func (l *fakeLedger) LoadCreation(ctx context.Context, key string) (share.CreationRecord, uint64, error) {
	if err := l.enter(ctx, "Load"); err != nil {
		return share.CreationRecord{}, 0, err
	}
	return l.Memory.LoadCreation(ctx, key)
}

func (l *fakeLedger) SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error) {
	if err := l.enter(ctx, "Save"); err != nil {
		return 0, err
	}
	if err := l.enter(ctx, "Save "+string(r.State)); err != nil {
		return 0, err
	}
	n, err := l.Memory.SaveCreation(ctx, key, r, rev)
	if err != nil {
		return 0, err
	}
	return n, l.leave(ctx, "Save "+string(r.State))
}

// A fakeImages is an Images. A fitted image has half the bytes, and is a JPEG.
type fakeImages struct{ faults }

func (l *fakeImages) Fit(ctx context.Context, job share.ImageJob) (*share.FittedImage, error) {
	if err := l.enter(ctx, "Fit"); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(job.Open())
	if err != nil || int64(len(b)) != job.Size {
		return nil, fmt.Errorf("the image has %d bytes, and not %d: %w", len(b), job.Size, err)
	}
	if bytes.HasSuffix(b, []byte("clean")) && job.Size <= job.MaxBytes {
		return nil, nil
	}
	if _, err := job.Create().Write(bytes.Repeat([]byte("discarded "), 3000)); err != nil {
		return nil, err
	}
	if _, err := job.Create().Write(b[:len(b)/2]); err != nil {
		return nil, err
	}
	fitted := &share.FittedImage{Type: share.JPEG, Change: share.ImageChange{
		InputSize: job.Size, InputType: job.Type, Input: share.ImageInfo{Width: 40, Height: 30}, Stored: share.ImageInfo{Width: 15, Height: 20},
		Recoded: true, Rotated: true, Scaled: true, JPEGQuality: 82, Removed: []share.ImageMetadata{share.MetadataEXIF, share.MetadataOther}, TrailingBytes: 7,
	}}
	if job.PreviewChars > 0 && job.Fit {
		fitted.Preview = fittedPreview
	}
	return fitted, nil
}

const fittedPreview = "data:image/jpeg;base64,Zml0dGVk"

const madePreview = "data:image/jpeg;base64,bWFkZQ=="

func (l *fakeImages) Inspect(_ share.FileType, image io.Reader) (share.ImageInfo, error) {
	if _, err := io.Copy(io.Discard, image); err != nil {
		return share.ImageInfo{}, err
	}
	return share.ImageInfo{Width: 1, Height: 1}, l.enter(context.Background(), "Inspect")
}

func (l *fakeImages) Verify(_ share.FileType, image io.Reader) error {
	b, err := io.ReadAll(image)
	if err == nil && bytes.Contains(b, []byte("<html>")) {
		err = share.Errorf(share.ImageInvalid, "the image is damaged", nil)
	}
	return err
}

func (l *fakeImages) Preview(ctx context.Context, _ share.FileType, open func() io.Reader, _ int) (string, error) {
	if err := l.enter(ctx, "Preview"); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, open()); err != nil {
		return "", err
	}
	return madePreview, nil
}

// A fakeAccounts is an Accounts in memory.
type fakeAccounts struct {
	faults
	state   sync.Mutex
	bearers map[string]bool
	on      bool
}

func (o *fakeAccounts) signIn(ctx context.Context, secrets ...string) (share.SignIn, error) {
	if err := o.enter(ctx, "SignIn"); err != nil {
		return share.SignIn{}, err
	}
	for _, s := range secrets {
		if !strings.Contains(s, secret) {
			return share.SignIn{}, share.Errorf(share.LPCredentialsRejected, "LivePerson rejects the credentials", nil)
		}
	}
	return share.SignIn{Token: "token-" + secret, RenewalSecret: "renewal-" + secret, Expires: time.Unix(5e9, 0), ID: "alice"}, nil
}

func (o *fakeAccounts) SignUp(ctx context.Context, _ string) (share.SignIn, error) {
	return o.signIn(ctx)
}
func (o *fakeAccounts) SignInAnonymous(ctx context.Context, _, connector string) (share.SignIn, error) {
	return o.signIn(ctx, connector)
}
func (o *fakeAccounts) Authenticate(ctx context.Context, _, code string) (share.SignIn, error) {
	return o.signIn(ctx, code)
}
func (o *fakeAccounts) Renew(ctx context.Context, _, renewal string) (share.SignIn, error) {
	return o.signIn(ctx, renewal)
}
func (o *fakeAccounts) SignInAgent(ctx context.Context, _, _, password string) (share.SignIn, error) {
	return o.signIn(ctx, password)
}
func (o *fakeAccounts) SignInBot(ctx context.Context, _ string, k share.BotKeys) (share.SignIn, error) {
	return o.signIn(ctx, k.AppKey, k.Secret, k.AccessToken, k.AccessTokenSecret)
}

func (o *fakeAccounts) SignOutAgent(ctx context.Context, g share.AgentGrant) error {
	if g.Bearer == "" || g.Account != account {
		return kindError(share.Internal)
	}
	return o.enter(ctx, "SignOutAgent")
}

func (o *fakeAccounts) FileSharing(ctx context.Context, g share.AgentGrant) (bool, error) {
	if err := o.enter(ctx, "FileSharing"); err != nil {
		return false, err
	}
	o.state.Lock()
	defer o.state.Unlock()
	if !o.bearers[g.Bearer] {
		return false, share.Errorf(share.TokenInvalid, "LivePerson does not accept the token", nil)
	}
	return o.on, nil
}

func (o *fakeAccounts) SetFileSharing(ctx context.Context, g share.AgentGrant, on bool) error {
	if _, err := o.FileSharing(ctx, g); err != nil {
		return err
	}
	o.state.Lock()
	defer o.state.Unlock()
	o.on = on
	return nil
}
