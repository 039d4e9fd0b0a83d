package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// WatchFiles is the contract's WatchFiles.
func (s *Server) WatchFiles(req *lpfilesharev1.WatchFilesRequest, stream grpc.ServerStreamingServer[lpfilesharev1.WatchFilesResponse]) error {
	ctx, cancel := s.drain.UntilDraining(stream.Context()) // draining ends a watch, because there is nothing to finish
	defer cancel(nil)
	return drain.Cause(ctx, s.watchFiles(ctx, req, stream))
}

func (s *Server) watchFiles(ctx context.Context, req *lpfilesharev1.WatchFilesRequest, stream grpc.ServerStreamingServer[lpfilesharev1.WatchFilesResponse]) error {
	var v violations
	account, conversation := checkFilesParent(&v, req.GetParent())
	if err := v.err(); err != nil {
		return err
	}
	place, err := readToken(req.GetResumeToken(), placeOfWatch, req.GetParent())
	if err != nil {
		return err
	}
	factsOf(ctx).names(conversation, "")
	session, done, err := s.streamSession(ctx, account)
	if err != nil {
		return err
	}
	defer done()
	release, err := s.watches.Acquire(admission.ByPrincipal(session.Principal()))
	if err != nil {
		return err
	}
	defer release()
	after := place.Cursor
	if req.GetResumeToken() == "" {
		after, err = presentCursor(ctx, session, conversation)
	} else if known, unknowable := knows(ctx, session, conversation, after); !known {
		err = cmp.Or(unknowable, errWatchReset())
	}
	if err != nil {
		return err
	}
	watch, err := session.WatchFiles(ctx, conversation, after)
	if errors.Is(err, share.ErrWatchReset) {
		return errWatchReset()
	}
	if err != nil {
		return err
	}
	defer watch.Close()

	// The first heartbeat shows that the watch has begun, and where: files that are published from now on are sent, and its token
	// continues here even if the connection breaks before the first file.
	begun, permitted := false, time.Now()
	out := s.sender(stream)
	for {
		event, err := share.FileEvent{}, error(errHeartbeat)
		if begun {
			event, err = nextWithin(ctx, watch, s.Heartbeat)
		}
		begun = true
		var denied error
		if permitted, denied = s.permitAgain(ctx, account, permitted); denied != nil {
			return denied
		}
		resp := &lpfilesharev1.WatchFilesResponse{}
		unreadable, left := errors.AsType[*share.UnreadableDialog](err)
		switch {
		case left:
			resp.Event = &lpfilesharev1.WatchFilesResponse_UnreadableConversation{UnreadableConversation: unreadableToProto(account, unreadable)}
		case errors.Is(err, share.ErrWatchReset):
			return errWatchReset()
		case errors.Is(err, errHeartbeat):
			resp.Event = &lpfilesharev1.WatchFilesResponse_Heartbeat{Heartbeat: &lpfilesharev1.Heartbeat{Time: timestamppb.New(s.Now()), Interval: durationpb.New(s.Heartbeat)}}
		case err != nil:
			return err
		default:
			resp.Event = &lpfilesharev1.WatchFilesResponse_File{File: eventToProto(account, event)}
		}
		resp.ResumeToken = token{Cursor: watch.Cursor()}.write(placeOfWatch, req.GetParent())
		err = out.send(ctx, resp)
		if err == nil {
			err = out.flush(ctx)
		}
		if err != nil {
			return err
		}
		if resp.GetFile() != nil {
			s.receipts.delivered(ctx, account, session, event)
		}
	}
}

// permitAgain asks the policy again about a watch if it was last asked a heartbeat ago, and returns when it was last asked. The rules may
// have changed: a watch lasts up to 41 minutes.
func (s *Server) permitAgain(ctx context.Context, account string, last time.Time) (time.Time, error) {
	if time.Since(last) < s.Heartbeat {
		return last, nil
	}
	_, request, err := s.presented(ctx, account)
	if err == nil {
		err = permit(ctx, s.Permit, request)
	}
	return time.Now(), err
}

// errWatchReset ends a watch that cannot continue without missing or repeating a file.
func errWatchReset() error {
	return share.Reject(share.WatchReset, "the watch cannot continue from its token; list the files again and watch from the listing's watch_token")
}

// knows reports whether LivePerson still has every dialog of a cursor. Otherwise what came after the cursor is not known.
func knows(ctx context.Context, session Session, conversation string, after share.Cursor) (bool, error) {
	var conversations []share.Conversation
	var err error
	if conversation == "" {
		conversations, err = session.ListConversations(ctx)
	} else {
		conversations = make([]share.Conversation, 1)
		conversations[0], err = session.Conversation(ctx, conversation)
	}
	if err != nil {
		return false, err
	}
	for dialog := range after {
		if dialog == share.LogPosition {
			continue
		}
		has := func(c share.Conversation) bool { _, ok := c.Dialog(dialog); return ok }
		if !slices.ContainsFunc(conversations, has) {
			return false, nil
		}
	}
	return true, nil
}

var errHeartbeat = errors.New("time for a heartbeat")

// presentCursor returns where a watch from now on begins.
func presentCursor(ctx context.Context, session Session, conversation string) (share.Cursor, error) {
	list, err := session.ListFiles(ctx, conversation, nil)
	if err != nil {
		return nil, err
	}
	for _, u := range list.Unreadable { // from now on, as far as that is known
		list.Cursor[u.Dialog] = u.Last
	}
	return list.Cursor, nil
}

// nextWithin waits for the next file, or returns errHeartbeat when it is time for a heartbeat.
func nextWithin(ctx context.Context, watch FileWatch, heartbeat time.Duration) (share.FileEvent, error) {
	next, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	event, err := watch.Next(next)
	if err != nil && ctx.Err() == nil && next.Err() != nil {
		return share.FileEvent{}, errHeartbeat
	}
	return event, err
}
