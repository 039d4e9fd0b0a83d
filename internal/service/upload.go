package service

import (
	"context"
	"errors"
	"maps"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// RequestIDHeader is the response header with the request id of an accepted upload.
const RequestIDHeader = "lpfs-request-id"

// Sizes that the contract promises, in bytes.
const (
	// MaxChunkBytes is the largest data of a chunk.
	MaxChunkBytes = 1 << 20
	// MaxSmallFileBytes is the largest file that UploadSmallFile accepts. With the largest spec it fits in MaxRecvMessageBytes.
	MaxSmallFileBytes = 5_000_000
	// MaxRecvMessageBytes is the receive limit that the gRPC server must have, for all methods. gRPC itself rejects larger messages,
	// without an ErrorInfo. Package recvlimit limits what the unfinished messages of all calls hold together.
	MaxRecvMessageBytes = 5 << 20
)

// Upload is the contract's Upload.
func (s *Server) Upload(stream grpc.ClientStreamingServer[lpfilesharev1.UploadRequest, lpfilesharev1.UploadResponse]) error {
	source := &streamSource{stream: stream}
	spec, err := s.receiveSpec(stream.Context(), source)
	if err != nil {
		return err
	}
	resp, err := s.upload(stream.Context(), spec, source, math.MaxInt64)
	if err != nil {
		return err
	}
	return stream.SendAndClose(resp)
}

// UploadSmallFile is the contract's UploadSmallFile: the same upload from another source.
func (s *Server) UploadSmallFile(ctx context.Context, req *lpfilesharev1.UploadSmallFileRequest) (*lpfilesharev1.UploadSmallFileResponse, error) {
	if req.GetSpec() == nil {
		return nil, share.InvalidFields(share.Violation{Field: "spec", Description: "is required"})
	}
	resp, err := s.upload(ctx, req.GetSpec(), &wholeSource{ctx: ctx, data: req.GetData()}, MaxSmallFileBytes)
	if err != nil {
		return nil, err
	}
	return &lpfilesharev1.UploadSmallFileResponse{Result: resp}, nil
}

// An uploadSource is the source of one call.
type uploadSource interface {
	upload.Source
	// begin is called once with the validated spec. It rejects what has arrived already and is too large.
	begin(spec upload.Spec) error
	// replay sets the response header of a call whose upload was not accepted, because it is a replay.
	replay() error
}

// upload validates a spec and uploads the file of a source. No file may be larger than maxBytes.
func (s *Server) upload(ctx context.Context, req *lpfilesharev1.UploadSpec, source uploadSource, maxBytes int64) (_ *lpfilesharev1.UploadResponse, err error) {
	requestID := ""
	defer func() { err = withRequestID(about(err, req.GetConversation()), requestID) }()
	settings := s.Settings(accountOf(req.GetConversation()))
	settings.MaxFileBytes = min(settings.MaxFileBytes, maxBytes)
	settings.MaxImageInputBytes = min(settings.MaxImageInputBytes, maxBytes)
	spec, err := checkSpec(req, settings, maxStripInput(settings, s.MemoryBudget, maxBytes))
	if err != nil {
		return nil, err
	}
	requestID = spec.RequestID
	factsOf(ctx).request(requestID)
	factsOf(ctx).add(func(known *Facts) {
		known.Conversation, known.FileType = spec.Conversation, fileTypeName(string(spec.FileType))
	})
	if err := source.begin(spec); err != nil {
		return nil, err
	}
	if err := s.drain.Err(); err != nil { // before the identity: a client must not renew its token because a server goes down
		return nil, err
	}
	credential, err := s.credential(ctx, spec.Account)
	if err != nil {
		return nil, err
	}
	result, err := s.uploads.Upload(ctx, credential, spec, source)
	if err != nil {
		return nil, err
	}
	factsOf(ctx).stored(result)
	if result.File == nil {
		return &lpfilesharev1.UploadResponse{RequestId: spec.RequestID}, nil
	}
	if result.Replayed {
		if err := source.replay(); err != nil {
			return nil, err
		}
	}
	file := storedFileToProto(spec.Account, result.File)
	file.Caption = spec.Caption // which the record need not keep
	return &lpfilesharev1.UploadResponse{
		File:           file,
		RequestId:      spec.RequestID,
		Upload:         uploadName(spec.Account, spec.RequestID),
		Replayed:       result.Replayed,
		PreviewOmitted: result.File.PreviewOmitted,
		Image:          imageChangeToProto(result.File),
	}, nil
}

// PublishUpload is the contract's PublishUpload.
func (s *Server) PublishUpload(ctx context.Context, req *lpfilesharev1.PublishUploadRequest) (*lpfilesharev1.PublishUploadResponse, error) {
	account, requestID, session, err := s.uploadSession(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	defer session.Release()
	result, err := s.uploads.Publish(ctx, session, requestID)
	if share.Is(err, share.UploadNotStored) {
		err = withSubject(err, req.GetName())
	}
	if err != nil {
		return nil, withRequestID(err, requestID)
	}
	factsOf(ctx).stored(result)
	return &lpfilesharev1.PublishUploadResponse{File: storedFileToProto(account, result.File), Replayed: result.Replayed}, nil
}

// GetUpload is the contract's GetUpload.
func (s *Server) GetUpload(ctx context.Context, req *lpfilesharev1.GetUploadRequest) (*lpfilesharev1.GetUploadResponse, error) {
	account, requestID, session, err := s.uploadSession(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	defer session.Release()
	rec, err := s.uploads.Find(ctx, session.Principal(), requestID)
	if err != nil {
		return nil, err
	}
	up := &lpfilesharev1.Upload{
		Name:        uploadName(account, requestID),
		RequestId:   requestID,
		State:       uploadStates[rec.State],
		AttemptTime: timestamppb.New(rec.AttemptTime),
		ExpireTime:  timestamppb.New(rec.Expires),
	}
	if rec.File != nil {
		up.File = storedFileToProto(account, rec.File)
		up.Image = imageChangeToProto(rec.File)
	}
	if rec.Failure != "" {
		up.State = lpfilesharev1.UploadState_UPLOAD_STATE_FAILED // the file may be stored; a retry then only publishes it
		up.Failure = &lpfilesharev1.UploadFailure{Reason: errorReason(rec.Failure), Message: rec.FailureMessage}
	}
	return &lpfilesharev1.GetUploadResponse{Upload: up}, nil
}

// uploadSession validates the name of an upload and opens the caller's session. The caller of uploadSession releases it.
func (s *Server) uploadSession(ctx context.Context, name string) (account, requestID string, session Session, err error) {
	var v violations
	account, requestID = checkUploadName(&v, name)
	if err := v.err(); err != nil {
		return "", "", nil, err
	}
	factsOf(ctx).request(requestID)
	session, err = s.session(ctx, account)
	return account, requestID, session, err
}

var uploadStates = map[share.UploadState]lpfilesharev1.UploadState{
	share.Receiving:  lpfilesharev1.UploadState_UPLOAD_STATE_RECEIVING,
	share.Stored:     lpfilesharev1.UploadState_UPLOAD_STATE_STORED,
	share.Publishing: lpfilesharev1.UploadState_UPLOAD_STATE_PUBLISHING,
	share.Published:  lpfilesharev1.UploadState_UPLOAD_STATE_PUBLISHED,
	share.Failed:     lpfilesharev1.UploadState_UPLOAD_STATE_FAILED,
}

// about names the conversation that an error is about.
func about(err error, conversation string) error {
	if share.Is(err, share.ConversationNotFound, share.ConversationClosed) {
		return withSubject(err, conversation)
	}
	return err
}

func withSubject(err error, subject string) error {
	e, ok := errors.AsType[*share.Error](err)
	if !ok || e.Metadata["subject"] != "" {
		return err
	}
	return clone(e).With("subject", subject)
}

// withRequestID adds the request id to an error of an upload, so that the client knows which id to retry with. It adds nothing
// before there is one.
func withRequestID(err error, id string) error {
	e, ok := errors.AsType[*share.Error](err)
	if !ok || id == "" {
		return err
	}
	return clone(e).With("requestId", id)
}

// clone copies an error before it is changed: others may hold it too.
func clone(e *share.Error) *share.Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	return &c
}
