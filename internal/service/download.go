package service

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"hash/crc32"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Chunk sizes of a download.
const (
	defaultDownloadChunk = 256 << 10
	minDownloadChunk     = 1 << 10
)

// maxFruitlessGets is how often in a row a GET may break off without a single byte.
const maxFruitlessGets = 4

// maxResumes is how often a GET may break off in one download, with whatever gain.
const maxResumes = 100

// Download is the contract's Download: the file must stand in a conversation of the caller; then header, chunks, trailer.
func (s *Server) Download(req *lpfilesharev1.DownloadRequest, stream grpc.ServerStreamingServer[lpfilesharev1.DownloadResponse]) error {
	ctx, cancel := s.until(stream.Context(), s.stopping)
	defer cancel(nil)
	return ended(ctx, s.download(ctx, req, stream))
}

func (s *Server) download(ctx context.Context, req *lpfilesharev1.DownloadRequest, stream grpc.ServerStreamingServer[lpfilesharev1.DownloadResponse]) error {
	ref, err := checkDownload(req)
	if err != nil {
		return err
	}
	if err := s.checkDraining(); err != nil {
		return err
	}
	session, done, err := s.streamSession(ctx, ref.account)
	if err != nil {
		return err
	}
	defer done()
	found, err := s.find(ctx, session, ref)
	if err != nil {
		return err
	}

	d := &downloading{s: s, session: session, account: ref.account, path: ref.storagePath, ifMatch: req.GetIfMatchEtag()}
	defer d.close()
	obj, err := d.open(ctx, req.GetReadOffset(), req.GetReadLimit())
	if err != nil {
		return err
	}
	found.file.StoredSizeBytes, found.file.Etag = knownSize(obj.StoredObject), obj.ETag
	header := &lpfilesharev1.DownloadHeader{
		File:         found.file,
		ContentRange: &lpfilesharev1.ContentRange{StartBytes: obj.Start, EndBytes: obj.End, TotalBytes: obj.Size},
	}
	if err := s.send(ctx, stream, &lpfilesharev1.DownloadResponse{Payload: &lpfilesharev1.DownloadResponse_Header{Header: header}}); err != nil {
		return err
	}
	// Of a whole object the ETag tells whether its bytes came as they are stored. Of a part nothing does.
	whole := obj.Start == 0 && obj.End == obj.Size && !obj.Large && isMD5(obj.ETag)
	passed := newSums(sumKinds{
		md5:    s.Settings(ref.account).CheckETag && whole,
		sha256: slices.Contains(req.GetWantChecksums(), lpfilesharev1.ChecksumKind_CHECKSUM_KIND_SHA256),
	})
	size := chunkSize(req.GetMaxChunkBytes())
	for d.at < d.end {
		// A new buffer for each: gRPC may look at a message after Send has returned.
		buf := make([]byte, min(size, d.end-d.at))
		n, err := d.read(ctx, buf)
		if err != nil {
			return err
		}
		chunk := &lpfilesharev1.DataChunk{Offset: d.at - int64(n), Data: buf[:n], Crc32C: new(crc32.Checksum(buf[:n], castagnoli))}
		_, _ = passed.Write(buf[:n])
		if err := s.send(ctx, stream, &lpfilesharev1.DownloadResponse{Payload: &lpfilesharev1.DownloadResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	if sum := passed.etag(); sum != "" && !strings.EqualFold(sum, obj.ETag) {
		return refuse(share.StorageCorrupted, "the bytes that came from the store are not those that its ETag is of; download the file again")
	}
	trailer := &lpfilesharev1.DownloadTrailer{SentBytes: d.end - d.start, SentChecksums: checksumsToProto(passed.checksums())}
	if err := s.send(ctx, stream, &lpfilesharev1.DownloadResponse{Payload: &lpfilesharev1.DownloadResponse_Trailer{Trailer: trailer}}); err != nil {
		return err
	}
	s.accessed(ctx, ref.account, session, found)
	return nil
}

// isMD5 reports whether an ETag looks like the MD5 that a Swift gives an object that is stored in one piece.
func isMD5(etag string) bool {
	sum, err := hex.DecodeString(etag)
	return err == nil && len(sum) == md5.Size
}

func checkDownload(req *lpfilesharev1.DownloadRequest) (fileRef, error) {
	var v violations
	if req.GetReadLimit() < 0 {
		v.add("read_limit", "must not be negative")
	}
	if req.GetMaxChunkBytes() < 0 {
		v.add("max_chunk_bytes", "must not be negative")
	}
	if len(req.GetIfMatchEtag()) > 128 || !printable(req.GetIfMatchEtag()) {
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
		v.add("storage.dialog_id", "must have 1 to 64 letters, digits, '-' or '_'")
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

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' {
			return false
		}
	}
	return true
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

// find looks a file up where it must stand for the caller to read it: in a message of the conversation as the caller's session
// sees it, or in the caller's own record of an upload. Nothing is asked of LivePerson's storage for any other path.
func (s *Server) find(ctx context.Context, session Session, ref fileRef) (foundFile, error) {
	event, err := session.FindFile(ctx, ref.conversation, ref.dialog, ref.storagePath)
	if err == nil {
		return foundFile{eventToProto(ref.account, event), &event}, nil
	}
	if !share.Is(err, share.FileNotFound, share.ConversationNotFound) {
		return foundFile{}, err
	}
	notFound := refuse(share.FileNotFound, "there is no such file in a conversation of the caller")
	rec, rev, lerr := s.load(ctx, storedKey(session.Principal(), ref.storagePath))
	if lerr != nil {
		return foundFile{}, lerr
	}
	own := rev != 0 && rec.File != nil && rec.File.Conversation == ref.conversation && s.Now().Before(rec.Expires) &&
		(ref.dialog == "" || ref.dialog == rec.File.Dialog)
	if !own {
		return foundFile{}, notFound
	}
	return foundFile{file: storedFileToProto(ref.account, rec.File)}, nil
}

// accessed tells the sender that the caller has opened the file. It is a courtesy: its failure is nobody's.
func (s *Server) accessed(ctx context.Context, account string, session Session, f foundFile) {
	if e := f.event; e != nil && s.Settings(account).AccessReceipts && e.SenderID != session.Principal().ID {
		s.courtesy(ctx, account, func(ctx context.Context, session Session) error {
			return session.MarkAccessed(ctx, e.Conversation, e.Dialog, e.Sequence)
		})
	}
}

// courtesy sends a receipt on the caller's behalf without keeping the caller waiting for it. Its failure is nobody's; where too
// many are on their way already it is left out.
func (s *Server) courtesy(ctx context.Context, account string, send func(context.Context, Session) error) {
	select {
	case s.courtesies <- struct{}{}:
	default:
		return
	}
	s.goroutines.Go(func() {
		defer func() { <-s.courtesies }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.PublishTimeout)
		defer cancel()
		session, err := s.session(ctx, account)
		if err == nil {
			defer session.Release()
			err = send(ctx, session)
		}
		if err != nil {
			s.Log.LogAttrs(ctx, slog.LevelInfo, "a receipt could not be sent", slog.Any("error", err))
		}
	})
}

// maxCourtesies is how many receipts may be on their way at once.
const maxCourtesies = 256

// A downloading reads one object, going on by itself where the store breaks off.
type downloading struct {
	s             *Server
	session       Session
	account, path string
	ifMatch       string // the ETag that the object must have; from the first answer on, that one's
	start, at     int64
	end           int64
	body          io.ReadCloser // nil: not open
	fruitless     int           // GETs in a row that gave no byte
	resumed       int           // how often the store broke off
}

// open asks for bytes from start on, limit of them.
func (d *downloading) open(ctx context.Context, start, limit int64) (*share.ObjectReader, error) {
	var rejected, missing int
	for try := 1; ; try++ {
		obj, err := d.get(ctx, start, limit)
		if err == nil {
			d.start, d.at, d.end, d.body = obj.Start, obj.Start, obj.End, obj.Body
			if obj.ETag != "" {
				d.ifMatch = obj.ETag
			}
			return obj, nil
		}
		again, wait := false, pause(try, err)
		switch share.KindOf(err) {
		case share.StorageURLRejected:
			rejected++
			again = rejected < maxRejections
		case share.FileNotFound: // just published, perhaps
			missing++
			again, wait = missing < 2, justPublished
		case share.StorageUnavailable, share.StorageRateLimited, share.LPTimeout, share.LPUnavailable, share.LPRateLimited:
			again = try < maxFruitlessGets
		}
		if !again {
			return nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// justPublished is how long an object may take to be there after its message is.
const justPublished = time.Second

func (d *downloading) get(ctx context.Context, start, limit int64) (*share.ObjectReader, error) {
	url, err := d.session.DownloadURL(ctx, d.path)
	if err != nil {
		return nil, err
	}
	return d.s.ports.Store.Get(ctx, d.account, url, start, limit, d.ifMatch)
}

// read fills buf. Where the store breaks off, it goes on from there with a fresh URL, if the object still is the same.
func (d *downloading) read(ctx context.Context, buf []byte) (int, error) {
	for n := 0; ; {
		m, err := io.ReadFull(d.body, buf[n:])
		n, d.at = n+m, d.at+int64(m)
		if m > 0 {
			d.fruitless = 0
		}
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		d.close()
		d.resumed++
		if d.fruitless++; d.fruitless > maxFruitlessGets || d.resumed > maxResumes {
			return 0, d.truncated(err, d.at-int64(n)-d.start)
		}
		d.s.Log.LogAttrs(ctx, slog.LevelInfo, "a download goes on after the store broke off", slog.Int64("at", d.at), slog.Any("error", err))
		if err := sleep(ctx, pause(d.fruitless, err)); err != nil {
			return 0, err
		}
		if err := d.resume(ctx); err != nil {
			return 0, err
		}
	}
}

func (d *downloading) resume(ctx context.Context) error {
	obj, err := d.get(ctx, d.at, d.end-d.at)
	switch {
	case err == nil && (obj.Start != d.at || obj.End != d.end):
		obj.Body.Close()
		return refuse(share.FileChanged, "the object changed while it was being read; download it from byte 0")
	case err == nil:
		d.body = obj.Body
		return nil
	case share.Is(err, share.StorageUnavailable, share.StorageURLRejected, share.StorageRateLimited, share.LPTimeout, share.LPUnavailable, share.LPRateLimited):
		d.body = io.NopCloser(&failed{err}) // counts as a fruitless GET
		return nil
	case share.Is(err, share.RangeNotSatisfiable):
		return refuse(share.FileChanged, "the object changed while it was being read; download it from byte 0")
	}
	return err
}

func (d *downloading) truncated(err error, sent int64) error {
	return with(share.Errorf(share.StorageTruncated, "the store broke off again and again; go on with read_offset at where the bytes end", err),
		"sentBytes", itoa(sent))
}

func (d *downloading) close() {
	if d.body != nil {
		d.body.Close()
		d.body = nil
	}
}

type failed struct{ err error }

func (f *failed) Read([]byte) (int, error) { return 0, f.err }

func knownSize(o share.StoredObject) *int64 {
	if o.Size < 0 {
		return nil
	}
	return &o.Size
}

// send is Send with an end: a reader that takes nothing for ReadStall is let go, so that it does not hold the store.
func (s *Server) send(ctx context.Context, stream grpc.ServerStream, m any) error {
	done := make(chan error, 1)
	s.goroutines.Go(func() { done <- stream.SendMsg(m) }) // ends at the latest when the handler returns
	stall := time.NewTimer(s.ReadStall)
	defer stall.Stop()
	select {
	case err := <-done:
		return err
	case <-stall.C:
		return refuse(share.WatchTooSlow, "the reader took nothing for %s; begin again where it stopped", s.ReadStall)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
