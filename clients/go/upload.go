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
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	defaultChunkBytes = 64 << 10
	maxChunkBytes     = 1 << 20
	settleTimeout     = 10 * time.Second

	// acceptedKey is the key of the response header that means that the upload was accepted.
	acceptedKey = "lpfs-request-id"
	// acceptTimeout is how long an upload waits for that header. Some proxies hold headers back until the call ends.
	acceptTimeout = 5 * time.Second
)

// UploadOptions says what is uploaded, and where to. Conversation is required.
type UploadOptions struct {
	// Conversation is accounts/{account}/conversations/{conversation}.
	Conversation string
	// DialogID is a dialog of the conversation. Empty: the main dialog.
	DialogID string
	// DisplayName is a file name, up to GetCapabilitiesResponse.max_display_name_chars characters. It is not sent to LivePerson.
	DisplayName string
	// FileType is the file type. Unspecified: [DetectFileType] of the first bytes and DisplayName.
	FileType pb.FileType
	// Caption is text that is shown with the file, up to GetCapabilitiesResponse.max_caption_chars characters.
	Caption string
	// Preview is a small image of the file, or the request that the server generates one. Nil: none.
	Preview *pb.Preview
	// Image says what may be done to an image before it is stored. Nil: nothing. UploadResponse.Image reports what was done.
	Image *pb.ImageOptions
	// RequestID is a UUID. Empty: a new one. Set it to repeat an upload whose result is not known: the file is published once,
	// however often it is sent.
	RequestID string
	// PublishMode says whether the file is published. Unspecified: it is. See also [Client.PublishUpload].
	PublishMode pb.PublishMode
	// ValidateOnly checks what can be checked without the bytes, and changes nothing. The response has no file.
	ValidateOnly bool
	// WantChecksums are the checksums that the response must have in addition to CRC-32C.
	WantChecksums []pb.ChecksumKind
	// OnProgress receives the number of bytes that were passed to the connection, which can be more than have arrived, and the total,
	// -1 if that is not known. It starts at 0 for each attempt. It must return quickly.
	OnProgress func(sent, total int64)
	// ChunkBytes is the number of bytes in a message, up to 1 MiB. 0: 64 KiB.
	ChunkBytes int
	// RetryFor is how long after the beginning another attempt may begin, and how long to wait for a connection (at least a second).
	// 0: two minutes. Negative: one attempt, and two minutes for the connection.
	RetryFor time.Duration
}

// Upload sends a file. It returns once the file is stored, verified and, unless PublishMode says otherwise, published exactly once.
//
// Upload reads r to its end. It does not close r, and does not keep the file in memory. If r can be read twice (an io.Seeker, from
// its current position; an io.ReaderAt, from its beginning; a *bytes.Buffer), it is read once for size and checksums, which are sent
// first, and once for each attempt. Any other reader is read once, so an attempt can follow only if nothing was read yet.
//
// Upload repeats by the retry rule of the contract, under the same request id, until RetryFor or ctx ends. It renews a rejected token
// once, if its source can. Errors of the call are [*Error] with RequestID set. Errors of r are returned wrapped, and nothing is stored.
func (c *Client) Upload(ctx context.Context, o UploadOptions, r io.Reader) (*pb.UploadResponse, error) {
	if o.ChunkBytes == 0 {
		o.ChunkBytes = defaultChunkBytes
	}
	if o.ChunkBytes < 1 || o.ChunkBytes > maxChunkBytes {
		return nil, fmt.Errorf("upload: ChunkBytes is %d, must be 1 to %d", o.ChunkBytes, maxChunkBytes)
	}
	op := "upload"
	if o.DisplayName != "" {
		op += " " + o.DisplayName
	}
	src, err := newSource(ctx, r, o.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	spec, err := o.spec(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	u := &upload{client: c, options: o, spec: spec, src: src, pace: newPacer(op, o.RetryFor)}
	resp, err := u.run(ctx)
	if e, ok := errors.AsType[*Error](err); ok {
		e.RequestID, e.Finished = spec.GetRequestId(), u.finished
	}
	return resp, err
}

// UploadFile uploads a file of the local disk. An empty DisplayName is set to the last element of path.
func (c *Client) UploadFile(ctx context.Context, o UploadOptions, path string) (*pb.UploadResponse, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	defer f.Close()
	if o.DisplayName == "" {
		o.DisplayName = filepath.Base(path)
	}
	return c.Upload(ctx, o, f)
}

// UploadBytes uploads data. It uses Upload and not UploadSmallFile, which exists for callers that cannot stream: a stream needs no
// limit from GetCapabilities, reports progress, and does not send the bytes of an upload that is rejected.
func (c *Client) UploadBytes(ctx context.Context, o UploadOptions, data []byte) (*pb.UploadResponse, error) {
	return c.Upload(ctx, o, bytes.NewReader(data))
}

// PublishUpload publishes the file of an upload that was stored with PUBLISH_MODE_STORE_ONLY, exactly once. name is
// UploadResponse.upload: accounts/{account}/uploads/{request_id}. A repeat returns the published file.
func (c *Client) PublishUpload(ctx context.Context, name string) (*pb.PublishUploadResponse, error) {
	return c.raw.Files.PublishUpload(ctx, &pb.PublishUploadRequest{Name: name})
}

// GetUpload returns the state of an upload of this caller. name is UploadResponse.upload: accounts/{account}/uploads/{request_id}.
func (c *Client) GetUpload(ctx context.Context, name string) (*pb.Upload, error) {
	r, err := c.raw.Files.GetUpload(ctx, &pb.GetUploadRequest{Name: name})
	return r.GetUpload(), err
}

func (o *UploadOptions) spec(src *source) (*pb.UploadSpec, error) {
	spec := &pb.UploadSpec{
		Conversation: o.Conversation, DialogId: o.DialogID, DisplayName: o.DisplayName, FileType: o.FileType,
		Caption: o.Caption, Preview: o.Preview, Image: o.Image, RequestId: o.RequestID, PublishMode: o.PublishMode,
		ValidateOnly: o.ValidateOnly, Checksums: src.sums, WantChecksums: o.WantChecksums,
	}
	if src.size >= 0 {
		spec.SizeBytes = new(src.size)
	}
	if spec.RequestId == "" {
		spec.RequestId = uuid.NewString()
	}
	if spec.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED {
		spec.FileType = DetectFileType(o.DisplayName, src.head)
		if spec.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED {
			return nil, undetected(src.head)
		}
	}
	return spec, nil
}

// An upload is one file over any number of attempts.
type upload struct {
	client   *Client
	options  UploadOptions
	spec     *pb.UploadSpec
	src      *source
	pace     *pacer
	finished bool // at least one attempt has begun to send finish: the file may have been published
}

func (u *upload) run(ctx context.Context) (*pb.UploadResponse, error) {
	for {
		u.pace.attempts++
		resp, token, err := u.attempt(ctx)
		if err == nil {
			return resp, nil
		}
		readOnce := false
		err = u.pace.retry(ctx, err, u.client.id, token, func() error {
			why := u.src.begin()
			readOnce = why != nil
			return why
		})
		if err == nil {
			continue
		}
		if readOnce {
			if resp := u.settle(ctx); resp != nil {
				return resp, nil
			}
		}
		return nil, err
	}
}

// An answer is the end of a call.
type answer struct {
	resp *pb.UploadResponse
	err  error
}

// attempt sends the file once. It returns the token that it used.
func (u *upload) attempt(ctx context.Context) (*pb.UploadResponse, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	call, token, err := u.client.id.attach(ctx)
	if err != nil {
		cancel()
		return nil, "", err
	}
	var stream grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]
	err = u.pace.reach(cancel, func() (err error) {
		stream, err = u.client.streams.Upload(call)
		return err
	})
	if err != nil {
		cancel()
		return nil, token, err
	}
	accepted, answered, received := make(chan struct{}), make(chan answer, 1), make(chan struct{})
	go func() { // ends with the call
		defer close(received)
		if header, _ := stream.Header(); len(header.Get(acceptedKey)) > 0 {
			close(accepted)
		}
		resp := &pb.UploadResponse{}
		err := stream.RecvMsg(resp)
		answered <- answer{resp, err}
	}()
	defer func() {
		cancel() // the call, on every path
		<-received
	}()
	got, err := u.send(stream, accepted, answered)
	if err != nil && err != io.EOF {
		return nil, token, err
	}
	// io.EOF of Send says only that the server has ended the call. The answer says how, and it can be OK.
	if got == nil {
		got = new(<-answered)
	}
	if got.err != nil {
		return nil, token, got.err
	}
	return got.resp, token, nil
}

// send sends the upload. It returns the answer if the server gave one while send waited to be accepted. io.EOF means that the
// server has ended the call.
func (u *upload) send(stream grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse], accepted <-chan struct{}, answered <-chan answer) (*answer, error) {
	err := stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: u.spec}})
	if err != nil {
		return nil, err
	}
	if !u.options.ValidateOnly {
		limit := time.NewTimer(acceptTimeout)
		defer limit.Stop()
		select {
		case <-accepted:
		case got := <-answered:
			return &got, nil
		case <-limit.C:
		}
		if err := u.sendFile(stream); err != nil {
			return nil, err
		}
	}
	return nil, stream.CloseSend()
}

// sendFile sends chunks and finish.
func (u *upload) sendFile(stream grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]) error {
	total := u.src.size
	crc, sha := crc32.New(castagnoli), sha256.New()
	u.report(0, total)
	var sent int64
	for {
		data := make([]byte, u.options.ChunkBytes) // gRPC may use it until the call ends, so it is not used again
		n, err := fill(u.src, data)
		if data = data[:n]; n > 0 {
			if u.src.sums == nil {
				crc.Write(data)
				sha.Write(data)
			}
			if err := stream.Send(&pb.UploadRequest{Chunk: &pb.DataChunk{
				Offset: sent, Data: data, Crc32C: new(crc32.Checksum(data, castagnoli)),
			}}); err != nil {
				return err
			}
			sent += int64(n)
			u.report(sent, total)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return &ownError{fmt.Errorf("read source: %w", err)}
		}
	}
	if total >= 0 && sent != total {
		return &ownError{fmt.Errorf("read source: it had %d bytes first and %d now; send it when it no longer changes", total, sent)}
	}
	finish := &pb.UploadFinish{}
	if u.src.sums == nil {
		finish.Checksums = sums(crc, sha)
	}
	u.finished = true // even if Send fails
	return stream.Send(&pb.UploadRequest{Finish: finish})
}

// fill reads until p is full or r ends. Unlike io.ReadFull it returns io.EOF only for the end of r. An io.ErrUnexpectedEOF of r, for
// example of a truncated archive, stays an error.
func fill(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; {
		var k int
		k, err = r.Read(p[n:])
		if n += k; k > 0 {
			idle = 0
		} else if idle++; idle == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

func (u *upload) report(sent, total int64) {
	if u.options.OnProgress != nil {
		u.options.OnProgress(sent, total)
	}
}

// settle asks for the result of an upload whose response was lost and that cannot be sent again. Nil: it is not known to be done.
func (u *upload) settle(ctx context.Context) *pb.UploadResponse {
	name, ok := uploadName(u.spec.GetConversation(), u.spec.GetRequestId())
	if !u.finished || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	r, err := u.client.GetUpload(ctx, name)
	if err != nil {
		return nil
	}
	storeOnly := u.spec.GetPublishMode() == pb.PublishMode_PUBLISH_MODE_STORE_ONLY
	if r.GetState() == pb.UploadState_UPLOAD_STATE_PUBLISHED || r.GetState() == pb.UploadState_UPLOAD_STATE_STORED && storeOnly {
		return &pb.UploadResponse{File: r.GetFile(), RequestId: u.spec.GetRequestId(), Upload: name, Replayed: true, Image: r.GetImage()}
	}
	return nil
}

// sums returns the checksums of two hashes.
func sums(crc hash.Hash32, sha hash.Hash) *pb.Checksums {
	return &pb.Checksums{Crc32C: new(crc.Sum32()), Sha256: sha.Sum(nil)}
}
