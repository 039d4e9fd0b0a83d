package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// endings collects the ends of calls.
type endings struct {
	mu    sync.Mutex
	calls []EndedCall
}

func (e *endings) add(_ context.Context, c *EndedCall) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, *c)
}

// of returns the ends of a method.
func (e *endings) of(method string) (found []EndedCall) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if c.Method == method {
			found = append(found, c)
		}
	}
	return found
}

// observed is a harness whose calls are observed.
func observed(t *testing.T, accept func() error, change ...func(*Config)) (*harness, *endings) {
	t.Helper()
	e := &endings{}
	h := newHarness(t, change...)
	h.accept, h.ended = accept, e.add
	return h, e
}

func TestCalls_Facts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ended := observed(t, nil)
		b := picture(1000)
		s := spec(b, func(s *pb.UploadSpec) { s.WantChecksums = []pb.ChecksumKind{pb.ChecksumKind_CHECKSUM_KIND_SHA256} })
		file := h.put(b).GetFile()
		for range 2 {
			if _, err := h.small(h.alice(), s, b); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, _, err := h.download(h.alice(), byName(file.GetName())); err != nil {
			t.Fatal(err)
		}
		_, _ = h.files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: parent}) // without an identity
		synctest.Wait()
		alice := share.Principal{Account: account, ID: "alice", Role: share.RoleConsumer}
		small := ended.of("FileSharingService/UploadSmallFile")
		if len(small) != 2 {
			t.Fatalf("%d calls", len(small))
		}
		for i, c := range small {
			if c.Code != codes.OK || c.Principal != alice || c.Account != account || c.Conversation != conversation || c.RequestID != s.GetRequestId() ||
				c.FileType != "JPEG" || c.Decision != Permitted || len(c.SHA256) != 32 || c.StoragePath == "" || c.Peer == "" || c.Replayed != (i == 1) || c.TookOver {
				t.Errorf("call %d: %+v", i, c)
			}
		}
		if d := ended.of("FileSharingService/Download"); len(d) != 1 || d[0].Principal != alice || d[0].Conversation != conversation || d[0].Bytes != 1000 || d[0].FileType != "JPEG" {
			t.Errorf("the download: %+v", d)
		}
		if l := ended.of("FileSharingService/ListFiles"); len(l) != 1 || l[0].Reason != "TOKEN_INVALID" || l[0].Account != account || l[0].Decision != "" || l[0].Principal.ID != "" {
			t.Errorf("the list: %+v", l)
		}
	})
}

// What the policy denies is a decision, and so is a repeat that continues what an earlier attempt has begun.
func TestCalls_Decisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ended := observed(t, nil, func(c *Config) {
			c.Permit = func(q policy.Request) error {
				if q.Scheme == share.ConsumerToken {
					return share.Reject(share.CallerNotPermitted, "no")
				}
				return nil
			}
		})
		_, _ = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		_, _ = h.ids.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountName(account), Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		synctest.Wait()
		for _, method := range []string{"FileSharingService/ListFiles", "IdentityService/SignInConsumer"} {
			if c := ended.of(method); len(c) != 1 || c[0].Decision != Denied || c[0].Account != account {
				t.Errorf("%s: %+v", method, c)
			}
		}
	})
}

func TestCalls_TookOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ended := observed(t, nil)
		b := picture(1000)
		s := spec(b)
		if _, err := h.upload(h.alice(), first(s), chunk(0, b[:500])); err == nil {
			t.Fatal("half of a file was accepted")
		}
		if _, err := h.upload(h.alice(), whole(s, b, 1000)...); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := ended.of("FileSharingService/Upload"); len(c) != 2 || c[0].TookOver || !c[1].TookOver || c[1].Replayed {
			t.Errorf("the calls: %+v", c)
		}
	})
}

// A call that is not accepted ends with that error, and its handler does not run. One whose handler panics ends as well.
func TestCalls_AcceptAndPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := error(nil)
		h, ended := observed(t, func() error { return refuse })
		h.lp.on("ListFiles", func(context.Context) error { panic("a fault") })
		_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		wantError(t, err, share.Internal)
		refuse = share.Reject(share.ServerDraining, "not now")
		_, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		wantError(t, err, share.ServerDraining)
		_, err = h.upload(h.alice(), first(spec(picture(10))))
		wantError(t, err, share.ServerDraining)
		synctest.Wait()
		list, upload := ended.of("FileSharingService/ListFiles"), ended.of("FileSharingService/Upload")
		if len(list) != 2 || len(upload) != 1 || list[0].Reason != "INTERNAL" || list[0].Refused || !list[1].Refused || !upload[0].Refused {
			t.Errorf("the calls: %+v, %+v", list, upload)
		}
		if n := h.lp.count("ListFiles"); n != 1 {
			t.Errorf("%d handlers ran", n)
		}
	})
}

// Calls that gRPC itself ends before an interceptor runs are reported once, others are not.
func TestRequestTimeout_ReportsUnseenCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		var mu sync.Mutex
		var unseen []string
		h.unseen = func(_ context.Context, method string, exceeded bool) {
			mu.Lock()
			defer mu.Unlock()
			if exceeded {
				method += " exceeded"
			}
			unseen = append(unseen, method)
		}
		_, large := h.files.UploadSmallFile(h.alice(), &pb.UploadSmallFileRequest{Data: make([]byte, MaxRecvMessageBytes+1)})
		_, seen := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		_, _, _, streamed := h.download(h.alice(), byName("none"))
		stream, err := h.conn.NewStream(h.alice(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, pb.FileSharingService_StatFile_FullMethodName) // whose request does not arrive
		if err == nil {
			err = stream.RecvMsg(new(pb.StatFileResponse))
		}
		if large == nil || seen != nil || streamed == nil || err == nil {
			t.Error(errors.Join(large, seen, streamed, err))
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []string{pb.FileSharingService_UploadSmallFile_FullMethodName, pb.FileSharingService_StatFile_FullMethodName + " exceeded"}
		if !slices.Equal(unseen, want) {
			t.Errorf("unseen: %v, want %v", unseen, want)
		}
	})
}
