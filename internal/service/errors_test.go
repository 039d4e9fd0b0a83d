package service

import (
	"context"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// An errorCase reproduces one condition. do prepares the harness and returns the call that fails. The call may store and publish
// nothing.
type errorCase struct {
	do     func(h *harness) (call func() error)
	config func(*Config)
	// keys are the documented keys of ErrorInfo.metadata; errors of an upload also have requestId.
	keys []string
	// stores reports that the file is stored before the call fails, because the condition arises while publishing.
	stores bool
}

// uploading returns a call that uploads b.
func uploading(h *harness, b []byte, change ...func(*pb.UploadSpec)) func() error {
	return func() error {
		_, err := h.upload(h.alice(), whole(spec(b, change...), b, 1000)...)
		return err
	}
}

// sending returns a call that sends msgs.
func sending(h *harness, msgs ...*pb.UploadRequest) func() error {
	return func() error {
		_, err := h.upload(h.alice(), msgs...)
		return err
	}
}

func kindError(k share.Kind) error { return share.Errorf(k, "a message", nil) }

// portFails makes a method of the session fail during an upload.
func portFails(method string, k share.Kind) errorCase {
	return errorCase{
		do: func(h *harness) func() error {
			h.lp.failAlways(method, kindError(k))
			return uploading(h, picture(2000))
		},
		stores: method == "PublishFile",
	}
}

func storeFails(k share.Kind) errorCase {
	return errorCase{do: func(h *harness) func() error {
		h.store.failAlways("Put", kindError(k))
		return uploading(h, picture(2000))
	}}
}

// scannerFails makes the scanner of an upload fail, with pairs of metadata.
func scannerFails(k share.Kind, metadata ...string) errorCase {
	c := errorCase{do: func(h *harness) func() error {
		h.server.uploads.Scanner = scannerFunc(func(context.Context, share.ScanJob) error {
			return share.Reject(k, "a message").With(metadata...)
		})
		return uploading(h, picture(2000))
	}}
	for i := 0; i < len(metadata); i += 2 {
		c.keys = append(c.keys, metadata[i])
	}
	return c
}

var errorCases = map[share.Kind]errorCase{
	share.StreamProtocolViolation: {do: func(h *harness) func() error { return sending(h, finish()) }},
	share.InvalidField: {do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) { s.Conversation, s.RequestId = "nowhere", "no-uuid" })
	}},
	share.UnsupportedFileType: {keys: []string{"allowedTypes"}, do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_PDF })
	}},
	share.FileTypeMismatch: {keys: []string{"detectedType"}, do: func(h *harness) func() error {
		return uploading(h, picture(2000), func(s *pb.UploadSpec) { s.FileType = pb.FileType_FILE_TYPE_PNG })
	}},
	share.FileTooLarge: {keys: []string{"actualBytes", "maxBytes"}, do: func(h *harness) func() error {
		return uploading(h, picture(300_001))
	}},
	share.PreviewTooLarge: {keys: []string{"actualBytes", "maxBytes"}, do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64," + strings.Repeat("A", upload.MaxPreviewChars)}}
		})
	}},
	share.FileEmpty: {do: func(h *harness) func() error { return uploading(h, nil) }},
	share.UploadIncomplete: {keys: []string{"receivedBytes"}, do: func(h *harness) func() error {
		b := picture(2000)
		return sending(h, first(spec(b)), chunk(0, b[:1999]), finish())
	}},
	share.OffsetMismatch: {keys: []string{"expectedOffset"}, do: func(h *harness) func() error {
		b := picture(2000)
		return sending(h, first(spec(b)), chunk(1, b))
	}},
	share.SizeExceeded: {keys: []string{"declaredBytes"}, do: func(h *harness) func() error {
		b := picture(2000)
		return sending(h, first(spec(b)), chunk(0, b), chunk(len(b), []byte{0}), finish())
	}},
	share.ChunkChecksumMismatch: {do: func(h *harness) func() error {
		b := picture(2000)
		c := chunk(0, b)
		c.Chunk.Crc32C = proto.Uint32(1)
		return sending(h, first(spec(b)), c, finish())
	}},
	share.FileChecksumMismatch: {do: func(h *harness) func() error {
		return uploading(h, picture(2000), func(s *pb.UploadSpec) { s.Checksums = sumsOf([]byte("other")) })
	}},
	share.MessageTooLarge: {keys: []string{"maxBytes"}, config: func(c *Config) {
		c.Settings = func(string) Settings { return Settings{MaxFileBytes: 3_000_000} }
		c.MemoryBudget = 6_000_000
	}, do: func(h *harness) func() error {
		b := picture(MaxChunkBytes + 1)
		return sending(h, first(spec(b)), chunk(0, b), finish())
	}},
	share.UploadNotFound: {do: func(h *harness) func() error {
		return func() error {
			_, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + spec(nil).RequestId})
			return err
		}
	}},
	share.UploadTakenOver: {do: func(h *harness) func() error {
		s := spec(picture(10))
		older := h.begin(h.alice(), s)
		h.begin(h.alice(), s)
		return func() error {
			_, err := older.CloseAndRecv()
			return err
		}
	}},
	share.UploadIdle: {config: func(c *Config) { c.IdleTimeout = 50 * time.Millisecond }, do: func(h *harness) func() error {
		stream := h.begin(h.alice(), spec(picture(10)))
		return func() error { return stream.RecvMsg(new(pb.UploadResponse)) }
	}},
	share.RequestIDConflict: {do: func(h *harness) func() error {
		id := h.put(picture(2000)).GetRequestId()
		return uploading(h, picture(2000), withID(id), func(s *pb.UploadSpec) { s.Caption = "another" })
	}},
	share.TooManyStreams: {config: func(c *Config) { c.MaxStreamsPerCaller = 0 }, do: func(h *harness) func() error {
		return func() error {
			_, _, _, err := h.download(h.alice(), byName(fileName(account, conversation, conversation, path("a.jpg"))))
			return err
		}
	}},
	share.TooManyUploads: {keys: []string{"limit"}, do: func(h *harness) func() error {
		reserved := h.reserveAll()
		h.t.Cleanup(reserved.Release)
		return uploading(h, picture(10))
	}},
	share.ServerDraining: {do: func(h *harness) func() error {
		h.server.Drain()
		return uploading(h, picture(10))
	}},
	share.TokenInvalid: {do: func(h *harness) func() error {
		return func() error {
			_, err := h.upload(h.as("forged-"+secret), whole(spec(picture(10)), picture(10), 10)...)
			return err
		}
	}},
	share.NotAllowed: {do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) { s.Conversation = "accounts/other/conversations/c" })
	}},
	share.LPUnavailable:         portFails("Session", share.LPUnavailable),
	share.LPIdentityExpired:     portFails("UploadURL", share.LPIdentityExpired),
	share.LPCredentialsRejected: portFails("Session", share.LPCredentialsRejected),
	share.FileSharingDisabled:   portFails("UploadURL", share.FileSharingDisabled),
	share.LPForbidden:           portFails("PublishFile", share.LPForbidden),
	share.ConversationNotFound: {do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-bob") })
	}},
	share.ConversationClosed: {do: func(h *harness) func() error {
		return uploading(h, picture(10), func(s *pb.UploadSpec) { s.Conversation = conversationName(account, "conv-closed") })
	}},
	share.LPRejectedFile: {keys: []string{"lpErrorCode", "step"}, do: func(h *harness) func() error {
		h.lp.failAlways("UploadURL", share.Reject(share.LPRejectedFile, "no").With("lpErrorCode", "400", "step", "url"))
		return uploading(h, picture(10))
	}},
	share.LPRateLimited:        portFails("UploadURL", share.LPRateLimited),
	share.LPTimeout:            portFails("Conversation", share.LPTimeout),
	share.LPPublishUnconfirmed: portFails("PublishFile", share.LPPublishUnconfirmed),
	share.LPProtocolError:      portFails("UploadURL", share.LPProtocolError),
	share.StorageProtocolError: storeFails(share.StorageProtocolError),
	share.StorageURLRejected:   storeFails(share.StorageURLRejected),
	share.StorageDenied:        storeFails(share.StorageDenied),
	share.FileNotFound: {do: func(h *harness) func() error {
		return reading(h, byName(fileName(account, conversation, conversation, path("nothing"))))
	}},
	share.StorageUnavailable: storeFails(share.StorageUnavailable),
	share.StorageRateLimited: storeFails(share.StorageRateLimited),
	share.RangeNotSatisfiable: {keys: []string{"sizeBytes"}, do: func(h *harness) func() error {
		req := byName(h.addFile(path("a"), picture(10)))
		req.ReadOffset = 11
		return reading(h, req)
	}},
	share.StorageFull: storeFails(share.StorageFull),
	share.StorageCorrupted: {do: func(h *harness) func() error {
		h.store.then("Put", func(context.Context) error { return kindError(share.StorageCorrupted) })
		return uploading(h, picture(10))
	}},
	share.FileChanged: {do: func(h *harness) func() error {
		req := byName(h.addFile(path("a"), picture(10)))
		req.IfMatchEtag = "another"
		return reading(h, req)
	}},
	share.StorageTruncated: {keys: []string{"sentBytes"}, do: func(h *harness) func() error {
		req := byName(h.addFile(path("a"), picture(10)))
		h.store.breaks = []int{0, 0, 0, 0, 0, 0}
		return reading(h, req)
	}},
	share.StoragePathInvalid: {do: func(h *harness) func() error {
		return reading(h, byName(fileName(account, conversation, conversation, "/v1/AUTH_async/other/x")))
	}},
	share.ImageInvalid: {do: func(h *harness) func() error {
		h.images.failAlways("Inspect", kindError(share.ImageInvalid))
		return uploading(h, picture(2000))
	}},
	share.ImageTooManyPixels: {keys: []string{"actualPixels", "maxPixels"}, do: func(h *harness) func() error {
		h.images.failAlways("Inspect", share.Reject(share.ImageTooManyPixels, "a message").With("maxPixels", "1000", "actualPixels", "1001"))
		return uploading(h, picture(2000))
	}},
	share.PageTokenInvalid: {do: func(h *harness) func() error {
		return func() error {
			_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, PageToken: "!"})
			return err
		}
	}},
	share.LedgerUnavailable: {do: func(h *harness) func() error {
		h.ledger.failAlways("Save", context.DeadlineExceeded)
		return uploading(h, picture(10))
	}},
	share.LedgerShare: {keys: []string{"limit", "heldBytes", "freeBytes"}, do: func(h *harness) func() error {
		h.ledger.failAlways("Save "+string(share.Receiving), share.Reject(share.LedgerShare, "a message").With("limit", "caller", "heldBytes", "2", "freeBytes", "1"))
		return uploading(h, picture(10))
	}},
	share.ImageCannotFit: {keys: []string{"maxBytes", "why"}, config: fitting, do: func(h *harness) func() error {
		h.images.failAlways("Fit", share.Reject(share.ImageCannotFit, "a message").With("maxBytes", "300000", "why", "animated"))
		return uploading(h, picture(300_001), fit)
	}},
	share.FileRejectedByScanner: scannerFails(share.FileRejectedByScanner, "part", "file", "why", "malware", "signature", "Test"),
	share.ScannerUnavailable:    scannerFails(share.ScannerUnavailable, "part", "file", "why", "unreachable"),
	share.WatchTooSlow: {do: func(h *harness) func() error {
		h.lp.failAlways("Next", kindError(share.WatchTooSlow))
		return func() error {
			stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err != nil {
				return err
			}
			return end(stream)
		}
	}},
	share.WatchReset: {do: func(h *harness) func() error {
		h.lp.failAlways("WatchFiles", share.ErrWatchReset)
		return func() error {
			stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}},
	share.UploadNotStored: {do: func(h *harness) func() error {
		s := spec(picture(10))
		h.begin(h.alice(), s)
		return func() error {
			_, err := h.files.PublishUpload(h.alice(), &pb.PublishUploadRequest{Name: uploadName(account, s.GetRequestId())})
			return err
		}
	}},
	share.ConversationTooLarge: {do: func(h *harness) func() error {
		h.lp.failAlways("ListFiles", kindError(share.ConversationTooLarge))
		return func() error {
			_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
			return err
		}
	}},
	share.SessionLimit:          portFails("Session", share.SessionLimit),
	share.MethodNotImplemented:  portFails("Session", share.MethodNotImplemented),
	share.IdentityNotConfigured: portFails("Session", share.IdentityNotConfigured),
	share.CallerKeysUnavailable: portFails("Session", share.CallerKeysUnavailable), // in the product from Calls.Authenticate
	share.WebhookNotConfigured: {do: func(h *harness) func() error {
		h.lp.failAlways("WatchFiles", kindError(share.WebhookNotConfigured))
		return func() error {
			stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}},
	share.CallerNotPermitted: {
		config: func(c *Config) {
			c.Permit = func(policy.Request) error { return kindError(share.CallerNotPermitted) }
		},
		do: func(h *harness) func() error {
			return func() error {
				_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
				return err
			}
		},
	},
	share.CallerNotAuthenticated: {
		config: func(c *Config) {
			c.Caller = func(context.Context) policy.Caller { return policy.Caller{} }
		},
		do: func(h *harness) func() error {
			return func() error {
				_, err := h.files.ListFiles(h.external(aliceToken, ""), &pb.ListFilesRequest{Parent: parent})
				return err
			}
		},
	},
	share.Internal: {do: func(h *harness) func() error {
		h.lp.on("Conversation", func(context.Context) error { panic("a password") })
		return uploading(h, picture(10))
	}},
}

// reading returns a call that downloads a file.
func reading(h *harness, req *pb.DownloadRequest) func() error {
	return func() error {
		_, _, _, err := h.download(h.alice(), req)
		return err
	}
}

func TestErrorTable(t *testing.T) {
	for kind := range conditions {
		c, ok := errorCases[kind]
		if !ok {
			t.Errorf("no case reproduces %s", kind)
			continue
		}
		t.Run(string(kind), inBubble(func(t *testing.T) {
			h := newHarness(t, func(cfg *Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
			call := c.do(h)
			before := h.storedAndPublished()
			info := wantError(t, call(), kind)
			if c.stores {
				before = "1 objects, 0 messages"
			}
			if after := h.storedAndPublished(); after != before && kind != share.StorageCorrupted {
				t.Errorf("there are %s, want %s", after, before)
			}
			if n := len(h.lp.messages()); kind == share.StorageCorrupted && n != 0 {
				t.Errorf("%d messages were published", n)
			}
			for _, key := range c.keys {
				if info.GetMetadata()[key] == "" {
					t.Errorf("metadata %v has no %s", info.GetMetadata(), key)
				}
			}
			for _, key := range sortedKeys(info.GetMetadata()) {
				if !slices.Contains(append(c.keys, "requestId", "subject"), key) {
					t.Errorf("metadata has %s, which is not documented", key)
				}
			}
		}))
	}
}

// Every Kind is a row of the table and a value of the contract, and the reverse.
func TestConditions_MatchKindsAndReasons(t *testing.T) {
	kinds := declaredKinds(t)
	rows := make([]string, 0, len(conditions))
	for k := range conditions {
		rows = append(rows, string(k))
	}
	slices.Sort(rows)
	var reasons []string
	for name, n := range pb.ErrorReason_value {
		if n != 0 {
			reasons = append(reasons, strings.TrimPrefix(name, "ERROR_REASON_"))
		}
	}
	slices.Sort(reasons)
	if !slices.Equal(kinds, rows) {
		t.Errorf("share.Kind has\n%v\nand conditions\n%v", kinds, rows)
	}
	if !slices.Equal(reasons, rows) {
		t.Errorf("ErrorReason has\n%v\nand conditions\n%v", reasons, rows)
	}
	for _, k := range rows {
		if errorReason(share.Kind(k)) == 0 {
			t.Errorf("errorReason(%s) is unspecified", k)
		}
	}
}

// declaredKinds reads the constants of share.Kind from their source.
func declaredKinds(t *testing.T) []string {
	f, err := parser.ParseFile(gotoken.NewFileSet(), "../share/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == "Kind" {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, s)
		}
		return true
	})
	slices.Sort(kinds)
	return kinds
}

// The comment of each reason in the contract begins with its code and with whether its status has RetryInfo.
func TestConditions_MatchContractComments(t *testing.T) {
	f, err := parser.ParseFile(gotoken.NewFileSet(), "../../gen/go/lpfileshare/v1/error_reason.pb.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || v.Doc == nil {
			return true
		}
		_, reason, ok := strings.Cut(v.Names[0].Name, "_ERROR_REASON_")
		codeName, rest, hasCode := strings.Cut(v.Doc.Text(), ", ")
		if !ok || !hasCode || reason == "UNSPECIFIED" {
			return true
		}
		retries, _, _ := strings.Cut(rest, ".")
		want, valid := map[string]bool{"with RetryInfo": true, "no RetryInfo": false}[retries]
		if !valid {
			t.Errorf("%s: the comment has neither \"with RetryInfo\" nor \"no RetryInfo\": %q", reason, retries)
		}
		// It does not depend on the RetryAfter that an adapter sets.
		for _, asked := range []time.Duration{0, time.Nanosecond, time.Hour} {
			_, has := retryDelay(statusOfKind(&share.Error{Kind: share.Kind(reason), RetryAfter: asked}))
			if has != want {
				t.Errorf("%s with RetryAfter %s: RetryInfo is %t, want %t as in the contract", reason, asked, has, want)
			}
		}
		seen++
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(strconv.Quote(codeName))); err != nil {
			t.Errorf("%s: the comment begins with %q, which is no code", reason, codeName)
		}
		if row := conditions[share.Kind(reason)]; row.code != code {
			t.Errorf("%s is %s in the table and %s in the contract", reason, row.code, codeName)
		}
		return true
	})
	if seen != len(conditions) {
		t.Errorf("%d comments were read, want %d", seen, len(conditions))
	}
}

func retryDelay(s *status.Status) (time.Duration, bool) {
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

func TestStatus_LargestFitsIn3KiB(t *testing.T) {
	e := share.Reject(share.FileSharingDisabled, "%s", strings.Repeat("é", 5000))
	for range 50 {
		e.Violations = append(e.Violations, share.Violation{Field: strings.Repeat("f", 500), Description: strings.Repeat("ü", 500)})
	}
	s := statusOfKind(e.With("requestId", strings.Repeat("0", 36)))
	if n := proto.Size(s.Proto()); n >= 3<<10 {
		t.Errorf("the status has %d bytes", n)
	}
}

func TestStatus_UnknownKindIsInternal(t *testing.T) {
	wantError(t, statusOfKind(share.Errorf("NEW_AND_UNKNOWN", "no such condition", nil)).Err(), share.Internal)
}

func TestStatus_ClientCancellationTakesPrecedence(t *testing.T) {
	for want, end := range map[codes.Code]func(context.Context) (context.Context, context.CancelFunc){
		codes.Canceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		},
		codes.DeadlineExceeded: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		},
	} {
		t.Run(want.String(), inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.on("ListFiles", func(ctx context.Context) error {
				<-ctx.Done()
				return kindError(share.LPUnavailable)
			})
			ctx, cancel := end(h.alice())
			defer cancel()
			_, err := h.files.ListFiles(ctx, &pb.ListFilesRequest{Parent: parent})
			if status.Code(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
			// To a server, a client's deadline can look like a cancellation.
			h.eventually("the call is logged", func() bool {
				return strings.Contains(h.log.String(), "code=Canceled") || strings.Contains(h.log.String(), "code=DeadlineExceeded")
			})
		}))
	}
}

func TestStatus_ServerTimeoutIsLPTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.UnaryTimeout = 50 * time.Millisecond })
		h.lp.on("ListFiles", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		wantError(t, err, share.LPTimeout)
	})
}
