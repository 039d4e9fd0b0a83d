package lpfileshare

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	defaultChunkBytes = 64 << 10
	maxChunkBytes     = 1 << 20
	settleTimeout     = 10 * time.Second
)

// UploadOptions says what is uploaded, and where to. Conversation is required.
type UploadOptions struct {
	// Conversation is accounts/{account}/conversations/{conversation}.
	Conversation string
	// DialogID is a dialog of the conversation. Empty: the main dialog.
	DialogID string
	// DisplayName is a name for people, up to 255 characters. LivePerson is not told it.
	DisplayName string
	// FileType is the file's type. Unspecified: by its first bytes and the extension of DisplayName, see [DetectFileType].
	FileType pb.FileType
	// Caption is text that is shown with the file, up to 5,000 characters.
	Caption string
	// Preview is a small picture of the file, or the wish that the server make one. Nil: none.
	Preview *pb.Preview
	// Image is what may be done to an image before it is stored: made to fit, stripped. Nil: nothing. UploadResponse.Image tells what
	// was done.
	Image *pb.ImageOptions
	// RequestID is a UUID. Empty: one is made. Give the same again to repeat an upload whose outcome is not known: it is then
	// published once, however often it is sent.
	RequestID string
	// PublishMode says whether the file is published. Unspecified: it is.
	PublishMode pb.PublishMode
	// ValidateOnly checks what can be checked without sending bytes, and changes nothing. The answer has no file.
	ValidateOnly bool
	// OnProgress is told how many bytes were handed to the connection, which is a little more than have arrived, and how many
	// there are, -1 where that is not known. It goes back to 0 with each attempt. That all were sent does not mean that the
	// file was published. It must not block for long.
	OnProgress func(sent, total int64)
	// ChunkBytes is how many bytes go into one message, up to 1 MiB. 0: 64 KiB.
	ChunkBytes int
	// RetryFor is how long after the beginning further attempts may begin, and how long a connection is waited for (a second at
	// the least). 0: two minutes; negative: no further attempts, and two minutes for the connection.
	RetryFor time.Duration
}

// Upload sends a file, and returns once it is stored, checked and (unless asked otherwise) published exactly once.
//
// r is read to its end; it is not closed and not kept in memory. If it can be read twice (an io.Seeker, from where it stands;
// an io.ReaderAt, from its beginning; a *bytes.Buffer), it is: once for size and checksums, which are sent ahead, and once
// for each attempt. Anything else is read once, and can be sent again only as long as nothing of it was read.
//
// A transient error (UNAVAILABLE; ABORTED, except UPLOAD_TAKEN_OVER; RESOURCE_EXHAUSTED with RetryInfo; a stream that was
// reset on the way) is answered by sending the file again under the same request id, not sooner than the server asks, until
// RetryFor or ctx ends. A refused token is renewed once, if its source can. Errors of the call are [*Error] with the
// RequestID; errors of r come wrapped, and nothing is then stored.
func (c *Client) Upload(ctx context.Context, o UploadOptions, r io.Reader) (*pb.UploadResponse, error) {
	if o.ChunkBytes == 0 {
		o.ChunkBytes = defaultChunkBytes
	}
	if o.ChunkBytes < 1 || o.ChunkBytes > maxChunkBytes {
		return nil, fmt.Errorf("upload: ChunkBytes is %d, and must be 1 to %d", o.ChunkBytes, maxChunkBytes)
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
	u := &upload{client: c, options: o, spec: spec, src: src, pace: newPacer(o.RetryFor)}
	resp, err := u.run(ctx)
	if err != nil {
		err = newError(op, err)
		var e *Error
		if errors.As(err, &e) {
			e.Op, e.RequestID, e.Attempts, e.Finished = op, spec.GetRequestId(), u.pace.attempts, u.finished
		}
		return nil, err
	}
	return resp, nil
}

func (o *UploadOptions) spec(src *source) (*pb.UploadSpec, error) {
	spec := &pb.UploadSpec{
		Conversation: o.Conversation, DialogId: o.DialogID, DisplayName: o.DisplayName, FileType: o.FileType,
		Caption: o.Caption, Preview: o.Preview, Image: o.Image, RequestId: o.RequestID, PublishMode: o.PublishMode,
		ValidateOnly: o.ValidateOnly, Checksums: src.sums,
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
			return nil, errors.New("its type cannot be told from its bytes or its name: set FileType, or give a DisplayName with an extension")
		}
	}
	return spec, nil
}

// An upload is one file on its way, over any number of attempts.
type upload struct {
	client   *Client
	options  UploadOptions
	spec     *pb.UploadSpec
	src      *source
	pace     *pacer
	finished bool // the finish was sent, or begun to be, at least once: the file may have been published
}

func (u *upload) run(ctx context.Context) (*pb.UploadResponse, error) {
	for {
		u.pace.attempts++
		resp, token, err := u.attempt(ctx)
		if err == nil {
			return resp, nil
		}
		fresh := false
		if !u.pace.renewed {
			_, fresh = u.client.ids.id.renew(ctx, err, token)
			u.pace.renewed = u.pace.renewed || fresh
		}
		if !fresh && !transient(err) {
			return nil, err
		}
		if why := u.src.begin(); why != nil {
			if resp := u.settle(ctx); resp != nil {
				return resp, nil
			}
			return nil, notRepeated(newError("upload", err), why.Error())
		}
		if fresh {
			continue
		}
		if err := u.pace.wait(ctx, newError("upload", err)); err != nil {
			return nil, err
		}
	}
}

// attempt sends the file once. It returns the token that it used.
func (u *upload) attempt(ctx context.Context) (*pb.UploadResponse, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on every way out, after the last Recv
	call, token, err := u.client.ids.id.attach(ctx)
	if err != nil {
		return nil, "", err
	}
	var stream grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]
	err = u.pace.reach(cancel, func() (err error) {
		stream, err = u.client.rawFiles.Upload(call)
		return err
	})
	if err != nil {
		return nil, token, err
	}
	err = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: u.spec}})
	if err == nil && !u.options.ValidateOnly {
		// The server's leave to send. None: it has already ended the call, with an answer or an error.
		if header, _ := stream.Header(); header != nil {
			err = u.send(stream)
		}
	}
	if err != nil && err != io.EOF {
		return nil, token, err // local and final: not sent, or not read
	}
	// A bare io.EOF from Send (those of the source are dealt with in send) says only that the server has ended the call. How, is told here: as often as not by success.
	resp, err := stream.CloseAndRecv()
	return resp, token, err
}

// send sends chunks and finish. io.EOF means that the server has ended the call.
func (u *upload) send(stream grpc.ClientStreamingClient[pb.UploadRequest, pb.UploadResponse]) error {
	total := u.src.size
	crc, sha := crc32.New(castagnoli), sha256.New()
	u.report(0, total)
	var sent int64
	for {
		data := make([]byte, u.options.ChunkBytes) // not to be used again before the call ends, hence never
		n, err := fill(u.src, data)
		if data = data[:n]; n > 0 {
			crc.Write(data)
			sha.Write(data)
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
			return fmt.Errorf("read source: %w", err)
		}
	}
	if total >= 0 && sent != total {
		return fmt.Errorf("read source: it had %d bytes at first and %d now; send it when it is at rest", total, sent)
	}
	finish := &pb.UploadFinish{}
	if u.src.sums == nil {
		finish.Checksums = sums(crc, sha)
	}
	u.finished = true // whatever comes of sending it
	return stream.Send(&pb.UploadRequest{Finish: finish})
}

// fill reads until p is full or r ends. Unlike io.ReadFull it gives io.EOF only for the true end: an io.ErrUnexpectedEOF of the
// source's own, say of a truncated archive, is an error and not the end of a file.
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

// settle asks what became of an upload whose answer was lost and which cannot be sent again. Nil: that it was done cannot be
// said.
func (u *upload) settle(ctx context.Context) *pb.UploadResponse {
	account, ok := accountOf(u.spec.GetConversation())
	if !u.finished || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	r, err := u.client.files.GetUpload(ctx, &pb.GetUploadRequest{Name: account + "/uploads/" + u.spec.GetRequestId()})
	if err != nil {
		return nil
	}
	state, storeOnly := r.GetUpload().GetState(), u.spec.GetPublishMode() == pb.PublishMode_PUBLISH_MODE_STORE_ONLY
	if state == pb.UploadState_UPLOAD_STATE_PUBLISHED || state == pb.UploadState_UPLOAD_STATE_STORED && storeOnly {
		return &pb.UploadResponse{File: r.GetUpload().GetFile(), RequestId: u.spec.GetRequestId(), Replayed: true, Image: r.GetUpload().GetImage()}
	}
	return nil
}

// sums are the checksums of what two hashes have seen.
func sums(crc hash.Hash32, sha hash.Hash) *pb.Checksums {
	return &pb.Checksums{Crc32C: new(crc.Sum32()), Sha256: sha.Sum(nil)}
}

// A damagedError is bytes that were damaged or lost between server and client: another attempt may do better.
type damagedError struct{ what string }

func (e *damagedError) Error() string { return e.what }

// GRPCStatus makes it a DATA_LOSS for whom asks.
func (e *damagedError) GRPCStatus() *status.Status { return status.New(codes.DataLoss, e.what) }
