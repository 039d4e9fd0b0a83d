package service

import (
	"context"
	"encoding/hex"
	"slices"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// Limits of the chunks of a download. Chunks are smaller while many downloads share the memory.
const (
	defaultDownloadChunk = 256 << 10
	minDownloadChunk     = 1 << 10
)

// Download is the contract's Download.
func (s *Server) Download(req *lpfilesharev1.DownloadRequest, stream grpc.ServerStreamingServer[lpfilesharev1.DownloadResponse]) error {
	ctx, cancel := s.drain.UntilStopping(stream.Context())
	defer cancel(nil)
	return drain.Cause(ctx, s.download(ctx, req, stream))
}

func (s *Server) download(ctx context.Context, req *lpfilesharev1.DownloadRequest, stream grpc.ServerStreamingServer[lpfilesharev1.DownloadResponse]) error {
	ref, err := checkDownload(req)
	if err != nil {
		return err
	}
	if err := s.drain.Err(); err != nil {
		return err
	}
	factsOf(ctx).names(ref.conversation, ref.storagePath)
	session, done, err := s.streamSession(ctx, ref.account)
	if err != nil {
		return err
	}
	defer done()
	turns := s.processors.Transfer(admission.ByPrincipal(session.Principal()))
	file := s.object(session, ref)
	defer s.requestAhead(ctx, session, ref, file)()
	found, err := s.find(ctx, session, ref)
	if err != nil {
		return err
	}
	if err := found.complete(ctx, session, ref.account, false); err != nil {
		return err
	}
	scan := newDownloadScan(s, session)
	memory, err := s.downloads.ReserveWhole(ctx, admission.HolderOf(session.Principal()), scan.most)
	if err != nil {
		return err
	}
	defer memory.Release(s.Connection(ctx))
	object, err := scan.open(ctx, file, req, memory, turns)
	if err != nil {
		return err
	}
	defer object.Close()
	found.file.StoredSizeBytes, found.file.Etag = knownSize(object.Stored), string(object.Stored.ETag)
	header := &lpfilesharev1.DownloadHeader{
		File:         found.file,
		ContentRange: &lpfilesharev1.ContentRange{StartBytes: object.Start, EndBytes: object.End, TotalBytes: object.Stored.Size},
		StoredMd5:    s.statedMD5(object),
	}
	out := s.sender(stream)
	if err := out.send(ctx, &lpfilesharev1.DownloadResponse{Payload: &lpfilesharev1.DownloadResponse_Header{Header: header}}); err != nil {
		return err
	}
	sums := upload.NewSums(upload.SumKinds{SHA256: slices.Contains(req.GetWantChecksums(), lpfilesharev1.ChecksumKind_CHECKSUM_KIND_SHA256)})
	c := newChunks(ctx, out, object, memory, sums, turns)
	for size := chunkSize(req.GetMaxChunkBytes()); !object.Done(); {
		if err := c.sendNext(ctx, size); err != nil {
			return err
		}
	}
	if err := c.written(ctx, 0); err != nil {
		return err
	}
	sent := sums.Checksums()
	factsOf(ctx).add(func(known *Facts) {
		known.FileType, known.SHA256 = fileTypeOfProto(found.file.GetFileType()), sent.SHA256
	})
	trailer := &lpfilesharev1.DownloadTrailer{SentBytes: object.End - object.Start, SentChecksums: checksumsToProto(sent)}
	if err := out.send(ctx, &lpfilesharev1.DownloadResponse{Payload: &lpfilesharev1.DownloadResponse_Trailer{Trailer: trailer}}); err != nil {
		return err
	}
	if found.event != nil {
		s.receipts.accessed(ctx, ref.account, session, *found.event)
	}
	return nil
}

// statedMD5 returns the MD5 of the whole object that the store states; nil if it states none.
func (s *Server) statedMD5(object *download.Reader) []byte {
	stated, suffix := object.Stored.ETag.MD5()
	if suffix != "" || object.Stored.Large || !s.Settings(object.Account()).CheckETag {
		return nil
	}
	sum, err := hex.DecodeString(stated)
	if err != nil {
		return nil // cannot happen: MD5 returns digits
	}
	return sum
}

// object returns a file for reading: the caller may read it.
func (s *Server) object(session Session, ref fileRef) download.Object {
	return download.Object{Session: session, Store: s.ports.Store, URLs: s.urls, Log: s.Log, Account: ref.account, StoragePath: ref.storagePath}
}

// requestAhead requests the signed URL of a file while find reads messages from LivePerson to find out whether the caller may read it.
// The URL is not used before that. The caller calls stop before the session is released.
func (s *Server) requestAhead(ctx context.Context, session Session, ref fileRef, file download.Object) (stop func()) {
	if !session.Unread(ref.conversation, ref.dialog) {
		return func() {}
	}
	return file.RequestAhead(ctx, s.drain.Go)
}

func checkDownload(req *lpfilesharev1.DownloadRequest) (fileRef, error) {
	var v violations
	if req.GetReadLimit() < 0 {
		v.add("read_limit", "must not be negative")
	}
	if req.GetMaxChunkBytes() < 0 {
		v.add("max_chunk_bytes", "must not be negative")
	}
	if req.GetIfMatchEtag() != "" && share.ParseETag(req.GetIfMatchEtag()) == "" {
		v.add("if_match_etag", "is not an ETag")
	}
	checkChecksumKinds(&v, "want_checksums", req.GetWantChecksums())
	return sourceRef(v, req.GetName(), req.GetStorage())
}

// sourceRef reads which file a request means: by name, or by conversation and storage path. v is what else is wrong with it.
func sourceRef(v violations, name string, ref *lpfilesharev1.StorageRef) (fileRef, error) {
	if ref == nil {
		return parseFileName(v, name)
	}
	account, conversation, ok := parseConversationName(ref.GetConversation())
	if !ok || conversation == anyConversation {
		v.add("storage.conversation", "must be accounts/{account}/conversations/{conversation}")
	}
	if d := ref.GetDialogId(); d != "" && !validID(d) {
		v.add("storage.dialog_id", dialogIDRule)
	}
	if path := ref.GetStoragePath(); path == "" || path[0] != '/' {
		// The File Sharing page's own example shows a bare name, "1234.JPG". It is short for the whole path.
		v.add("storage.storage_path", "must be LivePerson's whole relativePath, which begins with /v1/AUTH_")
	}
	if err := v.err(); err != nil {
		return fileRef{}, err
	}
	if err := share.CheckStoragePath(account, ref.GetStoragePath()); err != nil {
		return fileRef{}, err
	}
	return fileRef{account, conversation, ref.GetDialogId(), ref.GetStoragePath()}, nil
}

func chunkSize(asked int32) int64 {
	if asked == 0 {
		return defaultDownloadChunk
	}
	return min(max(int64(asked), minDownloadChunk), MaxChunkBytes)
}

// A foundFile is a file that the caller may read, and why.
type foundFile struct {
	file *lpfilesharev1.File
	// event is the message that shows it; nil for a file that the caller stored and did not publish.
	event *share.FileEvent
}

// complete adds what is missing in a file: the preview only if it is needed, because that costs a request to LivePerson.
func (f *foundFile) complete(ctx context.Context, session Session, account string, preview bool) error {
	if f.event == nil || f.event.Omitted == 0 || !preview && !f.event.CaptionOmitted {
		return nil
	}
	files := []share.FileEvent{*f.event}
	unreadable, err := session.Complete(ctx, files)
	if err != nil {
		return err
	}
	if len(unreadable) > 0 {
		return unreadable[0].Err
	}
	f.event, f.file = &files[0], eventToProto(account, files[0])
	return nil
}

// find looks up a file that the caller may read: one in a message of the conversation as the caller's session sees it, or one that
// the caller stored and did not publish. LivePerson's store is asked for no other path.
func (s *Server) find(ctx context.Context, session Session, ref fileRef) (foundFile, error) {
	event, err := session.FindFile(ctx, ref.conversation, ref.dialog, ref.storagePath)
	if err == nil {
		return foundFile{eventToProto(ref.account, event), &event}, nil
	}
	if !share.Is(err, share.FileNotFound, share.ConversationNotFound) {
		return foundFile{}, err
	}
	own, err := s.uploads.FindStored(ctx, session.Principal(), ref.storagePath)
	if err != nil {
		return foundFile{}, err
	}
	if own == nil || own.Conversation != ref.conversation || ref.dialog != "" && ref.dialog != own.Dialog {
		return foundFile{}, share.Reject(share.FileNotFound, "none of the caller's conversations has this file")
	}
	return foundFile{file: storedFileToProto(ref.account, own)}, nil
}

func knownSize(o share.StoredObject) *int64 {
	if o.Size < 0 {
		return nil
	}
	return &o.Size
}
