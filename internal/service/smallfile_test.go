package service

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

func (h *harness) small(ctx context.Context, s *pb.UploadSpec, b []byte) (*pb.UploadResponse, error) {
	resp, err := h.files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Spec: s, Data: b})
	return resp.GetResult(), err
}

func TestUploadSmallFile_PublishesOnce(t *testing.T) {
	for name, change := range map[string]func(*pb.UploadSpec){
		"size declared":   func(*pb.UploadSpec) {},
		"size undeclared": undeclared,
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(250_000)
			s := spec(b, change)
			var header metadata.MD
			resp, err := h.files.UploadSmallFile(h.alice(), &pb.UploadSmallFileRequest{Spec: s, Data: b}, grpc.Header(&header))
			if err != nil {
				t.Fatal(err)
			}
			first := resp.GetResult()
			if ids := header.Get(RequestIDHeader); len(ids) != 1 || ids[0] != s.GetRequestId() {
				t.Errorf("the header has the request ids %v", ids)
			}
			if first.GetReplayed() || first.GetFile().MessageSequence == nil || first.GetUpload() != uploadName(account, s.GetRequestId()) {
				t.Errorf("got %v", first)
			}
			// A retry returns the first result, by either method.
			again, err := h.small(h.alice(), s, b)
			if err != nil || !again.GetReplayed() || !proto.Equal(again.GetFile(), first.GetFile()) {
				t.Errorf("retry: %v, %v", again, err)
			}
			streamed, err := h.upload(h.alice(), whole(s, b, 64<<10)...)
			if err != nil || !streamed.GetReplayed() || !proto.Equal(streamed.GetFile(), first.GetFile()) {
				t.Errorf("retry by Upload: %v, %v", streamed, err)
			}
			h.wantPublished(b)
		}))
	}
}

func TestUploadSmallFile_ReplaysAnUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		if resp, err := h.small(h.alice(), s, b); err != nil || !resp.GetReplayed() {
			t.Errorf("got %v, %v", resp, err)
		}
		h.wantPublished(b)
	})
}

func TestUploadSmallFile_RejectsWhatUploadRejects(t *testing.T) {
	b := picture(1000)
	large := picture(300_001)
	for name, tc := range map[string]struct {
		spec *pb.UploadSpec
		data []byte
		want share.Kind
	}{
		"no spec":                              {nil, b, share.InvalidField},
		"a bad field":                          {spec(b, func(s *pb.UploadSpec) { s.RequestId = "x" }), b, share.InvalidField},
		"no data":                              {spec(b), nil, share.FileEmpty},
		"no data, undeclared":                  {spec(b, undeclared), nil, share.FileEmpty},
		"larger than declared":                 {spec(b[:999]), b, share.SizeExceeded},
		"smaller than declared":                {spec(large[:1001]), b, share.UploadIncomplete},
		"over the account's limit":             {spec(large), large, share.FileTooLarge},
		"over the account's limit, undeclared": {spec(large, undeclared), large, share.FileTooLarge},
		"another type":                         {spec(b), append([]byte("GIF89a"), b...)[:1000], share.FileTypeMismatch},
		"a wrong checksum":                     {spec(b, func(s *pb.UploadSpec) { s.Checksums = sumsOf(large) }), b, share.FileChecksumMismatch},
		"a closed conversation":                {spec(b, func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-closed") }), b, share.ConversationClosed},
		"no such conversation":                 {spec(b, func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") }), b, share.ConversationNotFound},
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			_, err := h.small(h.alice(), tc.spec, tc.data)
			wantError(t, err, tc.want)
			h.wantNothingStored(max(len(tc.data), int(tc.spec.GetSizeBytes()))) // the store waits for the declared size
		}))
	}
}

func TestUploadSmallFile_Limit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) {
			c.Settings = func(string) Settings { return Settings{MaxFileBytes: 20_000_000, MaxImagePixels: 1000} }
			c.MemoryBudget = 40_000_000
		})
		caps, err := h.files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
		if err != nil || caps.GetMaxSmallFileBytes() != MaxSmallFileBytes || caps.GetMaxMessageBytes() != MaxRecvMessageBytes {
			t.Fatalf("got %v, %v", caps, err)
		}
		b := picture(MaxSmallFileBytes + 1)
		if _, err := h.small(h.alice(), spec(b[:MaxSmallFileBytes]), b[:MaxSmallFileBytes]); err != nil {
			t.Error(err)
		}
		_, err = h.small(h.alice(), spec(b, undeclared), b)
		wantError(t, err, share.FileTooLarge)
		_, err = h.small(h.alice(), spec(b), b)
		wantError(t, err, share.FileTooLarge)
	})
}

// The largest request fits in the receive limit.
func TestUploadSmallFile_LargestRequestFitsInAMessage(t *testing.T) {
	s := spec(nil, withPreviewAndCaption)
	s.SizeBytes = proto.Int64(MaxSmallFileBytes)
	req := &pb.UploadSmallFileRequest{Spec: s, Data: make([]byte, MaxSmallFileBytes)}
	if n := proto.Size(req); n > MaxRecvMessageBytes {
		t.Errorf("the largest request has %d bytes, the limit is %d", n, MaxRecvMessageBytes)
	}
}

func withPreviewAndCaption(s *pb.UploadSpec) {
	s.DisplayName = string(bytes.Repeat([]byte("\U0001F600"), maxDisplayName))
	s.Caption = string(bytes.Repeat([]byte("\U0001F600"), maxCaption))
	s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: string(make([]byte, upload.MaxPreviewChars))}}
}

func TestUploadSmallFile_ValidateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		resp, err := h.small(h.alice(), spec(picture(1000), func(s *pb.UploadSpec) { s.ValidateOnly = true }), nil)
		if err != nil || resp.GetFile() != nil || resp.GetUpload() != "" {
			t.Errorf("got %v, %v", resp, err)
		}
		h.wantNothingStored(0)
	})
}

func TestUpload_ValidateOnlyNeedsNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		defer h.reserveAll().Release()
		if _, err := h.small(h.alice(), spec(picture(1000), func(s *pb.UploadSpec) { s.ValidateOnly = true }), nil); err != nil {
			t.Error(err)
		}
	})
}

func TestPublishUpload_PublishesAStoredFileOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		stored := h.put(b, storeOnly, func(s *pb.UploadSpec) { s.Caption = "later" })
		req := &pb.PublishUploadRequest{Name: stored.GetUpload()}
		resp, err := h.files.PublishUpload(h.alice(), req)
		if err != nil || resp.GetReplayed() || resp.GetFile().MessageSequence == nil || resp.GetFile().GetName() != stored.GetFile().GetName() {
			t.Fatalf("got %v, %v", resp, err)
		}
		if m := h.wantPublished(b); m.File.Caption != "later" {
			t.Errorf("the message is %+v", m)
		}
		again, err := h.files.PublishUpload(h.alice(), req)
		if err != nil || !again.GetReplayed() || !proto.Equal(again.GetFile(), resp.GetFile()) {
			t.Errorf("retry: %v, %v", again, err)
		}
		// A retry of the upload returns the published file too, and publishes nothing.
		replayed := h.replay(aliceToken, spec(b, storeOnly, withID(stored.GetRequestId()), func(s *pb.UploadSpec) { s.Caption = "later" }))
		if replayed.GetFile().MessageSequence == nil {
			t.Errorf("retry of the upload: %v", replayed)
		}
		h.wantPublished(b)
	})
}

func TestPublishUpload_LostAnswerPublishesOnce(t *testing.T) {
	for name, published := range map[string]bool{"published": true, "not published": false} {
		t.Run(name, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(1000)
			stored := h.put(b, storeOnly)
			if published {
				h.lp.then("PublishFile", unconfirmed)
			} else {
				h.lp.fail("PublishFile", kindError(share.LPPublishUnconfirmed))
			}
			resp, err := h.files.PublishUpload(h.alice(), &pb.PublishUploadRequest{Name: stored.GetUpload()})
			if err != nil || resp.GetFile().MessageSequence == nil {
				t.Fatalf("got %v, %v", resp, err)
			}
			h.wantPublished(b)
		}))
	}
}

func TestPublishUpload_Rejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(1000)
		stored := h.put(b, storeOnly)
		publish := func(ctx context.Context, name string) error {
			_, err := h.files.PublishUpload(ctx, &pb.PublishUploadRequest{Name: name})
			return err
		}
		wantError(t, publish(h.alice(), uploadName(account, uuid.NewString())), share.UploadNotFound)
		wantError(t, publish(h.alice(), stored.GetUpload()+"x"), share.InvalidField)
		wantError(t, publish(h.alice(), accountName(account)), share.InvalidField)
		wantError(t, publish(h.as(bobToken), stored.GetUpload()), share.UploadNotFound)

		running := spec(b)
		h.begin(h.alice(), running)
		info := wantError(t, publish(h.alice(), uploadName(account, running.GetRequestId())), share.UploadNotStored)
		if info.GetMetadata()["requestId"] != running.GetRequestId() {
			t.Errorf("metadata %v", info.GetMetadata())
		}

		if _, err := h.convs.CloseConversation(h.alice(), &pb.CloseConversationRequest{Name: parent}); err != nil {
			t.Fatal(err)
		}
		wantError(t, publish(h.alice(), stored.GetUpload()), share.ConversationClosed)
		if n := len(h.lp.messages()); n != 0 {
			t.Errorf("%d messages were published", n)
		}
	})
}

func TestUpload_ComputesSHA256OnlyOnDemand(t *testing.T) {
	b := picture(100_000)
	sum := sumsOf(b).GetSha256()
	none := func(s *pb.UploadSpec) { s.WantChecksums = nil }
	for name, tc := range map[string]struct {
		change func(*pb.UploadSpec)
		finish *pb.Checksums
		want   []byte
	}{
		"neither declared nor requested": {none, nil, nil},
		"requested":                      {func(*pb.UploadSpec) {}, nil, sum},
		"declared in spec": {func(s *pb.UploadSpec) {
			s.WantChecksums, s.Checksums = nil, &pb.Checksums{Sha256: sum}
		}, nil, sum},
		"declared in finish": {none, &pb.Checksums{Sha256: sum}, sum},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			msgs := whole(spec(b, tc.change), b, 50_000)
			msgs[len(msgs)-1].Finish.Checksums = tc.finish
			resp, err := h.upload(h.alice(), msgs...)
			if err != nil {
				t.Fatal(err)
			}
			got := resp.GetFile().GetUploadedChecksums()
			if got.Crc32C == nil || !bytes.Equal(got.GetSha256(), tc.want) {
				t.Errorf("got %v, want SHA-256 %x", got, tc.want)
			}
		})
	}
}

func TestUpload_ChecksLateSHA256AndRejectsUnknownChecksumKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(100_000)
		msgs := whole(spec(b, func(s *pb.UploadSpec) { s.WantChecksums = nil }), b, 50_000)
		msgs[len(msgs)-1].Finish.Checksums = &pb.Checksums{Sha256: sumsOf(b[1:]).GetSha256()}
		_, err := h.upload(h.alice(), msgs...)
		wantError(t, err, share.FileChecksumMismatch)
		_, err = h.upload(h.alice(), first(spec(b, func(s *pb.UploadSpec) { s.WantChecksums = []pb.ChecksumKind{0, 9} })))
		wantError(t, err, share.InvalidField)
		if got := fields(err); len(got) != 2 || got[0] != "spec.want_checksums[0]" {
			t.Errorf("the violations name %v", got)
		}
	})
}

func TestDownload_SendsSHA256OnlyOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(100_000)
		name := h.put(b).GetFile().GetName()
		for _, kinds := range [][]pb.ChecksumKind{nil, wantSHA256} {
			req := byName(name)
			req.WantChecksums = kinds
			stream, err := h.files.Download(h.alice(), req)
			if err != nil {
				t.Fatal(err)
			}
			var sums *pb.Checksums
			for {
				m, err := stream.Recv()
				if err != nil {
					break
				}
				if tr := m.GetTrailer(); tr != nil {
					sums = tr.GetSentChecksums()
				}
			}
			if sums.Crc32C == nil || (len(sums.GetSha256()) > 0) != (kinds != nil) {
				t.Errorf("with %v the trailer has %v", kinds, sums)
			}
		}
		req := byName(name)
		req.WantChecksums = []pb.ChecksumKind{7}
		_, _, _, err := h.download(h.alice(), req)
		wantError(t, err, share.InvalidField)
	})
}

func TestListFiles_OrderAndFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		var want []string // newest first
		for i, sender := range []string{"alice", "bob", "alice", "bob", "alice"} {
			where := conversation
			if i == 2 {
				where = "conv-closed"
			}
			time.Sleep(time.Second) // their times differ
			e := h.lp.send(where, path(string(rune('a'+i))), sender)
			want = append([]string{e.File.StoragePath}, want...)
		}
		for size := int32(1); size <= 6; size++ {
			req := &pb.ListFilesRequest{Parent: everywhere, NewestFirst: true, PageSize: size}
			var got []string
			for {
				r, err := h.files.ListFiles(h.alice(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.GetFiles() {
					got = append(got, f.GetStoragePath())
				}
				h.lp.send(conversation, path("late"+string(rune('0'+size))+string(rune('0'+len(got)))), "bob") // not part of this listing
				if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if len(got) < len(want) || got[len(got)-1] != want[len(want)-1] {
				t.Fatalf("pages of %d: got %v", size, got)
			}
			for i, p := range got[len(got)-len(want):] {
				if p != want[i] {
					t.Fatalf("pages of %d: got %v, want %v at the end", size, got, want)
				}
			}
		}
		r, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: everywhere, DialogId: "conv-closed"})
		if err != nil || len(r.GetFiles()) != 1 || r.GetFiles()[0].GetStoragePath() != path("c") || r.GetWatchToken() == "" {
			t.Errorf("one dialog: %v, %v", r, err)
		}
		if f := r.GetFiles()[0]; f.GetContentType() != "image/jpeg" {
			t.Errorf("content type %q", f.GetContentType())
		}
		r, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, SenderRole: pb.ParticipantRole_PARTICIPANT_ROLE_MANAGER})
		if err != nil || len(r.GetFiles()) != 0 {
			t.Errorf("of managers: %v, %v", r, err)
		}
		r, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, SenderRole: pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER, PageSize: 1})
		if err != nil || len(r.GetFiles()) != 1 {
			t.Fatalf("of consumers: %v, %v", r, err)
		}
		// A page token belongs to one listing.
		_, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, PageToken: r.GetNextPageToken()})
		wantError(t, err, share.PageTokenInvalid)
		_, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, DialogId: "no/id", SenderRole: 99})
		if got := fields(err); len(got) != 2 {
			t.Errorf("the violations name %v", got)
		}
	})
}
