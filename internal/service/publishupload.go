package service

import (
	"context"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// PublishUpload is the contract's PublishUpload: the second half of an upload with PUBLISH_MODE_STORE_ONLY.
func (s *Server) PublishUpload(ctx context.Context, req *lpfilesharev1.PublishUploadRequest) (_ *lpfilesharev1.PublishUploadResponse, err error) {
	var v violations
	account, requestID := checkUploadName(&v, req.GetName())
	if err := v.err(); err != nil {
		return nil, err
	}
	ctx, cancel := s.until(ctx, s.stopping)
	defer cancel(nil)
	if err := s.checkDraining(); err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	defer func() { err = withRequestID(err, requestID) }()

	a, err := s.claim(ctx, cancel, session, uploadKey(session.Principal(), requestID), func(rec share.Record, found bool) (share.Record, bool, error) {
		switch {
		case !found:
			return rec, false, s.errUploadNotFound()
		case rec.State == share.Published:
			return rec, true, nil
		case rec.File == nil:
			e := refuse(share.UploadNotStored, "the upload has no stored file; repeat the upload under the same request_id")
			return rec, false, with(e, "subject", req.GetName())
		}
		return rec, false, nil
	})
	if err != nil {
		return nil, ended(ctx, err)
	}
	if a.rec.State == share.Published {
		return &lpfilesharev1.PublishUploadResponse{File: storedFileToProto(account, a.rec.File), Replayed: true}, nil
	}
	defer func() { a.end(err) }()
	file := a.rec.File
	if err := checkOpen(ctx, session, account, file.Conversation, file.Dialog); err != nil {
		return nil, ended(ctx, about(err, conversationName(account, file.Conversation)))
	}
	if ctx.Err() != nil { // the commit point, as in Upload
		return nil, context.Cause(ctx)
	}
	if file, err = s.publish(ctx, session, a); err != nil {
		return nil, err
	}
	return &lpfilesharev1.PublishUploadResponse{File: storedFileToProto(account, file)}, nil
}
