package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// Each of these streams is rejected. Nothing is stored or published, and the store never gets the last byte.
func TestUpload_RejectedStreams(t *testing.T) {
	b := picture(150_000)
	half := len(b) / 2
	with := func(m *pb.UploadRequest, change func(*pb.UploadRequest)) *pb.UploadRequest {
		m = proto.CloneOf(m)
		change(m)
		return m
	}
	sums := func(c *pb.Checksums) *pb.UploadRequest {
		return &pb.UploadRequest{Finish: &pb.UploadFinish{Checksums: c}}
	}
	wrongSHA := &pb.Checksums{Sha256: make([]byte, 32)}
	wrongCRC := &pb.Checksums{Crc32C: proto.Uint32(0)}
	declare := func(c *pb.Checksums) func(*pb.UploadSpec) { return func(s *pb.UploadSpec) { s.Checksums = c } }
	for what, c := range map[string]struct {
		kind share.Kind
		// msgs are sent after a spec of b, unless bare is set.
		msgs []*pb.UploadRequest
		spec []func(*pb.UploadSpec)
		bare bool
		// meta is a metadata key and its value.
		meta [2]string
	}{
		"no message at all":                   {kind: share.StreamProtocolViolation, bare: true},
		"a chunk first":                       {kind: share.StreamProtocolViolation, bare: true, msgs: []*pb.UploadRequest{chunk(0, b)}},
		"an empty message first":              {kind: share.StreamProtocolViolation, bare: true, msgs: []*pb.UploadRequest{{}}},
		"finish first":                        {kind: share.StreamProtocolViolation, bare: true, msgs: []*pb.UploadRequest{finish()}},
		"a second spec":                       {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{first(spec(b)), chunk(0, b), finish()}},
		"a second spec in mid-file":           {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b[:half]), first(spec(b))}},
		"a second spec with the finish":       {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), with(finish(), func(m *pb.UploadRequest) { m.FirstMessage = first(spec(b)).FirstMessage })}},
		"an empty message":                    {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b[:half]), {}, chunk(half, b[half:]), finish()}},
		"an empty chunk":                      {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b[:half]), chunk(half, nil), chunk(half, b[half:]), finish()}},
		"an empty chunk with the finish":      {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), with(chunk(len(b), nil), func(m *pb.UploadRequest) { m.Finish = &pb.UploadFinish{} })}},
		"a chunk after finish":                {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), finish(), chunk(len(b), b[:1])}},
		"a second finish":                     {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), finish(), finish()}},
		"an empty message after finish":       {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), finish(), {}}},
		"a spec after finish":                 {kind: share.StreamProtocolViolation, msgs: []*pb.UploadRequest{chunk(0, b), finish(), first(spec(b))}},
		"a gap":                               {kind: share.OffsetMismatch, msgs: []*pb.UploadRequest{chunk(0, b[:half]), chunk(half+1, b[half+1:]), finish()}, meta: [2]string{"expectedOffset", share.Itoa(int64(half))}},
		"an overlap":                          {kind: share.OffsetMismatch, msgs: []*pb.UploadRequest{chunk(0, b[:half]), chunk(half-1, b[half-1:]), finish()}, meta: [2]string{"expectedOffset", share.Itoa(int64(half))}},
		"the same chunk twice":                {kind: share.OffsetMismatch, msgs: []*pb.UploadRequest{chunk(0, b[:half]), chunk(0, b[:half]), finish()}, meta: [2]string{"expectedOffset", share.Itoa(int64(half))}},
		"a negative offset":                   {kind: share.OffsetMismatch, msgs: []*pb.UploadRequest{chunk(-1, b), finish()}, meta: [2]string{"expectedOffset", "0"}},
		"a wrong chunk CRC":                   {kind: share.ChunkChecksumMismatch, msgs: []*pb.UploadRequest{chunk(0, b[:half]), with(chunk(half, b[half:]), func(m *pb.UploadRequest) { m.Chunk.Crc32C = proto.Uint32(0) }), finish()}},
		"a wrong SHA in spec":                 {kind: share.FileChecksumMismatch, spec: []func(*pb.UploadSpec){declare(wrongSHA)}, msgs: []*pb.UploadRequest{chunk(0, b), finish()}},
		"a wrong CRC in spec":                 {kind: share.FileChecksumMismatch, spec: []func(*pb.UploadSpec){declare(wrongCRC)}, msgs: []*pb.UploadRequest{chunk(0, b), finish()}},
		"a wrong SHA in finish":               {kind: share.FileChecksumMismatch, msgs: []*pb.UploadRequest{chunk(0, b), sums(wrongSHA)}},
		"a wrong CRC in finish":               {kind: share.FileChecksumMismatch, msgs: []*pb.UploadRequest{chunk(0, b), sums(wrongCRC)}},
		"a wrong CRC, undeclared size":        {kind: share.FileChecksumMismatch, spec: []func(*pb.UploadSpec){undeclared}, msgs: []*pb.UploadRequest{chunk(0, b), sums(wrongCRC)}},
		"right in spec, wrong in finish":      {kind: share.InvalidField, spec: []func(*pb.UploadSpec){declare(sumsOf(b))}, msgs: []*pb.UploadRequest{chunk(0, b), sums(wrongSHA)}},
		"wrong in spec, right in finish":      {kind: share.InvalidField, spec: []func(*pb.UploadSpec){declare(wrongSHA)}, msgs: []*pb.UploadRequest{chunk(0, b), sums(sumsOf(b))}},
		"a SHA in finish that is too short":   {kind: share.InvalidField, msgs: []*pb.UploadRequest{chunk(0, b), sums(&pb.Checksums{Sha256: []byte{1}})}},
		"a byte too few":                      {kind: share.UploadIncomplete, msgs: []*pb.UploadRequest{chunk(0, b[:len(b)-1]), finish()}, meta: [2]string{"receivedBytes", share.Itoa(int64(len(b) - 1))}},
		"no byte at all":                      {kind: share.FileEmpty, msgs: []*pb.UploadRequest{finish()}},
		"no byte at all, undeclared":          {kind: share.FileEmpty, spec: []func(*pb.UploadSpec){undeclared}, msgs: []*pb.UploadRequest{finish()}},
		"size zero":                           {kind: share.FileEmpty, spec: []func(*pb.UploadSpec){func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(0) }}, msgs: []*pb.UploadRequest{finish()}},
		"a negative size":                     {kind: share.InvalidField, spec: []func(*pb.UploadSpec){func(s *pb.UploadSpec) { s.SizeBytes = proto.Int64(-1) }}, msgs: []*pb.UploadRequest{finish()}},
		"a byte too many":                     {kind: share.SizeExceeded, msgs: []*pb.UploadRequest{chunk(0, b), chunk(len(b), b[:1]), finish()}, meta: [2]string{"declaredBytes", share.Itoa(int64(len(b)))}},
		"a byte too many in the last chunk":   {kind: share.SizeExceeded, msgs: []*pb.UploadRequest{chunk(0, append(slices.Clone(b), 0)), finish()}, meta: [2]string{"declaredBytes", share.Itoa(int64(len(b)))}},
		"a byte over the limit, undeclared":   {kind: share.FileTooLarge, spec: []func(*pb.UploadSpec){undeclared}, msgs: []*pb.UploadRequest{chunk(0, picture(300_001)), finish()}, meta: [2]string{"maxBytes", "300000"}},
		"half-close after the spec":           {kind: share.UploadIncomplete, meta: [2]string{"receivedBytes", "0"}},
		"half-close in mid-file":              {kind: share.UploadIncomplete, msgs: []*pb.UploadRequest{chunk(0, b[:half])}, meta: [2]string{"receivedBytes", share.Itoa(int64(half))}},
		"half-close without finish":           {kind: share.UploadIncomplete, msgs: []*pb.UploadRequest{chunk(0, b)}, meta: [2]string{"receivedBytes", share.Itoa(int64(len(b)))}},
		"half-close without finish, any size": {kind: share.UploadIncomplete, spec: []func(*pb.UploadSpec){undeclared}, msgs: []*pb.UploadRequest{chunk(0, b)}, meta: [2]string{"receivedBytes", share.Itoa(int64(len(b)))}},
		"a chunk that is too large":           {kind: share.MessageTooLarge, msgs: []*pb.UploadRequest{chunk(0, make([]byte, MaxChunkBytes+1))}, meta: [2]string{"maxBytes", share.Itoa(MaxChunkBytes)}},
		"another type, after 512 bytes":       {kind: share.FileTypeMismatch, spec: []func(*pb.UploadSpec){func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_GIF }}, msgs: []*pb.UploadRequest{chunk(0, b[:512])}, meta: [2]string{"detectedType", "JPG"}},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			msgs := c.msgs
			if !c.bare {
				msgs = append([]*pb.UploadRequest{first(spec(b, c.spec...))}, msgs...)
			}
			_, err := h.upload(h.alice(), msgs...)
			info := wantError(t, err, c.kind)
			if key := c.meta[0]; key != "" && info.GetMetadata()[key] != c.meta[1] {
				t.Errorf("%s is %q, want %q", key, info.GetMetadata()[key], c.meta[1])
			}
			if !c.bare && info.GetMetadata()["requestId"] == "" && c.kind != share.InvalidField && c.kind != share.FileEmpty {
				t.Error("the error has no requestId")
			}
			h.wantNothingStored(len(b))
		}))
	}
}

// gRPC itself rejects a message over its limit, and one that it cannot decode. Recv returns its status, which has no ErrorInfo.
func TestUpload_RejectedByGRPCStoresNothing(t *testing.T) {
	b := picture(1000)
	undecodable := &pb.UploadRequest{}
	undecodable.ProtoReflect().SetUnknown([]byte{0x0a, 0x03, 0x0a, 0x01, 0xff}) // a spec whose conversation is not UTF-8
	for what, c := range map[string]struct {
		bad  *pb.UploadRequest
		code codes.Code
	}{
		"too large":   {chunk(500, make([]byte, MaxRecvMessageBytes)), codes.ResourceExhausted},
		"undecodable": {undecodable, codes.Internal},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			_, err := h.upload(h.alice(), c.bad)
			if status.Code(err) != c.code {
				t.Errorf("as the first message: got %v, want %s", err, c.code)
			}
			_, err = h.upload(h.alice(), first(spec(b)), chunk(0, b[:500]), c.bad)
			if status.Code(err) != c.code {
				t.Errorf("in mid-file: got %v, want %s", err, c.code)
			}
			h.eventually("the handlers have ended", func() bool { return h.lp.sessions() == 0 })
			h.wantNothingStored(len(b))
		}))
	}
}

func TestUpload_AcceptedStreams(t *testing.T) {
	all := func(s *pb.UploadSpec, b []byte) []*pb.UploadRequest {
		return []*pb.UploadRequest{{FirstMessage: first(s).FirstMessage, Chunk: chunk(0, b).Chunk, Finish: finish().Finish}}
	}
	sums := func(s *pb.UploadSpec, b []byte) []*pb.UploadRequest {
		msgs := whole(s, b, 50_000)
		for _, m := range msgs {
			if m.Chunk != nil {
				m.Chunk.Crc32C = new(crc32c.Update(0, m.GetChunk().GetData()))
			}
		}
		s.Checksums = sumsOf(b)
		msgs[len(msgs)-1].Finish.Checksums = sumsOf(b)
		return msgs
	}
	last := func(s *pb.UploadSpec, b []byte) []*pb.UploadRequest { // the last chunk with the finish
		msgs := whole(s, b, 1000)
		msgs[len(msgs)-2].Finish = &pb.UploadFinish{}
		return msgs[:len(msgs)-1]
	}
	by := func(n int) func(*pb.UploadSpec, []byte) []*pb.UploadRequest {
		return func(s *pb.UploadSpec, b []byte) []*pb.UploadRequest { return whole(s, b, n) }
	}
	for what, c := range map[string]struct {
		msgs func(*pb.UploadSpec, []byte) []*pb.UploadRequest
		size int
	}{
		"one message":              {all, 3000},
		"checksums everywhere":     {sums, 150_000},
		"the finish with a chunk":  {last, 3000},
		"1-byte chunks":            {by(1), 700},
		"one byte":                 {by(1), 4},
		"chunks below the border":  {by(65535), 200_000},
		"chunks of a block":        {by(65536), 200_000},
		"chunks over the border":   {by(65537), 200_000},
		"a file of a block":        {by(65536), 65536},
		"a file of a block and 1":  {by(1000), 65537},
		"a file of a block less 1": {by(1000), 65535},
		"the limit":                {by(100_000), 300_000},
	} {
		for _, how := range []struct {
			name   string
			change []func(*pb.UploadSpec)
		}{{"declared", nil}, {"undeclared", []func(*pb.UploadSpec){undeclared}}} {
			t.Run(what+", "+how.name, inBubble(func(t *testing.T) {
				h := newHarness(t)
				b := picture(c.size)
				s := spec(b, how.change...)
				resp, err := h.upload(h.alice(), c.msgs(s, b)...)
				if err != nil {
					t.Fatal(err)
				}
				e := h.wantPublished(b)
				f := resp.GetFile()
				if f.GetStoragePath() != e.File.StoragePath || f.GetMessageSequence() != e.Sequence || f.MessageSequence == nil ||
					f.GetStoredSizeBytes() != int64(len(b)) || !proto.Equal(f.GetUploadedChecksums(), sumsOf(b)) ||
					f.GetEtag() != string(describe(b).ETag) || resp.GetReplayed() || resp.GetRequestId() != s.GetRequestId() {
					t.Errorf("got %v", resp)
				}
			}))
		}
	}
}

func TestUpload_StoresWhileReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(200_000)
		stream := h.begin(h.alice(), spec(b))
		for off := 0; off < len(b); off += 50_000 {
			if err := stream.Send(chunk(off, b[off:off+50_000])); err != nil {
				t.Fatal(err)
			}
			want := min(off+50_000, len(b)-1)
			h.eventually("the store has the bytes so far", func() bool {
				p := h.store.recordedPuts()
				return len(p) == 1 && len(p[0].got) == want
			})
		}
		if err := stream.Send(finish()); err != nil {
			t.Fatal(err)
		}
		h.wantLastByteHeldBack(len(b)) // the client may still send an invalid message
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
	})
}

func TestUpload_CancelledMidFileStoresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(200_000)
		ctx, cancel := context.WithCancel(h.alice())
		s := spec(b)
		stream := h.begin(ctx, s)
		if err := stream.Send(chunk(0, b[:100_000])); err != nil {
			t.Fatal(err)
		}
		h.eventually("the store has some", func() bool { p := h.store.recordedPuts(); return len(p) == 1 && len(p[0].got) > 0 })
		cancel()
		// Not CloseAndRecv: its half-close can reach the server before the cancellation.
		if err := stream.RecvMsg(new(pb.UploadResponse)); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
		h.eventually("the handler has ended", func() bool { return h.lp.sessions() == 0 })
		h.wantNothingStored(len(b))
		if st := h.state(s.GetRequestId()); st.GetState() != pb.UploadState_UPLOAD_STATE_RECEIVING {
			t.Errorf("the upload is %v, want RECEIVING: a cancellation is not a failure", st)
		}
	})
}

func TestUpload_IdleTimeout(t *testing.T) {
	short := func(c *Config) { c.IdleTimeout = 150 * time.Millisecond }
	b := picture(1000)
	for what, msgs := range map[string][]*pb.UploadRequest{
		"nothing at all":                               {},
		"after the spec":                               {first(spec(b))},
		"in mid-file":                                  {first(spec(b)), chunk(0, b[:500])},
		"after all bytes, without finish":              {first(spec(b)), chunk(0, b)},
		"after finish, without half-close":             {first(spec(b)), chunk(0, b), finish()},
		"after finish, without half-close, undeclared": {first(spec(b, undeclared)), chunk(0, b), finish()},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t, short)
			stream, err := h.files.Upload(h.alice())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range msgs {
				if err := stream.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.UploadIdle)
			h.wantNothingStored(len(b))
		}))
	}
	t.Run("slow client is not idle", inBubble(func(t *testing.T) {
		h := newHarness(t, short)
		stream := h.begin(h.alice(), spec(b))
		for off := range 8 {
			time.Sleep(50 * time.Millisecond) // 400 ms in all, never 150 ms without a byte
			_ = stream.Send(chunk(off*125, b[off*125:(off+1)*125]))
		}
		_ = stream.Send(finish())
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
	}))
	t.Run("slow store is not idle", inBubble(func(t *testing.T) {
		h := newHarness(t, short)
		h.store.then("Put", func(context.Context) error { time.Sleep(400 * time.Millisecond); return nil })
		h.put(b)
	}))
}

func TestUpload_Timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.UploadTimeout = 100 * time.Millisecond })
		b := picture(1000)
		stream := h.begin(h.alice(), spec(b))
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() {
			for off := 0; stream.Send(chunk(off, b[off:off+1])) == nil && off < 999; off++ {
				time.Sleep(5 * time.Millisecond)
			}
		})
		wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.UploadIdle)
		h.wantNothingStored(len(b))
	})
}

func TestUploadSpec_ReportsAllInvalidFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		bad := &pb.UploadSpec{
			Conversation: "accounts/a b/conversations/c", DialogId: "no/id", DisplayName: "a\nb", FileType: 99, SizeBytes: proto.Int64(-1),
			Checksums: &pb.Checksums{Sha256: []byte{1}}, Caption: strings.Repeat("ü", maxCaption+1), PublishMode: 9, RequestId: "6f0c3a527d9e4b1c9d0a3c1d2e4f5a6b",
			Preview: &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64,QUJD\nQUJD"}},
		}
		_, err := checkSpec(bad, Settings{MaxFileBytes: 10}, 0)
		want := []string{
			"spec.conversation", "spec.dialog_id", "spec.display_name", "spec.caption", "spec.file_type", "spec.size_bytes",
			"spec.checksums.sha256", "spec.preview.data_uri", "spec.publish_mode", "spec.request_id",
		}
		var got []string
		for _, v := range err.(*share.Error).Violations {
			got = append(got, v.Field)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the violations name\n%v, want\n%v", got, want)
		}
		_, err = h.upload(h.alice(), first(bad))
		wantError(t, err, share.InvalidField)
		h.wantNothingStored(0)
		if h.lp.count("Session") != 0 {
			t.Error("a session was opened")
		}
	})
}

func TestUploadSpec_LargestFitsInAMessage(t *testing.T) {
	ok := spec(picture(10), func(s *pb.UploadSpec) {
		s.DisplayName, s.Caption = strings.Repeat("ü", maxDisplayName), strings.Repeat("ü", maxCaption)
		s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/gif;base64," + strings.Repeat("QUJD", (upload.MaxPreviewChars-23)/4)}}
	})
	if _, err := checkSpec(ok, Settings{MaxFileBytes: 10}, 0); err != nil {
		t.Error(err)
	}
	if n := proto.Size(first(ok)) + MaxChunkBytes; n > MaxRecvMessageBytes-1000 {
		t.Errorf("a spec and a chunk together have %d bytes, and a message may have %d", n, MaxRecvMessageBytes)
	}
}

func TestUpload_DocumentIfTheAccountAllowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) {
			c.Settings = func(string) Settings { return Settings{MaxFileBytes: 1000, Documents: share.Documents()} }
		})
		b := []byte("Grüße aus Köln")
		resp := h.put(b, func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_TXT })
		if e := h.wantPublished(b); e.File.FileType != "TXT" || resp.GetFile().GetFileType() != pb.FileType_FILE_TYPE_TXT {
			t.Errorf("got %v", resp)
		}
		if n := h.images.count("Inspect"); n != 0 {
			t.Error("a text was inspected as an image")
		}
		_, err := checkSpec(spec(b, func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_TXT }), Settings{MaxFileBytes: 1000, Documents: []share.FileType{share.PDF}}, 0)
		if e, _ := errors.AsType[*share.Error](err); !share.Is(err, share.UnsupportedFileType) || e.Metadata["allowedTypes"] != "JPEG,PNG,GIF,PDF" {
			t.Errorf("a type that the account does not allow: %v", err)
		}
	})
}

func TestUpload_GeneratesPreview(t *testing.T) {
	generate := func(s *pb.UploadSpec) { s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}} }
	t.Run("generated", inBubble(func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		if resp := h.put(b, generate); resp.GetPreviewOmitted() || h.wantPublished(b).File.Preview != madePreview {
			t.Errorf("got %v", resp)
		}
	}))
	t.Run("omitted if it cannot be generated", inBubble(func(t *testing.T) {
		h := newHarness(t)
		h.images.failAlways("Preview", kindError(share.ImageInvalid))
		b := picture(1000)
		if resp := h.put(b, generate); !resp.GetPreviewOmitted() || h.wantPublished(b).File.Preview != "" {
			t.Errorf("got %v", resp)
		}
	}))
	t.Run("rejected for a document", func(t *testing.T) {
		_, err := checkSpec(spec([]byte("abc"), generate, func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_TXT }), Settings{MaxFileBytes: 10, Documents: share.Documents()}, 0)
		if !share.Is(err, share.InvalidField) {
			t.Errorf("got %v", err)
		}
	})
}
