package lpfileshare

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// DownloadOptions says which file to download, and which part of it. Set either Name, or Conversation and StoragePath.
type DownloadOptions struct {
	// Name is the resource name of the file, accounts/{account}/conversations/{conversation}/files/{file}.
	Name string
	// Conversation is the conversation of StoragePath.
	Conversation string
	// StoragePath is LivePerson's relativePath, "/v1/AUTH_...".
	StoragePath string
	// DialogID is the dialog of StoragePath. Empty: any.
	DialogID string
	// Offset is the first byte. Negative: this many bytes before the end.
	Offset int64
	// Limit is the maximum number of bytes. 0: to the end.
	Limit int64
	// IfMatchETag makes the download fail with FILE_CHANGED unless the file has this ETag. Empty: any.
	IfMatchETag string
	// ChunkBytes is the maximum number of bytes in a message, 1 KiB to 1 MiB. 0: the server's default.
	ChunkBytes int32
	// WantChecksums are the checksums that the server must send in addition to CRC-32C. If they include SHA-256, it is verified too.
	WantChecksums []pb.ChecksumKind
	// OnHeader receives the header before the first byte. Its error ends the download.
	OnHeader func(*pb.DownloadHeader) error
	// OnProgress receives the number of bytes that were verified, and the total. It must return quickly.
	OnProgress func(received, total int64)
	// RetryFor is how long after the last progress another attempt may begin, and how long to wait for a connection (at least a
	// second). 0: two minutes. Negative: one attempt, and two minutes for the connection.
	RetryFor time.Duration
}

// A DownloadResult is the result of a complete download.
type DownloadResult struct {
	// Header is what the server sent before the first byte: the file, and the range of its bytes.
	Header *pb.DownloadHeader
	// Trailer is what the server sent after the last byte. Its checksums cover only the last attempt.
	Trailer *pb.DownloadTrailer
	// Bytes is the number of bytes that were downloaded.
	Bytes int64
	// Checksums are those of all downloaded bytes, computed by this client.
	Checksums *pb.Checksums
	// Attempts is the number of calls.
	Attempts int
}

// Download writes a file, or a part of it, to w. It does not close w.
//
// Every chunk is verified before it is written, and the whole is verified against the trailer and, if the whole file is read, against the
// MD5 that the store states. If the connection or the store breaks off, Download continues with the next byte of the same object. If the
// object was replaced, it returns FILE_CHANGED. After an error w has received a correct beginning of the file, unless the error says that
// the file was damaged in the store or on the way from it. Errors of the call are [*Error]; errors of w are returned wrapped.
func (c *Client) Download(ctx context.Context, o DownloadOptions, w io.Writer) (*DownloadResult, error) {
	d, err := c.newDownload(ctx, o)
	if err != nil {
		return nil, err
	}
	defer d.end()
	for {
		data, err := d.next()
		if err == io.EOF {
			return d.result(), nil
		}
		if err != nil {
			return nil, err
		}
		n, err := w.Write(data)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return nil, fmt.Errorf("download: write: %w", err)
		}
		d.report()
	}
}

// OpenDownload opens a file, or a part of it, for reading. It returns when the first bytes have arrived, so errors such as
// FILE_NOT_FOUND are returned here. ctx limits the whole download. The caller must close the reader.
func (c *Client) OpenDownload(ctx context.Context, o DownloadOptions) (*DownloadReader, error) {
	ctx, cancel := context.WithCancel(ctx)
	d, err := c.newDownload(ctx, o)
	if err != nil {
		cancel()
		return nil, err
	}
	r := &DownloadReader{download: d, cancel: cancel}
	if r.data, r.err = d.next(); r.err != nil && r.err != io.EOF {
		r.Close()
		return nil, r.err
	}
	return r, nil
}

// A DownloadReader reads a file as [Client.Download] does: it verifies the bytes and continues after interruptions. It is not safe
// for concurrent use, except that Close may be called at any time.
type DownloadReader struct {
	download *download
	cancel   context.CancelFunc
	data     []byte // verified and not read yet
	err      error  // what follows data
}

// Header returns the file, and the range of its bytes.
func (r *DownloadReader) Header() *pb.DownloadHeader { return r.download.header }

// Read reads verified bytes. It returns io.EOF only after the trailer and the MD5 that the store states were verified: if a check fails,
// its error comes instead. After any error but that of the MD5 the bytes that were read are a correct beginning of the file.
func (r *DownloadReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.data) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.data, r.err = r.download.next()
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	if len(r.data) == 0 {
		r.download.report()
	}
	return n, nil
}

// Result returns the result of the download after Read has returned io.EOF, and nil before.
func (r *DownloadReader) Result() *DownloadResult {
	if r.err != io.EOF {
		return nil
	}
	return r.download.result()
}

// Close ends the download. Its error is always nil.
func (r *DownloadReader) Close() error {
	r.cancel()
	return nil
}

// A download is one file over any number of calls. next pulls it, chunk by chunk.
type download struct {
	client  *Client
	ctx     context.Context // of the download, which is one operation over several calls
	options DownloadOptions
	pace    *pacer

	header   *pb.DownloadHeader // of the first call; nil: not received yet
	trailer  *pb.DownloadTrailer
	received int64 // number of bytes that next has returned
	last     byte  // the last one of them
	crc      hash.Hash32
	sha      hash.Hash
	md5      hash.Hash // compared with header.stored_md5; nil: the store states none, or only a part is read

	call *part // the open call; nil: none
}

func (c *Client) newDownload(ctx context.Context, o DownloadOptions) (*download, error) {
	byName := o.Name != "" && o.StoragePath == "" && o.Conversation == ""
	byPath := o.Name == "" && o.StoragePath != "" && o.Conversation != ""
	if !byName && !byPath {
		return nil, errors.New("download: set either Name, or Conversation and StoragePath")
	}
	return &download{client: c, ctx: ctx, options: o, pace: newPacer("download", o.RetryFor), crc: crc32.New(castagnoli), sha: sha256.New()}, nil
}

// next returns the next bytes, verified. io.EOF: the download is complete, and the trailer was verified.
func (d *download) next() ([]byte, error) {
	for d.trailer == nil {
		data, token, err := d.pull()
		if err == nil {
			if len(data) > 0 {
				return data, nil
			}
			continue
		}
		d.end()
		if err == io.EOF {
			return nil, io.EOF
		}
		if err := d.pace.retry(d.ctx, err, d.client.id, token, d.resumable); err != nil {
			return nil, err
		}
	}
	return nil, io.EOF
}

// pull receives one message of the open call, or of a new one. It returns the token of the call.
func (d *download) pull() (data []byte, token string, err error) {
	if d.call == nil {
		d.pace.attempts++
		if token, err = d.open(); err != nil {
			return nil, token, err
		}
	}
	data, err = d.call.receive()
	if len(data) > 0 {
		d.crc.Write(data)
		d.sha.Write(data)
		if d.md5 != nil {
			d.md5.Write(data)
		}
		d.received, d.last = d.received+int64(len(data)), data[len(data)-1]
		d.pace.progress()
	}
	return data, d.call.token, err
}

// resumable reports why the download cannot continue after an interruption.
func (d *download) resumable() error {
	if d.received > 0 && d.header.GetFile().GetEtag() == "" {
		return errors.New("the server sent no ETag, so the rest could be of another file")
	}
	return nil
}

// end closes the open call.
func (d *download) end() {
	if d.call != nil {
		d.call.cancel()
		d.call = nil
	}
}

func (d *download) result() *DownloadResult {
	return &DownloadResult{
		Header: d.header, Trailer: d.trailer, Bytes: d.received, Checksums: sums(d.crc, d.sha), Attempts: d.pace.attempts,
	}
}

func (d *download) report() {
	if d.options.OnProgress != nil {
		r := d.header.GetContentRange()
		d.options.OnProgress(d.received, r.GetEndBytes()-r.GetStartBytes())
	}
}

// request returns the request for the missing bytes. If only the trailer is missing, it requests the last byte again, because a
// download without a trailer is not complete. skip is the number of bytes to skip at the beginning of the response.
func (d *download) request() (req *pb.DownloadRequest, skip int64) {
	o := &d.options
	req = &pb.DownloadRequest{
		ReadOffset: o.Offset, ReadLimit: o.Limit, IfMatchEtag: o.IfMatchETag, MaxChunkBytes: o.ChunkBytes, WantChecksums: o.WantChecksums,
	}
	if o.Name != "" {
		req.Source = &pb.DownloadRequest_Name{Name: o.Name}
	} else {
		req.Source = &pb.DownloadRequest_Storage{Storage: &pb.StorageRef{
			Conversation: o.Conversation, StoragePath: o.StoragePath, DialogId: o.DialogID,
		}}
	}
	if d.header == nil || d.received == 0 && d.header.GetFile().GetEtag() == "" {
		return req, 0
	}
	r := d.header.GetContentRange()
	next := r.GetStartBytes() + d.received
	if next == r.GetEndBytes() && d.received > 0 {
		next, skip = next-1, 1
	}
	req.ReadOffset, req.ReadLimit, req.IfMatchEtag = next, r.GetEndBytes()-next, d.header.GetFile().GetEtag()
	return req, skip
}

// open begins a call. It returns the token that it used.
func (d *download) open() (token string, err error) {
	ctx, cancel := context.WithCancel(d.ctx)
	call, token, err := d.client.id.attach(ctx)
	if err != nil {
		cancel()
		return "", err
	}
	req, skip := d.request()
	p := &part{download: d, cancel: cancel, token: token, skip: skip, crc: crc32.New(castagnoli)}
	if slices.Contains(d.options.WantChecksums, pb.ChecksumKind_CHECKSUM_KIND_SHA256) {
		p.sha = sha256.New()
	}
	err = d.pace.reach(cancel, func() (err error) {
		p.stream, err = d.client.streams.Download(call, req)
		return err
	})
	if err != nil {
		cancel()
		return token, err
	}
	d.call = p
	return token, nil
}

// A part is the response of one call.
type part struct {
	*download
	stream     grpc.ServerStreamingClient[pb.DownloadResponse]
	cancel     context.CancelFunc
	token      string
	skip       int64 // number of bytes at the beginning that an earlier call has returned
	start, end int64 // the range that the header announced
	offset     int64 // of the next chunk
	crc        hash.Hash32
	sha        hash.Hash // nil: not requested
	gotHeader  bool
	gotTrailer *pb.DownloadTrailer
}

// violation is the error of a server that does not keep to the contract. It is not repeated.
func violation(format string, args ...any) error {
	return status.Errorf(codes.DataLoss, format, args...)
}

// receive receives one message. It returns the bytes of a chunk. io.EOF: the call has ended after a valid trailer.
func (p *part) receive() ([]byte, error) {
	m, err := p.stream.Recv()
	if err == io.EOF {
		if p.gotTrailer == nil {
			return nil, &damagedError{fmt.Sprintf("the download ended without a trailer, %d bytes before its end", p.end-p.offset)}
		}
		if p.md5 != nil && !bytes.Equal(p.md5.Sum(nil), p.header.GetStoredMd5()) {
			return nil, violation("the file does not have the MD5 that the store states: it was damaged in the store, or on the way from it to the server; discard it")
		}
		p.trailer = p.gotTrailer
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	switch payload := m.GetPayload().(type) {
	case *pb.DownloadResponse_Header:
		return nil, p.begin(payload.Header)
	case *pb.DownloadResponse_Chunk:
		return p.chunk(payload.Chunk)
	case *pb.DownloadResponse_Trailer:
		return nil, p.finish(payload.Trailer)
	default:
		return nil, violation("the server sent a message of an unknown kind")
	}
}

func (p *part) begin(h *pb.DownloadHeader) error {
	r := h.GetContentRange()
	if p.gotHeader {
		return violation("the server sent a second header")
	}
	if r.GetStartBytes() < 0 || r.GetStartBytes() > r.GetEndBytes() || r.GetEndBytes() > r.GetTotalBytes() {
		return violation("the server sent an impossible range: %d to %d of %d", r.GetStartBytes(), r.GetEndBytes(), r.GetTotalBytes())
	}
	p.gotHeader, p.start, p.offset, p.end = true, r.GetStartBytes(), r.GetStartBytes(), r.GetEndBytes()
	if p.header == nil {
		if p.options.OnHeader != nil {
			if err := p.options.OnHeader(h); err != nil {
				return &ownError{err}
			}
		}
		p.header = h
		if len(h.GetStoredMd5()) > 0 && r.GetStartBytes() == 0 && r.GetEndBytes() == r.GetTotalBytes() {
			p.md5 = md5.New()
		}
		p.report()
		return nil
	}
	first := p.header.GetContentRange()
	if want := first.GetStartBytes() + p.received - p.skip; r.GetStartBytes() != want || r.GetEndBytes() != first.GetEndBytes() ||
		r.GetTotalBytes() != first.GetTotalBytes() || h.GetFile().GetEtag() != p.header.GetFile().GetEtag() {
		return violation("the server continued with other bytes than requested: %d to %d of %d, ETag %q",
			r.GetStartBytes(), r.GetEndBytes(), r.GetTotalBytes(), h.GetFile().GetEtag())
	}
	return nil
}

func (p *part) chunk(c *pb.DataChunk) ([]byte, error) {
	data := c.GetData()
	switch {
	case !p.gotHeader || p.gotTrailer != nil:
		return nil, violation("the server sent bytes before the header or after the trailer")
	case c.GetOffset() != p.offset:
		return nil, violation("the server sent byte %d instead of byte %d", c.GetOffset(), p.offset)
	case int64(len(data)) > p.end-p.offset:
		return nil, violation("the server sent more bytes than the %d that it announced", p.end)
	case c.Crc32C == nil:
		return nil, violation("the server sent bytes without a checksum")
	case crc32.Checksum(data, castagnoli) != c.GetCrc32C():
		return nil, &damagedError{fmt.Sprintf("the bytes from offset %d on were damaged in transit", p.offset)}
	}
	p.offset += int64(len(data))
	p.crc.Write(data)
	if p.sha != nil {
		p.sha.Write(data)
	}
	if p.skip > 0 && len(data) > 0 {
		if data[0] != p.last {
			return nil, violation("the file has changed, although its ETag has not")
		}
		p.skip, data = 0, data[1:]
	}
	return data, nil
}

func (p *part) finish(t *pb.DownloadTrailer) error {
	sent := p.offset - p.start
	want := t.GetSentChecksums()
	switch {
	case !p.gotHeader || p.gotTrailer != nil:
		return violation("the server sent a trailer before the header, or a second one")
	case p.offset != p.end:
		return &damagedError{fmt.Sprintf("the server ended the download %d bytes before its end", p.end-p.offset)}
	case t.GetSentBytes() != sent:
		return &damagedError{fmt.Sprintf("%d bytes arrived of %d that were sent", sent, t.GetSentBytes())}
	case want == nil || want.Crc32C == nil:
		return violation("the server sent a trailer without a checksum")
	case p.sha != nil && len(want.GetSha256()) == 0:
		return violation("the server sent a trailer without the requested SHA-256")
	case want.GetCrc32C() != p.crc.Sum32(), p.sha != nil && !bytes.Equal(want.GetSha256(), p.sha.Sum(nil)):
		return violation("the checksums of the sent and the received bytes differ, although each chunk was correct; download the file again")
	}
	p.gotTrailer = t
	return nil
}

// DownloadFile downloads to a file of the local disk, completely or not at all. The bytes are written to a temporary file in the same
// directory. When everything was verified, it is flushed to the disk and renamed to path; otherwise it is removed. Only its owner can
// read the file (mode 0600), whatever the umask. An existing file is replaced. With noReplace it is an error that matches fs.ErrExist.
func (c *Client) DownloadFile(ctx context.Context, o DownloadOptions, path string, noReplace bool) (result *DownloadResult, err error) {
	if info, serr := os.Lstat(path); serr == nil {
		switch {
		case info.IsDir():
			return nil, fmt.Errorf("download: %s is a directory", path)
		case noReplace:
			return nil, &fs.PathError{Op: "download to", Path: path, Err: fs.ErrExist}
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".lpfileshare-*.part")
	if err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok { // it names the temporary file, which the caller does not know
			err = &fs.PathError{Op: "create", Path: path, Err: failed.Err}
		}
		return nil, fmt.Errorf("download: %w", err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if result, err = c.Download(ctx, o, tmp); err != nil {
		return nil, err
	}
	if err = tmp.Sync(); err == nil {
		err = tmp.Close()
	}
	if err == nil {
		err = moveInto(tmp.Name(), path, noReplace)
	}
	if err != nil {
		return nil, fmt.Errorf("download: %w", err)
	}
	return result, nil
}

// moveInto renames a finished temporary file.
func moveInto(tmp, path string, noReplace bool) error {
	if noReplace {
		// Unlike a rename, a link fails if the file was created in the meantime.
		switch err := os.Link(tmp, path); {
		case err == nil:
			syncDir(path)
			return os.Remove(tmp)
		case errors.Is(err, fs.ErrExist):
			return &fs.PathError{Op: "download to", Path: path, Err: fs.ErrExist}
		}
		// The file system has no hard links.
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	syncDir(path)
	return nil
}

// syncDir flushes a new name to the disk. Best effort: not every system can sync a directory.
func syncDir(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
}
