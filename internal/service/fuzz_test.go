package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/ledger/ledgertest"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

func TestFileName_RoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(chars string, n int) string {
		b := make([]byte, 1+r.IntN(n))
		for i := range b {
			b[i] = chars[r.IntN(len(chars))]
		}
		return string(b)
	}
	for range 5000 {
		acct, conv, dialog := word(alphanumeric, 32), "c"+word(alphanumeric+"-_.~", 63), "d"+word(alphanumeric+"-_.~", 63)
		if r.IntN(2) == 0 {
			dialog = conv
		}
		if r.IntN(20) == 0 {
			conv, dialog = "files", "conversations"
		}
		p := "/v1/AUTH_" + word(alphanumeric, 8) + "/" + acct + "/o" + word(alphanumeric+"-_.~+=", 80)
		name := fileName(acct, conv, dialog, p)
		if strings.Trim(name, alphanumeric+"-_.~/") != "" {
			t.Fatalf("%q is not safe in a URL", name)
		}
		got, err := parseFileName(nil, name)
		if want := (fileRef{acct, conv, dialog, p}); err != nil || got != want {
			t.Fatalf("%q: got %v, %v, want %v", name, got, err, want)
		}
	}
}

// Every accepted file name is in its canonical spelling, and its path is in the account's own container.
func FuzzFileName(f *testing.F) {
	for _, p := range []string{path("a"), "/v1/AUTH_x/" + account + "/../y", "", "/v1/AUTH_async/other/x"} {
		for _, dialog := range []string{"", conversation, "survey", "-", "a/b"} {
			f.Add(fileName(account, conversation, dialog, p))
		}
	}
	good := fileName(account, conversation, "survey", path("a"))
	f.Add(good + "\n")
	f.Add(good[:len(good)-1])
	f.Add(strings.Replace(good, "/files/", "/files/files/", 1))
	f.Add(fileName("files", "files", "files", path("a")))
	f.Fuzz(func(t *testing.T, name string) {
		ref, err := parseFileName(nil, name)
		if err != nil {
			if !share.Is(err, share.InvalidField, share.StoragePathInvalid) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if again := fileName(ref.account, ref.conversation, ref.dialog, ref.storagePath); again != name {
			t.Errorf("%q is accepted, but its canonical spelling is %q", name, again)
		}
		if strings.Contains(ref.storagePath, "..") && share.CheckStoragePath(ref.account, ref.storagePath) != nil || strings.ContainsAny(ref.storagePath, "%?#\n ") {
			t.Errorf("%q has the path %q", name, ref.storagePath)
		}
	})
}

// Every accepted spec has only valid values, and validating it again gives the same result.
func FuzzSpec(f *testing.F) {
	for _, s := range []*pb.UploadSpec{
		spec(picture(10)), spec(nil, undeclared, storeOnly),
		spec(picture(10), func(s *pb.UploadSpec) {
			s.DialogId, s.DisplayName, s.Caption = "survey", "a.jpg", "text"
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: madePreview}}
			s.Checksums = sumsOf([]byte("x"))
		}),
		{Conversation: "accounts/a b/conversations/..", DialogId: "no/id", DisplayName: "a\nb", FileType: 99, SizeBytes: proto.Int64(-1), RequestId: "1"},
	} {
		b, err := proto.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, documents bool) {
		s := &pb.UploadSpec{}
		if proto.Unmarshal(data, s) != nil {
			return // gRPC rejects it
		}
		settings := Settings{MaxFileBytes: 1000}
		if documents {
			settings.Documents = share.Documents()
		}
		u, err := checkSpec(s, settings, 0)
		if err != nil {
			if !share.Is(err, share.InvalidField, share.PreviewTooLarge, share.UnsupportedFileType, share.FileEmpty, share.FileTooLarge) {
				t.Errorf("%v: %v", s, err)
			}
			return
		}
		switch {
		case !share.ValidAccountID(u.Account) || !validID(u.Conversation) || !validID(u.Dialog):
			t.Errorf("%v is accepted as %s %s %s", s, u.Account, u.Conversation, u.Dialog)
		case u.Size == 0 || u.Size < -1 || u.Size > settings.MaxFileBytes:
			t.Errorf("%v is accepted with %d bytes", s, u.Size)
		case strings.ContainsAny(u.DisplayName, "\x00\r\n\x7f"):
			t.Errorf("%v is accepted with the name %q", s, u.DisplayName)
		case !u.FileType.IsImage() && (!documents || u.GeneratePreview):
			t.Errorf("%v is accepted", s)
		case u.Preview != "" && (len(u.Preview) >= upload.MaxPreviewChars || !strings.HasPrefix(u.Preview, "data:image/")):
			t.Errorf("%v is accepted with the preview %q", s, u.Preview)
		}
		s.RequestId = u.RequestID
		again, err := checkSpec(s, settings, 0)
		if err != nil || again.RequestID != u.RequestID || !slices.Equal(again.Fingerprint, u.Fingerprint) {
			t.Errorf("%v: validated again it is %+v, %v", s, again, err)
		}
	})
}

// Only tokens that this seal closed can be opened.
func FuzzSealedToken(f *testing.F) {
	// Constants, because all workers of a fuzzer need the same seeds: "grant", sealed with this key and with another key.
	const (
		sealed = "knOoBLAWEn1vTHQCcoTCIIDPbmTCX9Ns1lpgFIwHIIvG"
		others = "w07N01eflyhfpdmuUh0-_MQRkowkGYQynm90nBG-joOF"
	)
	seal := newAgentSeal([32]byte{1})
	if grant, err := seal.open(sealed); err != nil || grant != "grant" {
		f.Fatalf("the seed opens as %q, %v", grant, err)
	}
	f.Add(sealed)
	f.Add(others)
	f.Add(sealed + "\n")
	f.Add(sealed[:len(sealed)-1])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		for _, token := range []string{text, sealed + text, text + sealed} {
			grant, err := seal.open(token)
			switch {
			case err != nil && !share.Is(err, share.TokenInvalid):
				t.Errorf("%q: %v", token, err)
			case err == nil && strings.NewReplacer("\r", "", "\n", "").Replace(token) != sealed: // the decoder ignores line breaks, which metadata cannot have
				t.Errorf("%q opens as %q", token, grant)
			}
		}
		if grant, err := seal.open(seal.close(text)); err != nil || grant != text {
			t.Errorf("%q was opened as %q, %v", text, grant, err)
		}
	})
}

// Every accepted token belongs to the request that it came with, and has only valid values.
func FuzzToken(f *testing.F) {
	full := token{Conversation: "c", Dialog: "d", Sequence: 3, Cursor: share.Cursor{"d": 7, "e": -1}}
	for _, kind := range []string{pageOfFiles, pageOfConversations, placeOfWatch} {
		f.Add(full.write(kind, parent), kind, parent)
		f.Add(full.write(kind, parent), pageOfFiles, everywhere)
	}
	f.Add("", pageOfFiles, parent)
	f.Add("e30", "", "")
	f.Fuzz(func(t *testing.T, text, kind, of string) {
		tok, err := readToken(text, kind, of)
		if err != nil {
			if !share.Is(err, share.PageTokenInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if text == "" {
			return
		}
		if tok.Kind != kind || tok.Parent != of {
			t.Errorf("%q belongs to %s %s", text, tok.Kind, tok.Parent)
		}
		for d, n := range tok.Cursor {
			if n < -1 || !validID(d) {
				t.Errorf("%q has %q: %d", text, d, n)
			}
		}
		again, err := readToken(tok.write(kind, of), kind, of)
		if err != nil || !maps.Equal(again.Cursor, tok.Cursor) || again.Conversation != tok.Conversation || again.Dialog != tok.Dialog || again.Sequence != tok.Sequence {
			t.Errorf("%q: written and read again it is %v, %v, want %v", text, again, err, tok)
		}
	})
}

// A script is the stream of an upload with prepared messages.
type script struct {
	grpc.ServerStream
	ctx  context.Context
	msgs []*pb.UploadRequest
	resp *pb.UploadResponse
}

func (s *script) Context() context.Context     { return s.ctx }
func (s *script) SendHeader(metadata.MD) error { return nil }
func (s *script) SetHeader(metadata.MD) error  { return nil }
func (s *script) SendAndClose(r *pb.UploadResponse) error {
	s.resp = r
	return nil
}

func (s *script) RecvMsg(m any) error {
	if len(s.msgs) == 0 {
		return io.EOF
	}
	wire, err := proto.Marshal(s.msgs[0])
	if err != nil {
		return err
	}
	s.msgs = s.msgs[1:]
	return Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, m)
}

func (s *script) Recv() (*pb.UploadRequest, error) { return nil, errors.ErrUnsupported }

// The messages of a fuzzed upload, one for each byte of the input.
const (
	opChunk = iota
	opWrongOffset
	opEmptyChunk
	opWrongCRC
	opFinish
	opChunkAndFinish
	opNothing
	opSpec
	ops
)

const fuzzLimit = 60

// scripted returns the messages of input, and the expected result: a condition, or "" for a stored file of n bytes.
func scripted(declared int, input []byte) (msgs []*pb.UploadRequest, want share.Kind, n int) {
	s := &pb.UploadSpec{Conversation: parent, FileType: pb.FileType_FILE_TYPE_TXT}
	if declared > 0 {
		s.SizeBytes = proto.Int64(int64(declared))
	}
	msgs = []*pb.UploadRequest{first(s)}
	finished := false
	reject := func(k share.Kind) {
		if want == "" {
			want = k
		}
	}
	for _, x := range input {
		op, size := int(x)%ops, int(x)/ops%16+1
		m := &pb.UploadRequest{}
		if finished {
			reject(share.StreamProtocolViolation)
		}
		switch op {
		case opNothing:
			reject(share.StreamProtocolViolation)
		case opSpec:
			m.FirstMessage, m.Chunk = first(s).FirstMessage, &pb.DataChunk{Offset: int64(n), Data: []byte("a")} // the chunk alone would be accepted
			reject(share.StreamProtocolViolation)
		case opEmptyChunk:
			m.Chunk = &pb.DataChunk{Offset: int64(n)}
			reject(share.StreamProtocolViolation)
		case opChunk, opChunkAndFinish, opWrongOffset, opWrongCRC:
			m.Chunk = &pb.DataChunk{Offset: int64(n), Data: []byte(strings.Repeat("a", size))}
			switch {
			case op == opWrongOffset:
				m.Chunk.Offset = int64(n + size)
				reject(share.OffsetMismatch)
			case op == opWrongCRC:
				m.Chunk.Crc32C = proto.Uint32(0)
				reject(share.ChunkChecksumMismatch)
			case declared > 0 && n+size > declared:
				reject(share.SizeExceeded)
			case n+size > fuzzLimit:
				reject(share.FileTooLarge)
			}
			n += size
		}
		if op == opFinish || op == opChunkAndFinish {
			m.Finish = &pb.UploadFinish{}
			finished = true
		}
		msgs = append(msgs, m)
	}
	switch {
	case !finished:
		reject(share.UploadIncomplete)
	case n == 0:
		reject(share.FileEmpty)
	case n < declared:
		reject(share.UploadIncomplete)
	}
	return msgs, want, n
}

func FuzzUploadStateMachine(f *testing.F) {
	f.Add(byte(0), []byte{opChunk, opFinish})
	f.Add(byte(2), []byte{opChunk, opChunk, opFinish})
	f.Add(byte(2), []byte{opChunk, opChunkAndFinish})
	f.Add(byte(2), []byte{opFinish})
	f.Add(byte(1), []byte{opChunkAndFinish, opChunk})
	f.Add(byte(1), []byte{opChunk, opChunk, opFinish})
	f.Add(byte(3), []byte{opChunk, opFinish})
	f.Add(byte(0), []byte{15*ops + opChunk, 15*ops + opChunk, 15*ops + opChunk, 15*ops + opChunk, opFinish})
	f.Add(byte(9), []byte{opChunk, opNothing})
	f.Add(byte(9), []byte{opChunk, opSpec})
	f.Add(byte(9), []byte{opEmptyChunk})
	f.Add(byte(9), []byte{opWrongCRC})
	f.Add(byte(9), []byte{opChunk, opWrongOffset})
	f.Add(byte(0), []byte{})
	f.Fuzz(func(t *testing.T, declared byte, input []byte) {
		if len(input) > 100 {
			return
		}
		msgs, want, n := scripted(int(declared)%(fuzzLimit+1), input)
		lp, store := newFakeMessenger(), newFakeStore()
		lp.tokens[aliceToken] = share.Principal{Account: account, ID: "alice", Role: share.RoleConsumer}
		lp.addConversation(conversation, true, "alice")
		s := New(Config{
			Settings: func(string) Settings {
				return Settings{MaxFileBytes: fuzzLimit, Documents: share.Documents(), CheckETag: true}
			}, MemoryBudget: admission.BlockBytes,
			Caller: func(context.Context) policy.Caller { return policy.Caller{} }, Permit: func(policy.Request) error { return nil },
			MaxUploadsPerCaller: 1,
			IdleTimeout:         time.Minute, UploadTimeout: time.Minute, RequestIDTTL: time.Hour, PublishTimeout: time.Minute,
			Openings: testOpenings(), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		}, Ports{Messenger: lp, Store: store, Ledger: ledgertest.NewMemory(10, time.Now), Images: &fakeImages{}})
		ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(), metadata.Pairs(string(share.ConsumerToken), aliceToken)))
		stream := &script{ctx: ctx, msgs: msgs}
		err := s.Upload(stream)
		cancel()
		s.Close()

		if share.KindOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("got %v, want %q", err, want)
		}
		if want == "" {
			if len(lp.messages()) != 1 || len(store.object(lp.messages()[0].File.StoragePath)) != n || stream.resp.GetFile().GetStoredSizeBytes() != int64(n) {
				t.Errorf("%d messages, and the response %v, want a file of %d bytes", len(lp.messages()), stream.resp, n)
			}
		} else if store.stored() != 0 || len(lp.messages()) != 0 {
			t.Errorf("%d objects and %d messages", store.stored(), len(lp.messages()))
		}
		for _, p := range store.recordedPuts() {
			if want != "" && errors.Is(p.end, io.EOF) {
				t.Error("the store read the end of a rejected file")
			}
			if size := int(declared) % (fuzzLimit + 1); want != "" && size > 0 && len(p.got) >= size {
				t.Errorf("the store read all %d bytes of a rejected file", len(p.got))
			}
		}
		if u := s.memory.Usage(); u.FreeBytes != admission.BlockBytes || u.Callers != 0 || lp.sessions() != 0 {
			t.Error("memory, a caller or a session was not released")
		}
	})
}
