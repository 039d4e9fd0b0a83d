package service

import (
	"context"
	"errors"
	"maps"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// RequestIDHeader is the response header that carries an upload's request id, sent when the upload is accepted.
const RequestIDHeader = "lpfs-request-id"

// Upload is the contract's Upload.
func (s *Server) Upload(stream grpc.ClientStreamingServer[lpfilesharev1.UploadRequest, lpfilesharev1.UploadResponse]) error {
	return s.upload(stream, uploadLimits{chunk: MaxChunkBytes, file: math.MaxInt64})
}

// uploadStream is the part of a gRPC stream that an upload uses.
type uploadStream interface {
	Context() context.Context
	Recv() (*lpfilesharev1.UploadRequest, error)
	SetHeader(metadata.MD) error
	SendHeader(metadata.MD) error
	SendAndClose(*lpfilesharev1.UploadResponse) error
}

// uploadLimits are the limits, in bytes, that a method has in addition to those of the account.
type uploadLimits struct{ chunk, file int64 }

// upload serves Upload and UploadSmallFile: check, admit, accept, receive and store at once, publish, respond.
func (s *Server) upload(stream uploadStream, limits uploadLimits) (err error) {
	ctx, cancel := s.until(stream.Context(), s.stopping)
	defer cancel(nil)
	total := time.AfterFunc(s.UploadTimeout, func() {
		cancel(refuse(share.UploadIdle, "the upload took longer than %s; repeat under the same request_id from byte 0", s.UploadTimeout))
	})
	defer total.Stop()

	in := s.startReceiver(stream, limits.chunk)
	req, err := s.firstMessage(ctx, in)
	if err != nil {
		return err
	}
	if req.GetSpec() == nil {
		return violation("the first message must carry spec")
	}
	requestID := req.GetSpec().GetRequestId()
	defer func() { err = withRequestID(about(err, req.GetSpec().GetConversation()), requestID) }()
	settings := s.Settings(accountOf(req.GetSpec().GetConversation()))
	settings.MaxFileBytes = min(settings.MaxFileBytes, limits.file)
	settings.MaxImageInputBytes = min(settings.MaxImageInputBytes, limits.file)
	spec, err := checkSpec(req.GetSpec(), settings)
	if err != nil {
		return err
	}
	requestID = spec.requestID
	early := int64(len(req.GetChunk().GetData())) // already held, outside the budget
	if early > limits.chunk {
		return errChunkTooLarge(limits, early)
	}
	if err := s.checkDraining(); err != nil {
		return err
	}
	credential, err := s.credential(ctx, spec.account)
	if err != nil {
		return err
	}

	// Room comes first: what cannot be admitted costs LivePerson, the store and the ledger nothing.
	var room *reservation
	if !spec.validateOnly {
		queued, leave := s.until(ctx, s.draining) // who still waits when the drain begins goes elsewhere at once
		room, err = s.admission.reserve(queued, callerOf(credential), spec.room(settings), early <= blockBytes)
		leave(nil)
		if err != nil {
			return err
		}
		defer room.release()
		if err := s.checkDraining(); err != nil { // it may have begun while this one waited
			return err
		}
	}
	session, err := s.session(ctx, spec.account)
	if err != nil {
		return ended(ctx, err)
	}
	defer session.Release()
	if room != nil {
		if err := room.prove(session.Principal()); err != nil {
			return err
		}
	}

	if spec.validateOnly {
		if err := checkOpen(ctx, session, spec.account, spec.conversation, spec.dialog); err != nil {
			return ended(ctx, err)
		}
		return stream.SendAndClose(&lpfilesharev1.UploadResponse{RequestId: spec.requestID})
	}

	a, err := s.begin(ctx, cancel, session, spec)
	if err != nil {
		return ended(ctx, err)
	}
	header := metadata.Pairs(RequestIDHeader, spec.requestID)
	replay := func(f *share.StoredFile) error { // the header comes with the answer: a caller who waits for it sends no chunk
		if err := stream.SetHeader(header); err != nil {
			return err
		}
		return stream.SendAndClose(uploadResponse(spec, f, true))
	}
	if finished(a.rec, spec) {
		return replay(a.rec.File)
	}
	defer func() { a.end(err) }()

	replayed := a.rec.File != nil // an earlier attempt stored it, and only the message is missing
	if !replayed {
		if err := checkOpen(ctx, session, spec.account, spec.conversation, spec.dialog); err != nil {
			return ended(ctx, err)
		}
		if err := stream.SendHeader(header); err != nil {
			return ended(ctx, err)
		}
		if err := s.takeIn(ctx, in, room, session, a, spec, settings); err != nil {
			return ended(ctx, err)
		}
	}
	room.release() // the bytes are stored: the next upload need not wait for our message
	file := a.rec.File
	if spec.publish {
		// The commit point. A caller who has gone is not published for; from here on one who goes makes no difference.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if file, err = s.publish(ctx, session, a); err != nil {
			if !share.Is(err, share.LPPublishUnconfirmed) { // it is stored, and GetUpload names it: let its uploader read it
				if e := s.rememberStored(context.WithoutCancel(ctx), session.Principal(), a.rec); e != nil {
					s.Log.WarnContext(ctx, "a stored file could not be recorded", "error", e)
				}
			}
			return err
		}
	}
	if replayed {
		return replay(file)
	}
	return stream.SendAndClose(uploadResponse(spec, file, false))
}

// takeIn receives the file, has it stored, and records that.
func (s *Server) takeIn(ctx context.Context, in *receiver, room *reservation, session Session, a *attempt, spec uploadSpec, settings Settings) error {
	var file *share.StoredFile
	var err error
	if spec.changes(settings) {
		file, err = s.receiveFitAndStore(ctx, in, room, session, spec, settings)
	} else {
		file, err = s.receiveAndStore(ctx, in, session, spec, settings)
	}
	if err != nil {
		return err
	}
	stored := a.rec
	stored.State, stored.File = share.Stored, file
	if !spec.publish { // first: once the record says STORED, a retry does nothing any more
		if err := s.rememberStored(ctx, session.Principal(), stored); err != nil {
			return err
		}
	}
	return a.step(ctx, func(r *share.Record) { *r = stored })
}

// firstMessage waits for message 1.
func (s *Server) firstMessage(ctx context.Context, in *receiver) (*lpfilesharev1.UploadRequest, error) {
	idle := time.NewTimer(s.IdleTimeout)
	defer idle.Stop()
	select {
	case m := <-in.first:
		return m.req, m.err
	case <-idle.C:
		return nil, s.errIdle()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Server) errIdle() error {
	return refuse(share.UploadIdle, "no byte came for %s; repeat under the same request_id from byte 0", s.IdleTimeout)
}

// leastBytes is what an upload must bring in each IdleTimeout.
func (s *Server) leastBytes() int64 { return int64(float64(s.MinUploadRate) * s.IdleTimeout.Seconds()) }

func (s *Server) errSlow(came int64) error {
	return refuse(share.UploadIdle, "%d bytes came in %s, and %d are the least; repeat under the same request_id from byte 0",
		came, s.IdleTimeout, s.leastBytes())
}

// checkOpen rejects a conversation or dialog that does not exist or is closed.
func checkOpen(ctx context.Context, session Session, account, conversation, dialog string) error {
	c, err := session.Conversation(ctx, conversation)
	if err != nil {
		return err
	}
	d, ok := c.Dialog(dialog)
	switch {
	case !ok:
		return refuse(share.ConversationNotFound, "the conversation has no such dialog")
	case !d.Open:
		return with(refuse(share.ConversationClosed, "the conversation is closed; create a new one"), "subject", conversationName(account, c.ID))
	}
	return nil
}

// receiveAndStore takes the bytes in, checks them on the way, and has them stored meanwhile. The store gets the last byte only
// when every check has passed. It returns once nobody holds the bytes any more.
func (s *Server) receiveAndStore(ctx context.Context, in *receiver, session Session, spec uploadSpec, settings Settings) (*share.StoredFile, error) {
	sp := newSpool(s.admission, spec.size)
	defer sp.discard()
	p := s.startStoring(ctx, session, spec, sp)
	defer p.stop()

	check := newChecker(s, spec, sp, sumKinds{md5: settings.CheckETag, sha256: spec.wantSHA256})
	if err := s.receive(ctx, in, check, p); err != nil {
		return nil, err
	}
	p.etag = check.sums.etag()
	sp.release()

	file := newStoredFile(session, spec, sp.len(), check.sums, check.image)
	if spec.makePreview { // while the store writes
		s.addPreview(ctx, file, spec.fileType, sp)
	}
	return p.wait(ctx, file)
}

// receive takes the bytes into check's spool until all have come and every check has passed. A storing that runs meanwhile, and
// ends before the last byte, ends it too; nil: none runs.
func (s *Server) receive(ctx context.Context, in *receiver, check *checker, p *storing) error {
	in.accepted <- intake{spool: check.spool, declared: check.spec.size, limit: check.spec.limit}
	idle := time.NewTimer(s.IdleTimeout)
	defer idle.Stop()
	pace := time.NewTicker(s.IdleTimeout)
	defer pace.Stop()
	paced := int64(0) // bytes at the latest tick
	for {
		more, err := check.advance()
		if err != nil {
			return err
		}
		select {
		case <-more:
		case r := <-in.ended:
			if r.err != nil {
				return r.err
			}
			return check.finish(r.finish)
		case <-p.ended(): // before the last byte: it cannot be a success
			return p.outcome.err
		case <-idle.C:
			left := s.IdleTimeout - (s.Now().Sub(in.begun) - time.Duration(in.lastByte.Load()))
			if left <= 0 {
				return s.errIdle()
			}
			idle.Reset(left)
		case <-pace.C:
			came := check.spool.len()
			if came-paced < s.leastBytes() && came != check.spec.size { // all there: only the finish is missing
				return s.errSlow(came - paced)
			}
			paced = came
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// newStoredFile is what is known of a file before it is stored: sums are of its bytes.
func newStoredFile(session Session, spec uploadSpec, size int64, sums *sums, image share.ImageInfo) *share.StoredFile {
	return &share.StoredFile{
		Conversation: spec.conversation, Dialog: spec.dialog, DisplayName: spec.displayName,
		File: share.HostedFile{FileType: string(spec.fileType), Caption: spec.caption, Preview: spec.preview},
		Size: size, Checksums: sums.checksums(), Width: image.Width, Height: image.Height,
		SenderID: session.Principal().ID, SenderRole: session.Principal().Role,
	}
}

// addPreview makes a preview of a file that is here whole, or notes that none could be made.
func (s *Server) addPreview(ctx context.Context, file *share.StoredFile, t share.FileType, sp *spool) {
	bounded, cancel := context.WithTimeout(ctx, previewTime)
	defer cancel()
	uri, err := s.ports.Images.Preview(bounded, t, sp.reader(), maxPreviewChars)
	if err != nil {
		s.Log.DebugContext(ctx, "no preview could be made", "error", err)
	}
	file.File.Preview, file.PreviewOmitted = uri, err != nil
}

// previewTime is how long an upload waits for its preview, the wait for a turn included, before it goes without.
const previewTime = 10 * time.Second

// rememberStored lets the uploader download a file that was stored and not published: no message of LivePerson's vouches for it.
func (s *Server) rememberStored(ctx context.Context, p share.Principal, rec share.Record) error {
	_, err := s.ports.Ledger.Save(ctx, storedKey(p, rec.File.File.StoragePath), rec, 0)
	if err != nil && !errors.Is(err, share.ErrStale) {
		return ledgerError(err)
	}
	return nil
}

func uploadResponse(spec uploadSpec, f *share.StoredFile, replayed bool) *lpfilesharev1.UploadResponse {
	return &lpfilesharev1.UploadResponse{
		File:           uploadedFile(spec, f),
		RequestId:      spec.requestID,
		Upload:         uploadName(spec.account, spec.requestID),
		Replayed:       replayed,
		PreviewOmitted: f.PreviewOmitted,
		Image:          imageChangeToProto(f),
	}
}

// uploadedFile is the answer's file. The caption comes from the spec, which a repeat has too: the record need not keep it.
func uploadedFile(spec uploadSpec, f *share.StoredFile) *lpfilesharev1.File {
	file := storedFileToProto(spec.account, f)
	file.Caption = spec.caption
	return file
}

// GetUpload is the contract's GetUpload.
func (s *Server) GetUpload(ctx context.Context, req *lpfilesharev1.GetUploadRequest) (*lpfilesharev1.GetUploadResponse, error) {
	var v violations
	account, id := checkUploadName(&v, req.GetName())
	if err := v.err(); err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	rec, rev, err := s.load(ctx, uploadKey(session.Principal(), id))
	if err != nil {
		return nil, err
	}
	if rev == 0 || !s.Now().Before(rec.Expires) {
		return nil, s.errUploadNotFound()
	}
	up := &lpfilesharev1.Upload{
		Name:        uploadName(account, id),
		RequestId:   id,
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

func (s *Server) errUploadNotFound() error {
	return refuse(share.UploadNotFound, "the caller has no upload with this request_id; ids are kept for %s", s.RequestIDTTL)
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
	e, ok := errors.AsType[*share.Error](err)
	if !ok || !share.Is(e, share.ConversationNotFound, share.ConversationClosed) || e.Metadata["subject"] != "" {
		return err
	}
	told := *e
	told.Metadata = maps.Clone(e.Metadata)
	return with(&told, "subject", conversation)
}

// withRequestID lets every error of an upload say which id to repeat it under.
func withRequestID(err error, id string) error {
	e, ok := errors.AsType[*share.Error](err)
	if !ok {
		return err
	}
	told := *e
	told.Metadata = map[string]string{"requestId": id}
	for k, v := range e.Metadata {
		told.Metadata[k] = v
	}
	return &told
}
