package main

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A Fake is a server that does what a real one does not do: it follows a script.
type Fake struct {
	// Accept is the only token that is valid; others are TOKEN_INVALID. Empty: any.
	Accept string `json:"accept"`
	// Acts are what each call of a method does, by the method's name, in order; the last one stays.
	Acts map[string][]Act `json:"acts"`
}

// An Act is what one call of the fake does. Each kind of call uses some of the members.
type Act struct {
	// Status ends the call, of an upload at the place At, of a download after BreakAt bytes.
	Status *Status `json:"status"`
	// At is where an upload ends: "call" (nothing is read), "spec" or "finish" (default). Bytes: after so many bytes.
	At    string `json:"at"`
	Bytes int    `json:"bytes"`
	// Header is when the response header of an upload comes: "" when the spec is read, "late" with the response, "other" without the key
	// at the spec, "none".
	Header   string `json:"header"`
	Replayed bool   `json:"replayed"`
	// Hang: the call does not end by itself.
	Hang bool `json:"hang"`
	// Answer is the response of a unary call as protobuf JSON. DelayMs is how long it takes.
	Answer  json.RawMessage `json:"answer"`
	DelayMs int             `json:"delayMs"`

	// A download of Size bytes, in chunks of 16 KiB, with one fault.
	Size        int    `json:"size"`
	ETag        string `json:"etag"`
	CorruptData int    `json:"corruptData"` // the n-th chunk, from 1, has a wrong byte
	WrongOffset int    `json:"wrongOffset"` // the n-th chunk has a wrong offset
	NoTrailer   bool   `json:"noTrailer"`
	WrongSum    bool   `json:"wrongSum"`  // of the trailer
	WrongSent   bool   `json:"wrongSent"` // number of bytes in the trailer
	NoHeader    bool   `json:"noHeader"`
	BreakAt     int    `json:"breakAt"`
	TotalBytes  int64  `json:"totalBytes"` // in the header, whatever Size is
	// StoredMD5 is what the header states: "" nothing, "right" the MD5 of all bytes, "wrong" another.
	StoredMD5 string `json:"storedMd5"`

	// Events of a watch. After the last one the call ends with Status, or OK, unless it hangs.
	Events []Event `json:"events"`
}

// An Event is one message of a watch.
type Event struct {
	Message json.RawMessage `json:"message"` // protobuf JSON of a WatchFilesResponse
	Unknown bool            `json:"unknown"` // adds a member of the oneof that this contract does not have
	AfterMs int             `json:"afterMs"`
}

// A Status is an error of the fake.
type Status struct {
	Code         string            `json:"code"`
	Reason       string            `json:"reason"` // empty: no ErrorInfo
	Domain       string            `json:"domain"` // default: lpfileshare
	Message      string            `json:"message"`
	Metadata     map[string]string `json:"metadata"`
	RetryAfterMs int               `json:"retryAfterMs"` // 0: no RetryInfo
}

func (s *Status) err() error {
	if s == nil {
		return nil
	}
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(`"` + s.Code + `"`)); err != nil {
		return status.Error(codes.Internal, "the case has an unknown code "+s.Code)
	}
	st := status.New(code, s.Message)
	if s.Reason != "" {
		domain := s.Domain
		if domain == "" {
			domain = "lpfileshare"
		}
		st, _ = st.WithDetails(&errdetails.ErrorInfo{Reason: s.Reason, Domain: domain, Metadata: s.Metadata})
	}
	if s.RetryAfterMs > 0 {
		st, _ = st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(s.RetryAfterMs) * time.Millisecond)})
	}
	return st.Err()
}

// A fakeServer is a running Fake.
type fakeServer struct {
	pb.UnimplementedFileSharingServiceServer
	pb.UnimplementedConversationServiceServer
	pb.UnimplementedIdentityServiceServer

	script Fake
	addr   string
	server *grpc.Server
	done   chan struct{}

	mu    sync.Mutex
	calls map[string][]any // what each call of a method brought: {"metadata", "request", "bytes"}
	begun chan struct{}    // closed when the next call begins
}

// startFake starts a fake on a free port. The caller stops it.
func startFake(script Fake) (*fakeServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fakeServer{script: script, addr: l.Addr().String(), done: make(chan struct{}), calls: map[string][]any{}, begun: make(chan struct{})}
	f.server = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(f.unary),
	)
	pb.RegisterFileSharingServiceServer(f.server, f)
	pb.RegisterConversationServiceServer(f.server, f)
	pb.RegisterIdentityServiceServer(f.server, f)
	h := health.NewServer()
	h.SetServingStatus("lpfileshare.v1.FileSharingService", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(f.server, h)
	go func() { defer close(f.done); _ = f.server.Serve(l) }()
	return f, nil
}

func (f *fakeServer) stop() {
	f.server.Stop()
	<-f.done
}

// begin records a call, and returns its act and the record. err: the token is not valid.
func (f *fakeServer) begin(ctx context.Context, method string, req proto.Message) (Act, map[string]any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	headers := map[string]any{}
	for k, v := range md {
		headers[k] = strings.Join(v, ",")
	}
	record := map[string]any{"metadata": headers}
	if req != nil {
		record["request"] = decoded(req)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.calls[method])
	f.calls[method] = append(f.calls[method], record)
	close(f.begun)
	f.begun = make(chan struct{})
	acts := f.script.Acts[method]
	if len(acts) == 0 {
		return Act{}, record, status.Error(codes.Unimplemented, "the case has no "+method)
	}
	if token := strings.Join(md.Get("lp-consumer-token"), ","); f.script.Accept != "" && token != f.script.Accept && method != "RenewConsumer" {
		return Act{}, record, (&Status{Code: "UNAUTHENTICATED", Reason: "TOKEN_INVALID", Message: "the token is not valid"}).err()
	}
	return acts[min(n, len(acts)-1)], record, nil
}

// note changes a record.
func (f *fakeServer) note(record map[string]any, name string, v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	record[name] = v
}

// await waits until n calls of a method have begun.
func (f *fakeServer) await(ctx context.Context, method string, n int) error {
	for {
		f.mu.Lock()
		got, begun := len(f.calls[method]), f.begun
		f.mu.Unlock()
		if got >= n {
			return nil
		}
		select {
		case <-begun:
		case <-ctx.Done():
			return fmt.Errorf("the fake got %d calls of %s, want %d", got, method, n)
		}
	}
}

// counts returns the number of calls by method.
func (f *fakeServer) counts() map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]any{}
	for method, calls := range f.calls {
		n[method] = float64(len(calls))
	}
	return n
}

// recorded returns what the calls of a method brought, as decoded JSON.
func (f *fakeServer) recorded(method string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return normal(f.calls[method])
}

// decoded returns a message as decoded JSON.
func decoded(m proto.Message) any {
	text, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var v any
	_ = json.Unmarshal(text, &v)
	return v
}

// normal returns a value as encoding/json decodes it.
func normal(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var out any
	_ = json.Unmarshal(text, &out)
	return out
}

// unary answers every unary call. Its response type is the one that the generated handler would return.
func (f *fakeServer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	if strings.HasPrefix(info.FullMethod, "/grpc.") {
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	}
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	act, _, err := f.begin(ctx, method, req.(proto.Message))
	if err != nil {
		return nil, err
	}
	if act.Hang {
		<-ctx.Done()
	}
	if !pause(ctx, act.DelayMs) {
		return nil, ctx.Err()
	}
	if act.Status != nil {
		return nil, act.Status.err()
	}
	resp, err := responseOf(method)
	if err == nil && len(act.Answer) > 0 {
		err = protojson.Unmarshal(act.Answer, resp)
	}
	return resp, err
}

func responseOf(method string) (proto.Message, error) {
	responses := map[string]proto.Message{
		"StatFile": &pb.StatFileResponse{}, "GetUpload": &pb.GetUploadResponse{}, "PublishUpload": &pb.PublishUploadResponse{},
		"ListFiles": &pb.ListFilesResponse{}, "GetCapabilities": &pb.GetCapabilitiesResponse{},
		"CreateConversation": &pb.CreateConversationResponse{}, "ListConversations": &pb.ListConversationsResponse{},
		"CloseConversation": &pb.CloseConversationResponse{}, "RenewConsumer": &pb.RenewConsumerResponse{},
		"SignInConsumer": &pb.SignInConsumerResponse{}, "SignOutAgent": &pb.SignOutAgentResponse{},
		"UploadSmallFile": &pb.UploadSmallFileResponse{},
	}
	if r := responses[method]; r != nil {
		return r, nil
	}
	return nil, status.Error(codes.Unimplemented, method)
}

// pause waits, and reports whether the call still runs.
func pause(ctx context.Context, ms int) bool {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// Upload reads an upload up to the place that the act names.
func (f *fakeServer) Upload(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	act, record, err := f.begin(s.Context(), "Upload", nil)
	if err != nil {
		return err
	}
	if act.At == "call" {
		return act.Status.err()
	}
	first, err := s.Recv()
	if err != nil {
		return err
	}
	f.note(record, "request", decoded(first.GetSpec()))
	switch act.Header {
	case "":
		err = s.SendHeader(metadata.Pairs("lpfs-request-id", first.GetSpec().GetRequestId()))
	case "other":
		err = s.SendHeader(metadata.Pairs("x-proxy", "1"))
	}
	if err != nil {
		return err
	}
	if act.At != "spec" {
		if err := f.receive(s, first, act, record); err != nil {
			return err
		}
	}
	if act.Hang {
		<-s.Context().Done()
		return s.Context().Err()
	}
	if !pause(s.Context(), act.DelayMs) {
		return s.Context().Err()
	}
	if act.Status != nil {
		return act.Status.err()
	}
	resp := &pb.UploadResponse{
		RequestId: first.GetSpec().GetRequestId(), Replayed: act.Replayed,
		File: &pb.File{Name: first.GetSpec().GetConversation() + "/files/f", FileType: first.GetSpec().GetFileType()},
	}
	if len(act.Answer) > 0 {
		if err := protojson.Unmarshal(act.Answer, resp); err != nil {
			return err
		}
	}
	return s.SendAndClose(resp)
}

// receive reads chunks until finish, or until the act's number of bytes. It checks what the contract demands of a client.
func (f *fakeServer) receive(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse], m *pb.UploadRequest, act Act, record map[string]any) error {
	var n int64
	for {
		if c := m.GetChunk(); c != nil {
			sum := crc32.Checksum(c.GetData(), castagnoli)
			switch {
			case c.GetOffset() != n:
				f.note(record, "violation", fmt.Sprintf("offset %d, want %d", c.GetOffset(), n))
			case c.Crc32C == nil || c.GetCrc32C() != sum:
				f.note(record, "violation", "a chunk has no or a wrong CRC-32C")
			case len(c.GetData()) > 1<<20:
				f.note(record, "violation", "a chunk of more than 1 MiB")
			}
			n += int64(len(c.GetData()))
			f.note(record, "bytes", n)
		}
		if act.Bytes > 0 && n >= int64(act.Bytes) {
			return nil
		}
		if m.GetFinish() != nil {
			f.note(record, "finish", true)
			return nil
		}
		var err error
		if m, err = s.Recv(); err != nil {
			f.note(record, "broken", true)
			if errors.Is(err, io.EOF) {
				return status.Error(codes.InvalidArgument, "the stream ended without finish")
			}
			return err
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const fakeChunk = 16 << 10

// Download sends the bytes of fakeBytes, with the fault of the act.
func (f *fakeServer) Download(r *pb.DownloadRequest, s grpc.ServerStreamingServer[pb.DownloadResponse]) error {
	act, _, err := f.begin(s.Context(), "Download", r)
	if err != nil {
		return err
	}
	if act.Status != nil && act.BreakAt == 0 {
		return act.Status.err()
	}
	data := fakeBytes(act.Size)
	begin := r.GetReadOffset()
	if begin < 0 {
		begin = max(0, int64(act.Size)+begin)
	}
	end := int64(act.Size)
	if r.GetReadLimit() > 0 {
		end = min(end, begin+r.GetReadLimit())
	}
	if r.GetIfMatchEtag() != "" && r.GetIfMatchEtag() != act.ETag {
		return (&Status{Code: "ABORTED", Reason: "FILE_CHANGED", Message: "the file has changed"}).err()
	}
	total := act.TotalBytes
	if total == 0 {
		total = int64(act.Size)
	}
	h := &pb.DownloadHeader{
		File:         &pb.File{Name: r.GetName(), Etag: act.ETag, StoredSizeBytes: &total},
		ContentRange: &pb.ContentRange{StartBytes: begin, EndBytes: end, TotalBytes: total},
	}
	switch sum := md5.Sum(data); act.StoredMD5 {
	case "wrong":
		sum[0]++
		fallthrough
	case "right":
		h.StoredMd5 = sum[:]
	}
	if !act.NoHeader {
		if err := s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Header{Header: h}}); err != nil {
			return err
		}
	}
	if done, err := act.chunks(s, data[begin:end], begin); done || err != nil {
		return err
	}
	if act.NoTrailer {
		return nil
	}
	sum := sha256.Sum256(data[begin:end])
	sums := &pb.Checksums{Crc32C: new(crc32.Checksum(data[begin:end], castagnoli))}
	if slices.Contains(r.GetWantChecksums(), pb.ChecksumKind_CHECKSUM_KIND_SHA256) {
		sums.Sha256 = sum[:]
	}
	t := &pb.DownloadTrailer{SentBytes: end - begin, SentChecksums: sums}
	if act.WrongSum {
		*t.SentChecksums.Crc32C++
	}
	if act.WrongSent {
		t.SentBytes++
	}
	return s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Trailer{Trailer: t}})
}

// chunks sends the chunks. done: the act ends the call here.
func (act Act) chunks(s grpc.ServerStreamingServer[pb.DownloadResponse], data []byte, at int64) (done bool, err error) {
	sent := 0
	for n := 1; sent < len(data); n++ {
		if act.BreakAt > 0 && sent >= act.BreakAt {
			return true, act.Status.err()
		}
		if act.Hang && n > 2 {
			<-s.Context().Done()
			return true, s.Context().Err()
		}
		part := slices.Clone(data[sent:min(sent+fakeChunk, len(data))])
		c := &pb.DataChunk{Offset: at + int64(sent), Data: part, Crc32C: new(crc32.Checksum(part, castagnoli))}
		sent += len(part)
		if n == act.CorruptData {
			part[len(part)/2] ^= 4
		}
		if n == act.WrongOffset {
			c.Offset += 7
		}
		if err := s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: c}}); err != nil {
			return true, err
		}
	}
	return false, nil
}

// WatchFiles sends the events of the act.
func (f *fakeServer) WatchFiles(r *pb.WatchFilesRequest, s grpc.ServerStreamingServer[pb.WatchFilesResponse]) error {
	act, _, err := f.begin(s.Context(), "WatchFiles", r)
	if err != nil {
		return err
	}
	for _, e := range act.Events {
		m := &pb.WatchFilesResponse{}
		if len(e.Message) > 0 {
			if err := protojson.Unmarshal(e.Message, m); err != nil {
				return err
			}
		}
		if e.Unknown { // a message in field 15
			raw := protowire.AppendTag(nil, 15, protowire.BytesType)
			m.ProtoReflect().SetUnknown(protowire.AppendBytes(raw, []byte{0x0a, 1, 'x'}))
		}
		if !pause(s.Context(), e.AfterMs) {
			return s.Context().Err()
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
	if act.Hang {
		<-s.Context().Done()
		return s.Context().Err()
	}
	return act.Status.err()
}
