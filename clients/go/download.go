package lpfileshare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// DownloadOptions says which file, and which part of it. Either Name, or Conversation and StoragePath.
type DownloadOptions struct {
	// Name is the file's resource name, accounts/{account}/conversations/{conversation}/files/{file}.
	Name string
	// Conversation is where StoragePath is to be looked for.
	Conversation string
	// StoragePath is LivePerson's relativePath, "/v1/AUTH_...".
	StoragePath string
	// DialogID is the dialog of StoragePath. Empty: any.
	DialogID string
	// Offset is the first byte. Negative: so many bytes from the end.
	Offset int64
	// Limit is how many bytes at the most. 0: to the end.
	Limit int64
	// IfMatchETag makes the download fail with FILE_CHANGED unless the file has this ETag. Empty: any will do.
	IfMatchETag string
	// ChunkBytes is the largest chunk to be sent, 1 KiB to 1 MiB. 0: the server's default.
	ChunkBytes int32
	// OnHeader is told of the file before its first byte is written. Its error ends the download.
	OnHeader func(*pb.DownloadHeader) error
	// OnProgress is told how many bytes were checked and written, and how many there will be. It must not block for long.
	OnProgress func(received, total int64)
	// RetryFor is how long after the latest progress further attempts may begin, and how long a connection is waited for (a
	// second at the least). 0: two minutes; negative: no further attempts, and two minutes for the connection.
	RetryFor time.Duration
}

// A DownloadResult is a download that is complete.
type DownloadResult struct {
	// Header is what the server said before the first byte: the file, and which bytes of it were asked for.
	Header *pb.DownloadHeader
	// Trailer is what the server said after the last byte; its sums are those of the last attempt alone.
	Trailer *pb.DownloadTrailer
	// Bytes is how many bytes were written.
	Bytes int64
	// Checksums are of all bytes that were written, computed here.
	Checksums *pb.Checksums
	// Attempts is how many calls it took.
	Attempts int
}

// Download writes a file, or a part of it, to w, which stays open.
//
// Every chunk is checked before it is written, and the whole against the trailer; no trailer, no success. Where the
// connection or the store breaks off, it goes on behind the last byte that was written, of the same object only: if that was
// replaced meanwhile, FILE_CHANGED is returned. After an error w holds a correct beginning of the file, not more. Errors of the
// call are [*Error]; errors of w come wrapped.
func (c *Client) Download(ctx context.Context, o DownloadOptions, w io.Writer) (*DownloadResult, error) {
	const op = "download"
	d := &download{client: c, options: o, w: w, pace: newPacer(o.RetryFor), crc: crc32.New(castagnoli), sha: sha256.New()}
	switch {
	case o.Name != "" && o.StoragePath == "" && o.Conversation == "":
	case o.Name == "" && o.StoragePath != "" && o.Conversation != "":
	default:
		return nil, errors.New("download: give either Name, or Conversation and StoragePath")
	}
	if err := d.run(ctx); err != nil {
		err = newError(op, err)
		var e *Error
		if errors.As(err, &e) {
			e.Op, e.Attempts = op, d.pace.attempts
		}
		return nil, err
	}
	return &DownloadResult{
		Header: d.header, Trailer: d.trailer, Bytes: d.written, Checksums: sums(d.crc, d.sha), Attempts: d.pace.attempts,
	}, nil
}

// A download is one file on its way, over any number of attempts.
type download struct {
	client  *Client
	options DownloadOptions
	w       io.Writer
	pace    *pacer

	header  *pb.DownloadHeader // of the first attempt; nil: none came yet
	trailer *pb.DownloadTrailer
	written int64
	last    byte // the last byte that was written
	crc     hash.Hash32
	sha     hash.Hash
}

func (d *download) run(ctx context.Context) error {
	for {
		d.pace.attempts++
		before := d.written
		token, err := d.attempt(ctx)
		if err == nil {
			return nil
		}
		if d.written > before {
			d.pace.progress()
		}
		if !d.pace.renewed {
			if _, ok := d.client.ids.id.renew(ctx, err, token); ok {
				d.pace.renewed = true
				continue
			}
		}
		if !transient(err) {
			return err
		}
		if d.written > 0 && d.header.GetFile().GetEtag() == "" {
			return notRepeated(newError("download", err), "the server gave no ETag, so that nothing says that the file is still the same")
		}
		if err := d.pace.wait(ctx, newError("download", err)); err != nil {
			return err
		}
	}
}

// request asks for what is still missing. When nothing is but the trailer, the last byte is asked for once more: without a
// trailer, nothing is complete.
func (d *download) request() (req *pb.DownloadRequest, skip int64) {
	o := &d.options
	req = &pb.DownloadRequest{ReadOffset: o.Offset, ReadLimit: o.Limit, IfMatchEtag: o.IfMatchETag, MaxChunkBytes: o.ChunkBytes}
	if o.Name != "" {
		req.Source = &pb.DownloadRequest_Name{Name: o.Name}
	} else {
		req.Source = &pb.DownloadRequest_Storage{Storage: &pb.StorageRef{
			Conversation: o.Conversation, StoragePath: o.StoragePath, DialogId: o.DialogID,
		}}
	}
	if d.header == nil || d.written == 0 && d.header.GetFile().GetEtag() == "" {
		return req, 0
	}
	r := d.header.GetContentRange()
	next := r.GetStartBytes() + d.written
	if next == r.GetEndBytes() && d.written > 0 {
		next, skip = next-1, 1
	}
	req.ReadOffset, req.ReadLimit, req.IfMatchEtag = next, r.GetEndBytes()-next, d.header.GetFile().GetEtag()
	return req, skip
}

// attempt makes one call. It returns the token that it used.
func (d *download) attempt(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, token, err := d.client.ids.id.attach(ctx)
	if err != nil {
		return "", err
	}
	req, skip := d.request()
	var stream grpc.ServerStreamingClient[pb.DownloadResponse]
	err = d.pace.reach(cancel, func() (err error) {
		stream, err = d.client.rawFiles.Download(call, req)
		return err
	})
	if err != nil {
		return token, err
	}
	p := part{download: d, skip: skip, crc: crc32.New(castagnoli), sha: sha256.New()}
	return token, p.receive(stream)
}

// A part is what one call gives.
type part struct {
	*download
	skip       int64 // bytes at the beginning that were written before
	start, end int64 // what the header announced
	next       int64 // the offset that is expected next
	crc        hash.Hash32
	sha        hash.Hash
	gotHeader  bool
	gotTrailer bool
}

func (p *part) receive(stream grpc.ServerStreamingClient[pb.DownloadResponse]) error {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			if !p.gotTrailer {
				return &damagedError{fmt.Sprintf("the download ended without a trailer, %d bytes before its end", p.end-p.next)}
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch payload := m.GetPayload().(type) {
		case *pb.DownloadResponse_Header:
			err = p.begin(payload.Header)
		case *pb.DownloadResponse_Chunk:
			err = p.chunk(payload.Chunk)
		case *pb.DownloadResponse_Trailer:
			err = p.finish(payload.Trailer)
		default:
			err = errors.New("the server sent a message that this client does not know")
		}
		if err != nil {
			return err
		}
	}
}

func (p *part) begin(h *pb.DownloadHeader) error {
	r := h.GetContentRange()
	if p.gotHeader {
		return errors.New("the server sent a second header")
	}
	if r.GetStartBytes() < 0 || r.GetStartBytes() > r.GetEndBytes() || r.GetEndBytes() > r.GetTotalBytes() {
		return fmt.Errorf("the server sent an impossible range: %d to %d of %d", r.GetStartBytes(), r.GetEndBytes(), r.GetTotalBytes())
	}
	p.gotHeader, p.start, p.next, p.end = true, r.GetStartBytes(), r.GetStartBytes(), r.GetEndBytes()
	if p.header == nil {
		if p.options.OnHeader != nil {
			if err := p.options.OnHeader(h); err != nil {
				return err
			}
		}
		p.header = h
		p.report()
		return nil
	}
	first := p.header.GetContentRange()
	if p.written == 0 && p.skip == 0 && r.GetStartBytes() == first.GetStartBytes() {
		p.header = h // nothing was written yet: whatever the file is now is as good
		return nil
	}
	if want := first.GetStartBytes() + p.written - p.skip; r.GetStartBytes() != want || r.GetEndBytes() != first.GetEndBytes() ||
		r.GetTotalBytes() != first.GetTotalBytes() || h.GetFile().GetEtag() != p.header.GetFile().GetEtag() {
		return fmt.Errorf("the server went on with other bytes than were asked for: %d to %d of %d, ETag %q",
			r.GetStartBytes(), r.GetEndBytes(), r.GetTotalBytes(), h.GetFile().GetEtag())
	}
	return nil
}

func (p *part) chunk(c *pb.DataChunk) error {
	data := c.GetData()
	switch {
	case !p.gotHeader || p.gotTrailer:
		return errors.New("the server sent bytes before the header or after the trailer")
	case c.GetOffset() != p.next:
		return fmt.Errorf("the server sent byte %d where byte %d was to come", c.GetOffset(), p.next)
	case int64(len(data)) > p.end-p.next:
		return fmt.Errorf("the server sent more than the %d bytes that it announced", p.end)
	case c.Crc32C == nil:
		return errors.New("the server sent bytes without a checksum")
	case crc32.Checksum(data, castagnoli) != c.GetCrc32C():
		return &damagedError{fmt.Sprintf("the bytes from %d on were damaged on the way", p.next)}
	}
	p.next += int64(len(data))
	p.crc.Write(data)
	p.sha.Write(data)
	if p.skip > 0 && len(data) > 0 {
		if data[0] != p.last {
			return errors.New("the file has changed, though its ETag has not")
		}
		p.skip, data = 0, data[1:]
	}
	return p.write(data)
}

func (p *part) write(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	n, err := p.w.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	p.download.crc.Write(data)
	p.download.sha.Write(data)
	p.written, p.last = p.written+int64(n), data[n-1]
	p.report()
	return nil
}

func (p *part) report() {
	if p.options.OnProgress != nil {
		r := p.header.GetContentRange()
		p.options.OnProgress(p.written, r.GetEndBytes()-r.GetStartBytes())
	}
}

func (p *part) finish(t *pb.DownloadTrailer) error {
	sent := p.next - p.start
	switch {
	case !p.gotHeader || p.gotTrailer:
		return errors.New("the server sent a trailer before the header, or two of them")
	case p.next != p.end:
		return &damagedError{fmt.Sprintf("the server took the download for complete %d bytes before its end", p.end-p.next)}
	case t.GetSentBytes() != sent:
		return &damagedError{fmt.Sprintf("%d bytes arrived of %d that were sent", sent, t.GetSentBytes())}
	}
	got, want := sums(p.crc, p.sha), t.GetSentChecksums()
	if want == nil || want.Crc32C == nil && len(want.GetSha256()) == 0 {
		return errors.New("the server sent a trailer without checksums")
	}
	if want.Crc32C != nil && want.GetCrc32C() != got.GetCrc32C() ||
		len(want.GetSha256()) > 0 && !bytes.Equal(want.GetSha256(), got.GetSha256()) {
		return errors.New("the checksums of what was sent and of what arrived differ, though each chunk was right; download it again")
	}
	p.gotTrailer, p.trailer = true, t
	return nil
}

// DownloadFile downloads to a file of the local disk, whole or not at all: the bytes go to a temporary file beside path, which
// is flushed to the disk and takes path's place once everything has been checked, and is removed otherwise. Only its owner can
// read the file (mode 0600), whatever the umask: change the mode afterwards for others to read it. An existing file is replaced, unless noReplace, with which it is an error that matches fs.ErrExist.
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
		if failed, ok := errors.AsType[*fs.PathError](err); ok { // it names the temporary file, which nobody knows of
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

// moveInto gives a finished temporary file its name.
func moveInto(tmp, path string, noReplace bool) error {
	if noReplace {
		// A link fails where a file has come up since it was looked for, which a rename would replace.
		switch err := os.Link(tmp, path); {
		case err == nil:
			syncDir(path)
			return os.Remove(tmp)
		case errors.Is(err, fs.ErrExist):
			return &fs.PathError{Op: "download to", Path: path, Err: fs.ErrExist}
		}
		// No hard links here: a rename has to do.
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	syncDir(path)
	return nil
}

// syncDir makes a new name last. Where a directory cannot be synced, the system does it in its own time.
func syncDir(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
}
