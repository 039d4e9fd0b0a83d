package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lpfileshare/lpfileshare/bench/content"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// account is the one that LivePerson's stand-in has.
const account = "12345678"

var errDiffers = errors.New("other bytes arrived than were stored")

// callTimeout bounds a transfer, which waits for memory if there are many.
const callTimeout = 2 * time.Minute

// A consumer has its own identity and conversation.
type consumer struct {
	ctx          context.Context // carries the token
	conversation string
	file         string // the name of a file to download
}

// A grpcWorker makes one call after another. The chunks of the file are encoded once for all workers.
type grpcWorker struct {
	conn   *grpc.ClientConn
	from   *consumer
	job    *Job
	chunks []mem.BufferSlice
	file   *content.File
	buf    []byte
}

// newWorkers connects the workers and prepares what they transfer.
func newWorkers(job *Job) ([]worker, error) {
	workers := make([]worker, job.Streams)
	if job.HTTP {
		for i := range workers {
			w, err := newHTTPWorker(job)
			if err != nil {
				return nil, err
			}
			workers[i] = w
		}
		return workers, nil
	}
	conns, err := dial(job)
	if err != nil {
		return nil, err
	}
	file := content.Of(job.Size)
	chunks, err := encodeChunks(file, job.Chunk)
	if err != nil {
		return nil, err
	}
	consumers := make([]*consumer, max(1, min(job.Consumers, job.Streams)))
	var group errgroup.Group
	group.SetLimit(8)
	for i := range consumers {
		group.Go(func() (err error) {
			w := &grpcWorker{conn: conns[i%len(conns)], job: job, chunks: chunks, file: file}
			consumers[i], err = prepare(w)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i := range workers {
		workers[i] = &grpcWorker{
			conn: conns[i%len(conns)], from: consumers[i%len(consumers)], job: job, chunks: chunks, file: file, buf: make([]byte, block),
		}
	}
	return workers, nil
}

func dial(job *Job) ([]*grpc.ClientConn, error) {
	secure := insecure.NewCredentials()
	if job.CA != "" {
		var err error
		if secure, err = credentials.NewClientTLSFromFile(job.CA, "localhost"); err != nil {
			return nil, err
		}
	}
	conns := make([]*grpc.ClientConn, max(1, min(job.Conns, job.Streams)))
	for i := range conns {
		var err error
		conns[i], err = grpc.NewClient("passthrough:///"+job.Addr, grpc.WithTransportCredentials(secure),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(8<<20)))
		if err != nil {
			return nil, err
		}
	}
	return conns, nil
}

// encodeChunks returns the messages that carry the file, each with its CRC-32C.
func encodeChunks(file *content.File, size int) ([]mem.BufferSlice, error) {
	var chunks []mem.BufferSlice
	for at := 0; at < len(file.Data); at += size {
		data := file.Data[at:min(at+size, len(file.Data))]
		m, err := encode(&pb.UploadRequest{Chunk: &pb.DataChunk{Offset: int64(at), Data: data, Crc32C: proto.Uint32(content.Sum(data))}})
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, m)
	}
	return chunks, nil
}

// prepare signs a consumer up, opens a conversation, and stores the file to download, all over the worker's connection.
func prepare(w *grpcWorker) (*consumer, error) {
	c := &consumer{ctx: context.Background()}
	w.from = c
	if w.job.LivePerson != "" {
		token, err := SignUp(w.job.LivePerson)
		if err != nil {
			return nil, fmt.Errorf("sign-up: %w", err)
		}
		c.ctx = metadata.AppendToOutgoingContext(c.ctx, "lp-consumer-token", token)
	}
	ctx, cancel := context.WithTimeout(c.ctx, callTimeout)
	defer cancel()
	var opened pb.CreateConversationResponse
	create := &pb.CreateConversationRequest{Account: "accounts/" + account}
	if err := w.call(ctx, pb.ConversationService_CreateConversation_FullMethodName, create, &opened); err != nil {
		return nil, fmt.Errorf("conversation: %w", err)
	}
	c.conversation = opened.GetConversation().GetName()
	if w.job.Up {
		return c, nil
	}
	stored, err := w.upload()
	if err != nil {
		return nil, fmt.Errorf("the file to download: %w", err)
	}
	c.file = stored.GetFile().GetName()
	return c, nil
}

// SignUp signs a new consumer up at LivePerson's stand-in and returns its token.
func SignUp(liveperson string) (string, error) {
	resp, err := http.Post(liveperson+"/api/account/"+account+"/signup", "application/json", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct{ JWT string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.JWT == "" {
		return "", fmt.Errorf("%s, %w", resp.Status, err)
	}
	return answer.JWT, nil
}

// call makes a unary call.
func (w *grpcWorker) call(ctx context.Context, method string, req, resp proto.Message) error {
	in, err := encode(req)
	if err != nil {
		return err
	}
	var out received
	if err := w.conn.Invoke(ctx, method, in, &out); err != nil {
		return err
	}
	return out.decode(resp)
}

func (w *grpcWorker) transfer() error {
	if w.job.Up {
		_, err := w.upload()
		return err
	}
	return w.download()
}

var (
	finish, _    = encode(&pb.UploadRequest{Finish: &pb.UploadFinish{}})
	uploadDesc   = &grpc.StreamDesc{ClientStreams: true}
	downloadDesc = &grpc.StreamDesc{ServerStreams: true}
)

// upload sends the file as the Go client does: the chunks follow when the server has accepted the spec.
func (w *grpcWorker) upload() (*pb.UploadResponse, error) {
	ctx, cancel := context.WithTimeout(w.from.ctx, callTimeout)
	defer cancel()
	spec, err := encode(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: w.from.conversation, DisplayName: "file.pdf", FileType: pb.FileType_FILE_TYPE_PDF, SizeBytes: proto.Int64(int64(w.job.Size)),
		Checksums: &pb.Checksums{Crc32C: proto.Uint32(w.file.CRC32C)}, RequestId: uuid.NewString(),
	}}})
	if err != nil {
		return nil, err
	}
	stream, err := w.conn.NewStream(ctx, uploadDesc, pb.FileSharingService_Upload_FullMethodName)
	if err != nil {
		return nil, err
	}
	if err := w.sendFile(stream, spec); err != nil && !errors.Is(err, io.EOF) { // EOF: RecvMsg has the error
		return nil, err
	}
	var out received
	if err := stream.RecvMsg(&out); err != nil {
		return nil, err
	}
	var resp pb.UploadResponse
	return &resp, out.decode(&resp)
}

func (w *grpcWorker) sendFile(stream grpc.ClientStream, spec mem.BufferSlice) error {
	if err := stream.SendMsg(spec); err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	for _, chunk := range w.chunks {
		if err := stream.SendMsg(chunk); err != nil {
			return err
		}
	}
	if err := stream.SendMsg(finish); err != nil {
		return err
	}
	return stream.CloseSend()
}

// download fetches the file and compares it.
func (w *grpcWorker) download() error {
	ctx, cancel := context.WithTimeout(w.from.ctx, callTimeout)
	defer cancel()
	req, err := encode(&pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: w.from.file}, MaxChunkBytes: int32(w.job.MaxChunk)})
	if err != nil {
		return err
	}
	stream, err := w.conn.NewStream(ctx, downloadDesc, pb.FileSharingService_Download_FullMethodName)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	rest := w.file.Data
	for {
		var m received
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		n, err := m.compareChunk(rest, w.buf)
		m.free()
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("the download ended %d bytes early", len(rest))
	}
	return nil
}

// rawCodec passes messages that are encoded already, and keeps received ones encoded.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) { return v.(mem.BufferSlice), nil }

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	data.Ref()
	v.(*received).data = data
	return nil
}

// encode encodes a message into memory that no pool reuses.
func encode(m proto.Message) (mem.BufferSlice, error) {
	b, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// received is an encoded message.
type received struct{ data mem.BufferSlice }

func (m *received) free() { m.data.Free() }

func (m *received) decode(into proto.Message) error {
	defer m.free()
	return proto.Unmarshal(m.data.Materialize(), into)
}

// The fields of DownloadResponse and DataChunk that compareChunk looks for.
const (
	fieldChunk = 2
	fieldData  = 2
)

// compareChunk compares the data of a DownloadResponse with the beginning of want, and returns its length: 0 if the message has none.
func (m *received) compareChunk(want, buf []byte) (int, error) {
	r := m.data.Reader()
	defer r.Close()
	for r.Remaining() > 0 {
		field, size, err := nextField(r)
		if err != nil {
			return 0, err
		}
		if field != fieldChunk {
			if _, err := r.Discard(size); err != nil {
				return 0, err
			}
			continue
		}
		for end := r.Remaining() - size; r.Remaining() > end; {
			field, size, err := nextField(r)
			if err != nil {
				return 0, err
			}
			if field == fieldData {
				return size, compare(r, want, size, buf)
			}
			if _, err := r.Discard(size); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// compare compares the next size bytes with the beginning of want.
func compare(r *mem.Reader, want []byte, size int, buf []byte) error {
	if size > len(want) {
		return errDiffers
	}
	for at := 0; at < size; {
		n, err := r.Read(buf[:min(len(buf), size-at)])
		if string(buf[:n]) != string(want[at:at+n]) {
			return errDiffers
		}
		if at += n; err != nil && at < size {
			return err
		}
	}
	return nil
}

// nextField reads a field's tag and the number of bytes of its value, without the value.
func nextField(r *mem.Reader) (field protowire.Number, size int, err error) {
	tag, err := varint(r)
	if err != nil {
		return 0, 0, err
	}
	field, kind := protowire.DecodeTag(tag)
	switch kind {
	case protowire.VarintType:
		_, err = varint(r)
	case protowire.Fixed32Type:
		size = 4
	case protowire.Fixed64Type:
		size = 8
	case protowire.BytesType:
		var n uint64
		n, err = varint(r)
		size = int(n)
	default:
		err = fmt.Errorf("a field of wire type %d", kind)
	}
	return field, size, err
}

func varint(r io.ByteReader) (v uint64, err error) {
	for shift := 0; shift < 64; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if v |= uint64(b&0x7f) << shift; b < 0x80 {
			return v, nil
		}
	}
	return 0, errors.New("a number is too long")
}
