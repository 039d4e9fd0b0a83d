package connector

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxKept is the number of conversations whose files are kept.
	maxKept = 10_000
	// concurrentReads is how many events one call reads from the log at the same time.
	concurrentReads = 8
)

// keptFiles is what is kept of a conversation's events: its files without previews, in the order of ListFiles, up to a position in the
// log.
type keptFiles struct {
	files *filecache.Dialog

	mu sync.Mutex
	// As of the last change of files.
	tails share.Cursor // the last sequence of each dialog with events
	first uint64       // the position of the first event
}

func (m *Messenger) keptOf(account, conversation string) *keptFiles {
	key := hubKey(account, conversation)
	k, ok := m.kept.Get(key)
	if !ok {
		k = &keptFiles{files: m.cfg.Cache.Dialog()}
		m.kept.Add(key, k)
	}
	return k
}

// get returns what is kept, if it belongs to a log that has the positions from first to last.
func (k *keptFiles) get(first, last uint64) (files []share.FileEvent, next uint64, tails share.Cursor, begin uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	files, at, ok := k.files.Files()
	if ok && (uint64(at) > last || k.first != 0 && k.first < first) {
		k.files.Drop() // the log is another one, or has dropped some of the events
		ok = false
	}
	if !ok {
		return nil, 0, share.Cursor{}, 0
	}
	return files, uint64(at), maps.Clone(k.tails), k.first
}

// add adds the news between the positions from and next to files, which get returned, and returns all of them.
func (k *keptFiles) add(files, news []share.FileEvent, from, next uint64, tails share.Cursor, begin uint64, order func(a, b share.FileEvent) int) []share.FileEvent {
	slices.SortFunc(news, order)
	inOrder := len(files) == 0 || len(news) == 0 || order(files[len(files)-1], news[0]) < 0
	k.mu.Lock()
	defer k.mu.Unlock()
	at, kept := k.files.Next()
	if kept && uint64(at) == from && inOrder {
		k.files.Append(int64(from), int64(next), news...)
		k.tails, k.first = tails, begin
		if all, at, ok := k.files.Files(); ok && uint64(at) == next {
			return all
		}
	}
	all := slices.Concat(files, news)
	if !inOrder {
		slices.SortFunc(all, order)
	}
	if !kept || uint64(at) == from { // otherwise another call was faster
		k.files.Replace(int64(next), all)
		k.tails, k.first = tails, begin
	}
	return all
}

// ListFiles returns the known files of a conversation (empty: of all that the consumer takes part in), by conversation (oldest
// first), dialog (the main one first) and sequence, and the cursor after them. The files lack previews and long captions: see
// Complete. With upTo, only what was in the log at that cursor is returned. Without webhooks these are the files that were published
// through this server and those that share its log.
func (s *Session) ListFiles(ctx context.Context, conversation string, upTo share.Cursor) (share.FileList, error) {
	in, err := s.chosen(ctx, conversation)
	if err != nil {
		return share.FileList{}, err
	}
	first, last, err := s.m.events.Bounds(ctx)
	if err != nil {
		return share.FileList{}, err
	}
	if at, ok := upTo[share.LogPosition]; ok && at >= 0 {
		last = min(last, uint64(at))
	}
	list := share.FileList{Cursor: share.Cursor{share.LogPosition: int64(last)}}
	for _, c := range in {
		files, tails, err := s.read(ctx, c, first, last)
		if e, ok := tooLarge(err); ok && conversation == "" {
			list.Unreadable = append(list.Unreadable, share.UnreadableDialog{Conversation: c.ID, Dialog: c.ID, Last: -1, Err: e})
			continue
		}
		if err != nil {
			return share.FileList{}, err
		}
		list.Cursor[c.ID] = -1
		for _, d := range c.Dialogs {
			list.Cursor[d.ID] = -1
		}
		maps.Copy(list.Cursor, tails)
		for len(files) > 0 {
			n := slices.IndexFunc(files, func(e share.FileEvent) bool { return e.Dialog != files[0].Dialog })
			if n < 0 {
				n = len(files)
			}
			list.Dialogs = append(list.Dialogs, share.DialogFiles{Conversation: c.ID, Dialog: files[0].Dialog, Files: files[:n:n]})
			files = files[n:]
		}
	}
	return list, nil
}

// tooLarge reports whether err means that a conversation has too many files.
func tooLarge(err error) (*share.Error, bool) {
	e, _ := err.(*share.Error)
	return e, share.Is(err, share.ConversationTooLarge) && e != nil
}

// read returns the files of a conversation up to position last, in the order of ListFiles, and the last sequence of each dialog. It
// reads only what is not kept from the log.
func (s *Session) read(ctx context.Context, c share.Conversation, first, last uint64) ([]share.FileEvent, share.Cursor, error) {
	k, cache := s.m.keptOf(s.account, c.ID), s.m.cfg.Cache
	part := cache.Part()
	files, from, tails, begin := k.get(first, last)
	if from == last {
		return files, tails, nil
	}
	var news []share.FileEvent
	reserved := int64(0)
	defer func() { part.Release(reserved) }()
	err := s.m.events.Each(ctx, s.account, c.ID, from, last, func(e share.LoggedEvent) error {
		if begin == 0 {
			begin = e.Position
		}
		if at, seen := tails[e.Dialog]; !seen || e.Sequence > at {
			tails[e.Dialog] = e.Sequence
		}
		if e.File == nil {
			return nil
		}
		file := e.File.Brief()
		size := file.Size()
		switch {
		case reserved+size > cache.MaxDialog():
			return share.Errorf(share.ConversationTooLarge, "the conversation has more files than this server reads", nil)
		case !part.Reserve(size):
			return share.Reject(share.SessionLimit, "the server's memory for lists of files is in use; retry later").With("limit", "lists")
		}
		reserved += size
		news = append(news, file)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := s.learn(ctx, c, maps.Keys(tails)); err != nil {
		return nil, nil, err
	}
	order := func(a, b share.FileEvent) int {
		return cmp.Or(mainFirst(c.ID, a.Dialog, b.Dialog), cmp.Compare(a.Dialog, b.Dialog), cmp.Compare(a.Sequence, b.Sequence))
	}
	part.Release(reserved)
	reserved = 0
	return k.add(files, news, from, last, tails, begin, order), tails, nil
}

func mainFirst(main, a, b string) int {
	switch {
	case a == b:
		return 0
	case a == main:
		return -1
	case b == main:
		return 1
	}
	return 0
}

// Complete adds, in place, the previews and captions that files lack. Files that the log has dropped stay as they are.
func (s *Session) Complete(ctx context.Context, files []share.FileEvent) ([]share.UnreadableDialog, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *share.FileEvent)
	var readers sync.WaitGroup
	for range min(concurrentReads, len(files)) {
		readers.Go(func() {
			for e := range next {
				if err := s.complete(ctx, e); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range files {
		if files[i].Omitted == 0 {
			continue
		}
		select {
		case next <- &files[i]:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	readers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, nil
}

func (s *Session) complete(ctx context.Context, e *share.FileEvent) error {
	logged, ok, err := s.m.events.Event(ctx, s.account, e.Conversation, e.Dialog, e.Sequence)
	if err == nil && ok && logged.File != nil && logged.File.File.StoragePath == e.File.StoragePath {
		*e = *logged.File
	}
	return err
}

// learn adds dialogs to the record of a conversation that only its events name: LivePerson may report the conversation later.
func (s *Session) learn(ctx context.Context, c share.Conversation, dialogs iter.Seq[string]) error {
	for dialog := range dialogs {
		if _, ok := c.Dialog(dialog); ok {
			continue
		}
		d := share.Dialog{ID: dialog, Open: c.Open}
		c.Dialogs = append(slices.Clip(c.Dialogs), d)
		err := s.m.events.ChangeConversation(ctx, s.account, s.principal.ID, c.ID, func(l share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
			_, there := l.Dialog(d.ID)
			l.Dialogs = append(slices.Clip(l.Dialogs), d)
			return l, known && !there
		})
		if err != nil {
			return err
		}
	}
	return nil
}
