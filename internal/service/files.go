package service

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Sizes of a page.
const (
	defaultPage = 50
	maxPage     = 1000
	// maxPageBytes ends a page early: previews make files large, and most clients accept messages of up to 4 MiB.
	maxPageBytes = 1 << 20
)

// StatFile is the contract's StatFile.
func (s *Server) StatFile(ctx context.Context, req *lpfilesharev1.StatFileRequest) (*lpfilesharev1.StatFileResponse, error) {
	ref, err := sourceRef(nil, req.GetName(), req.GetStorage())
	if err != nil {
		return nil, err
	}
	factsOf(ctx).names(ref.conversation, ref.storagePath)
	session, err := s.session(ctx, ref.account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	found, err := s.find(ctx, session, ref)
	if err != nil {
		return nil, err
	}
	if err := found.complete(ctx, session, ref.account, true); err != nil {
		return nil, err
	}
	stat, err := s.object(session, ref).Stat(ctx)
	if err != nil {
		return nil, err
	}
	found.file.StoredSizeBytes, found.file.Etag = knownSize(stat), string(stat.ETag)
	return &lpfilesharev1.StatFileResponse{File: found.file}, nil
}

// ListFiles is the contract's ListFiles. The first page fixes the end of the listing. Later pages and the watch token keep to it,
// so a listing and its watch neither miss nor repeat a file, however long the paging takes.
func (s *Server) ListFiles(ctx context.Context, req *lpfilesharev1.ListFilesRequest) (*lpfilesharev1.ListFilesResponse, error) {
	var v violations
	account, conversation := checkFilesParent(&v, req.GetParent())
	size := pageSize(&v, req.GetPageSize())
	if d := req.GetDialogId(); d != "" && !validID(d) {
		v.add("dialog_id", dialogIDRule)
	}
	if _, known := lpfilesharev1.ParticipantRole_name[int32(req.GetSenderRole())]; !known {
		v.add("sender_role", "must be one of the ParticipantRole values, not %d", req.GetSenderRole())
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	of := listingOf(req)
	page, err := readToken(req.GetPageToken(), pageOfFiles, of)
	if err != nil {
		return nil, err
	}
	factsOf(ctx).names(conversation, "")
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	var upTo share.Cursor
	if req.GetPageToken() != "" {
		upTo = page.Cursor
	}
	list, err := session.ListFiles(ctx, conversation, upTo)
	if err != nil {
		return nil, err
	}
	if req.GetPageToken() == "" {
		upTo = list.Cursor
	}
	l := listing{req: req, FileList: list, upTo: upTo}
	if req.GetPageToken() != "" {
		l.after = &page
	}
	all, err := l.events()
	if err != nil {
		return nil, err
	}
	resp := &lpfilesharev1.ListFilesResponse{WatchToken: token{Cursor: upTo}.write(placeOfWatch, req.GetParent())}
	var files []share.FileEvent
	held := 0
	for e := range all {
		if len(files) == size || held >= maxPageBytes {
			last := files[len(files)-1]
			resp.NextPageToken = token{Cursor: upTo, Conversation: last.Conversation, Dialog: last.Dialog, Sequence: last.Sequence}.write(pageOfFiles, of)
			break
		}
		files = append(files, *e)
		held += int(e.Size()) + e.Omitted
	}
	lacking, err := session.Complete(ctx, files)
	if err != nil {
		return nil, err
	}
	if conversation != "" && len(lacking) > 0 {
		return nil, lacking[0].Err
	}
	for _, e := range files {
		resp.Files = append(resp.Files, eventToProto(account, e))
	}
	for _, u := range append(list.Unreadable, lacking...) {
		resp.UnreadableConversations = append(resp.UnreadableConversations, unreadableToProto(account, &u))
	}
	return resp, nil
}

// A listing is what a session returned for a ListFiles request.
type listing struct {
	share.FileList
	req   *lpfilesharev1.ListFilesRequest
	upTo  share.Cursor // the end of the listing, which its first page fixed
	after *token       // the last file of the page before; nil for the first page
}

// events returns the files of the listing behind the page before. The oldest-first order costs no more than the page.
func (l *listing) events() (iter.Seq[*share.FileEvent], error) {
	if l.req.GetNewestFirst() {
		return l.newestFirst()
	}
	dialogs, skip := l.Dialogs, 0
	if l.after != nil {
		i := slices.IndexFunc(dialogs, func(d share.DialogFiles) bool {
			return d.Conversation == l.after.Conversation && d.Dialog == l.after.Dialog
		})
		if i < 0 {
			return nil, l.lost()
		}
		dialogs = dialogs[i:]
		at, found := slices.BinarySearchFunc(dialogs[0].Files, l.after.Sequence, func(e share.FileEvent, seq int64) int { return cmp.Compare(e.Sequence, seq) })
		if !found {
			return nil, l.lost()
		}
		skip = at + 1
	}
	return func(yield func(*share.FileEvent) bool) {
		for i, d := range dialogs {
			if i > 0 {
				skip = 0
			}
			for n := range d.Files[skip:] {
				if e := &d.Files[skip+n]; l.has(e) && !yield(e) {
					return
				}
			}
		}
	}, nil
}

func (l *listing) newestFirst() (iter.Seq[*share.FileEvent], error) {
	var all []*share.FileEvent
	for _, d := range l.Dialogs {
		for i := range d.Files {
			if e := &d.Files[i]; l.has(e) {
				all = append(all, e)
			}
		}
	}
	slices.Reverse(all) // equal times: the later message first
	slices.SortStableFunc(all, func(a, b *share.FileEvent) int { return b.Time.Compare(a.Time) })
	if l.after != nil {
		i := slices.IndexFunc(all, func(e *share.FileEvent) bool {
			return e.Conversation == l.after.Conversation && e.Dialog == l.after.Dialog && e.Sequence == l.after.Sequence
		})
		if i < 0 {
			return nil, l.lost()
		}
		all = all[i+1:]
	}
	return slices.Values(all), nil
}

// has reports whether the listing has a file. Those that were published after the first page are sent by the watch.
func (l *listing) has(e *share.FileEvent) bool {
	last, seen := l.upTo[e.Dialog]
	return seen && e.Sequence <= last &&
		(l.req.GetDialogId() == "" || e.Dialog == l.req.GetDialogId()) &&
		(l.req.GetSenderRole() == 0 || roleToProto(e.SenderRole) == l.req.GetSenderRole())
}

// lost returns the error for a page whose predecessor cannot be found.
func (l *listing) lost() error {
	for _, u := range l.Unreadable {
		if u.Dialog == l.after.Dialog {
			return u.Err
		}
	}
	return errToken("page_token")
}

// listingOf identifies a listing: a page token belongs to one.
func listingOf(req *lpfilesharev1.ListFilesRequest) string {
	if !req.GetNewestFirst() && req.GetDialogId() == "" && req.GetSenderRole() == 0 {
		return req.GetParent()
	}
	return fmt.Sprintf("%s?newest=%t&dialog=%s&role=%d", req.GetParent(), req.GetNewestFirst(), req.GetDialogId(), req.GetSenderRole())
}

// checkFilesParent validates the parent of a listing or a watch. conversation is empty for "-".
func checkFilesParent(v *violations, name string) (account, conversation string) {
	account, conversation, ok := parseConversationName(name)
	if !ok {
		v.add("parent", `must be accounts/{account}/conversations/{conversation}, or "-" for all conversations`)
	}
	if conversation == anyConversation {
		conversation = ""
	}
	return account, conversation
}

func pageSize(v *violations, asked int32) int {
	if asked < 0 {
		v.add("page_size", "must not be negative")
	}
	if asked == 0 {
		return defaultPage
	}
	return min(int(asked), maxPage)
}
