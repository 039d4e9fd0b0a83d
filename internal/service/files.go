package service

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

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
	session, err := s.session(ctx, ref.account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	found, err := s.find(ctx, session, ref)
	if err != nil {
		return nil, err
	}
	stat, err := s.object(session, ref).Stat(ctx)
	if err != nil {
		return nil, err
	}
	found.file.StoredSizeBytes, found.file.Etag = knownSize(stat), stat.ETag
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
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	events, upTo, err := session.ListFiles(ctx, conversation)
	if err != nil {
		return nil, err
	}
	if req.GetPageToken() != "" {
		upTo = page.Cursor
	}
	events = slices.DeleteFunc(slices.Clone(events), func(e share.FileEvent) bool {
		last, seen := upTo[e.Dialog]
		return !seen || e.Sequence > last || // published after the first page: the watch sends it
			req.GetDialogId() != "" && e.Dialog != req.GetDialogId() ||
			req.GetSenderRole() != 0 && roleToProto(e.SenderRole) != req.GetSenderRole()
	})
	if req.GetNewestFirst() {
		slices.Reverse(events) // equal times: the later message first
		slices.SortStableFunc(events, func(a, b share.FileEvent) int { return b.Time.Compare(a.Time) })
	}
	if req.GetPageToken() != "" {
		i := slices.IndexFunc(events, func(e share.FileEvent) bool {
			return e.Conversation == page.Conversation && e.Dialog == page.Dialog && e.Sequence == page.Sequence
		})
		if i < 0 {
			return nil, errToken("page_token")
		}
		events = events[i+1:]
	}
	resp := &lpfilesharev1.ListFilesResponse{WatchToken: token{Cursor: upTo}.write(placeOfWatch, req.GetParent())}
	held := 0
	for _, e := range events {
		if len(resp.Files) == size || held >= maxPageBytes {
			page.Cursor = upTo
			resp.NextPageToken = page.write(pageOfFiles, of)
			return resp, nil
		}
		f := eventToProto(account, e)
		resp.Files = append(resp.Files, f)
		held += proto.Size(f)
		page.Conversation, page.Dialog, page.Sequence = e.Conversation, e.Dialog, e.Sequence // the last file of the page
	}
	return resp, nil
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
