package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

func TestUpload_DownloadReturnsTheFile(t *testing.T) { overBoth(t, testUpload_DownloadReturnsTheFile) }

func testUpload_DownloadReturnsTheFile(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{}, "--documents")
	c := w.consumer()
	conv := w.conversation(c.Client)
	for _, f := range []struct {
		name   string
		typ    pb.FileType
		lpType string
		data   []byte
	}{
		{"photo.jpg", pb.FileType_FILE_TYPE_JPEG, "JPG", photo(t, 3_000_000)},
		{"one block.jpg", pb.FileType_FILE_TYPE_JPEG, "JPG", photo(t, 64<<10)},
		{"a byte more.jpg", pb.FileType_FILE_TYPE_JPEG, "JPG", photo(t, 64<<10+1)},
		{"tiny.png", pb.FileType_FILE_TYPE_PNG, "PNG", tinyPNG(t)},
		{"x.gif", pb.FileType_FILE_TYPE_GIF, "GIF", []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;")},
		{"paper.pdf", pb.FileType_FILE_TYPE_PDF, "PDF", []byte("%PDF-1.7\nnothing much\n")},
		{"note.txt", pb.FileType_FILE_TYPE_TXT, "TXT", []byte("déjà vu\n")},
		{"letter.docx", pb.FileType_FILE_TYPE_DOCX, "DOCX", harness.OfficeDocument("word")},
		{"sheet.xlsx", pb.FileType_FILE_TYPE_XLSX, "XLSX", harness.OfficeDocument("xl")},
		{"talk.pptx", pb.FileType_FILE_TYPE_PPTX, "PPTX", harness.OfficeDocument("ppt")},
	} {
		t.Run(f.name, func(t *testing.T) {
			file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: f.name, FileType: f.typ, Caption: "see " + f.name}, f.data)
			if file.GetLpFileType() != f.lpType || file.GetFileType() != f.typ || file.GetStoredSizeBytes() != int64(len(f.data)) ||
				file.MessageSequence == nil || file.GetDisplayName() != f.name || file.GetSenderId() != c.id {
				t.Errorf("the answer is %v", file)
			}
			if got := w.download(c.Client, file.GetName()); sha(got) != sha(f.data) {
				t.Error("the downloaded bytes differ from the uploaded ones")
			}
			stat, err := c.Raw().Files.StatFile(t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file.GetName()}})
			if err != nil || stat.GetFile().GetEtag() != file.GetEtag() || stat.GetFile().GetCaption() != "see "+f.name {
				t.Errorf("StatFile: %v, %v", stat, err)
			}
		})
	}
	j := w.sb.Journal()
	if len(j.Published) != 10 || len(j.Stored) != 10 {
		t.Errorf("%d messages and %d objects, want 10 of each", len(j.Published), len(j.Stored))
	}
}

func TestWatch_AgentSeesAFileAndSendsOne(t *testing.T) {
	overBoth(t, testWatch_AgentSeesAFileAndSendsOne)
}

func testWatch_AgentSeesAFileAndSendsOne(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{AutoAssign: true})
	agent := w.agent("ann")
	seen := make(chan *pb.File, 10)
	watch(t, agent, accountPath+"/conversations/-", seen)

	c := w.consumer()
	conv := w.conversation(c.Client)
	received := make(chan *pb.File, 10)
	watch(t, c.Client, conv, received)

	picture := photo(t, 200_000)
	sent := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", Caption: "hello", Preview: generated()}, picture)
	got := next(t, seen)
	if got.GetName() != sent.GetName() || got.GetCaption() != "hello" || got.GetSenderRole() != pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER {
		t.Errorf("the agent saw %v, and %v was sent", got, sent)
	}
	if !strings.HasPrefix(got.GetPreviewDataUri(), "data:image/jpeg;base64,") || len(got.GetPreviewDataUri()) >= 30*1024 {
		t.Errorf("a preview of %d characters", len(got.GetPreviewDataUri()))
	}
	if b := w.download(agent, got.GetName()); sha(b) != sha(picture) {
		t.Error("the agent downloaded something else")
	}

	back := tinyPNG(t)
	w.upload(agent, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "b.png"}, back)
	if own := next(t, received); own.GetName() != sent.GetName() {
		t.Errorf("the consumer saw %v before its own file", own)
	}
	reply := next(t, received)
	if reply.GetSenderRole() == pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER || sha(w.download(c.Client, reply.GetName())) != sha(back) {
		t.Errorf("the consumer saw %v", reply)
	}
}

func generated() *pb.Preview {
	return &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
}

// watchToken lists the files of parent and returns the token of the listing.
func watchToken(t *testing.T, c *lpfileshare.Client, parent string) string {
	t.Helper()
	list := c.Files(t.Context(), lpfileshare.FilesOptions{Parent: parent})
	if _, err := list.Collect(); err != nil {
		t.Fatal(err)
	}
	return list.WatchToken()
}

// watchInto sends the files of a watch to a channel, and returns the error that ends the watch.
func watchInto(w *lpfileshare.FileWatch, into chan<- *pb.File) error {
	for f, err := range w.All() {
		if err != nil {
			return err
		}
		into <- f
	}
	return nil
}

// watch sends the files that are published from now on to a channel, until the test ends.
func watch(t *testing.T, c *lpfileshare.Client, parent string, into chan<- *pb.File) {
	t.Helper()
	token := watchToken(t, c, parent)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		err := watchInto(c.Watch(ctx, lpfileshare.WatchOptions{Parent: parent, Token: token}), into)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended: %v", err)
		}
	}()
}

func next(t *testing.T, from <-chan *pb.File) *pb.File {
	t.Helper()
	return harness.Next(t, from)
}

func TestDownload_RejectsOtherConsumersFiles(t *testing.T) {
	overBoth(t, testDownload_RejectsOtherConsumersFiles)
}

func testDownload_RejectsOtherConsumersFiles(t *testing.T, newWorld worldFunc) {
	// LivePerson might sign any path, so the server must ask only for what the caller may see.
	w := newWorld(t, sandbox.Options{SignAnyPath: true})
	alice, bob := w.consumer(), w.consumer()
	convA, convB := w.conversation(alice.Client), w.conversation(bob.Client)
	file := w.upload(alice.Client, lpfileshare.UploadOptions{Conversation: convA, DisplayName: "a.jpg"}, photo(t, 10_000))
	kept, err := alice.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: convA, DisplayName: "b.jpg", PublishMode: pb.PublishMode_PUBLISH_MODE_STORE_ONLY}, bytes.NewReader(photo(t, 9_000)))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.download(alice.Client, kept.GetFile().GetName()); len(got) != 9_000 {
		t.Errorf("the uploader got %d bytes of what was only stored", len(got))
	}
	signed := len(w.sb.Journal().Signed)

	for name, source := range map[string]*pb.StatFileRequest{
		"by name":                         {Source: &pb.StatFileRequest_Name{Name: file.GetName()}},
		"stored only, by name":            {Source: &pb.StatFileRequest_Name{Name: kept.GetFile().GetName()}},
		"by path":                         {Source: &pb.StatFileRequest_Storage{Storage: &pb.StorageRef{Conversation: convA, StoragePath: file.GetStoragePath()}}},
		"by path in his own conversation": {Source: &pb.StatFileRequest_Storage{Storage: &pb.StorageRef{Conversation: convB, StoragePath: file.GetStoragePath()}}},
		"stored only, by path in his own": {Source: &pb.StatFileRequest_Storage{Storage: &pb.StorageRef{Conversation: convB, StoragePath: kept.GetFile().GetStoragePath()}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bob.Raw().Files.StatFile(t.Context(), source)
			wantReason(t, err, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
			o := lpfileshare.DownloadOptions{Name: source.GetName(), Conversation: source.GetStorage().GetConversation(), StoragePath: source.GetStorage().GetStoragePath(), RetryFor: -1}
			var got bytes.Buffer
			_, err = bob.Download(t.Context(), o, &got)
			wantReason(t, err, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
			if got.Len() > 0 {
				t.Errorf("bob got %d bytes", got.Len())
			}
		})
	}
	for _, parent := range []string{convA} {
		_, err := bob.Files(t.Context(), lpfileshare.FilesOptions{Parent: parent}).Collect()
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
		err = watchInto(bob.Watch(t.Context(), lpfileshare.WatchOptions{Parent: parent, RetryFor: -1}), nil)
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
	}
	_, err = bob.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: convA, DisplayName: "c.jpg"}, bytes.NewReader(photo(t, 5_000)))
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
	if files, err := bob.Files(t.Context(), lpfileshare.FilesOptions{Parent: accountPath + "/conversations/-"}).Collect(); err != nil || len(files) > 0 {
		t.Errorf("bob lists %v, %v", files, err)
	}
	if now := len(w.sb.Journal().Signed); now != signed {
		t.Errorf("LivePerson was asked for %d URLs on bob's behalf", now-signed)
	}
}

func TestListFiles_SeparatesConversations(t *testing.T) {
	overBoth(t, testListFiles_SeparatesConversations)
}

func testListFiles_SeparatesConversations(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{SignAnyPath: true})
	c, other := w.consumer(), w.consumer()
	one, two := w.conversation(c.Client), w.conversation(c.Client)
	theirs := w.conversation(other.Client)
	inTwo, byOther := make(chan *pb.File, 10), make(chan *pb.File, 10)
	watch(t, c.Client, two, inTwo)
	watch(t, other.Client, accountPath+"/conversations/-", byOther)
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: one, DisplayName: "a.png"}, tinyPNG(t))
	signed := len(w.sb.Journal().Signed)
	for _, ref := range []*pb.StorageRef{
		{Conversation: two, StoragePath: file.GetStoragePath()},
		{Conversation: theirs, StoragePath: file.GetStoragePath()},
	} {
		_, err := c.Raw().Files.StatFile(t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Storage{Storage: ref}})
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
	}
	_, err := c.Raw().Files.StatFile(t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: strings.Replace(file.GetName(), one, two, 1)}})
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
	if n := len(w.sb.Journal().Signed); n != signed {
		t.Errorf("LivePerson was asked for %d URLs", n-signed)
	}
	if files, err := c.Files(t.Context(), lpfileshare.FilesOptions{Parent: two}).Collect(); err != nil || len(files) > 0 {
		t.Errorf("the other conversation lists %v, %v", files, err)
	}
	// Each watch sends the next file of its own conversation. A file of another one would arrive before it.
	mine := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: two, DisplayName: "b.png"}, tinyPNG(t))
	foreign := w.upload(other.Client, lpfileshare.UploadOptions{Conversation: theirs, DisplayName: "c.png"}, tinyPNG(t))
	if f := next(t, inTwo); f.GetName() != mine.GetName() {
		t.Errorf("the watch of one conversation saw %v", f)
	}
	if f := next(t, byOther); f.GetName() != foreign.GetName() {
		t.Errorf("the other consumer's watch saw %v", f)
	}
}

// identified are the calls that take an identity, all of them.
func identified(conv, file string) map[string]func(context.Context, *lpfileshare.Client) error {
	stream := func(err error, recv func() error) error {
		if err != nil {
			return err
		}
		return recv()
	}
	return map[string]func(context.Context, *lpfileshare.Client) error{
		"Upload": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Upload(ctx, lpfileshare.UploadOptions{Conversation: conv, FileType: pb.FileType_FILE_TYPE_JPEG, RequestID: replayedID}, bytes.NewReader([]byte("\xFF\xD8\xFFxxxx")))
			return err
		},
		"Download": func(ctx context.Context, c *lpfileshare.Client) error {
			s, err := c.Raw().Files.Download(ctx, &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: file}})
			return stream(err, func() error { _, err := s.Recv(); return err })
		},
		"GetUpload": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Files.GetUpload(ctx, &pb.GetUploadRequest{Name: accountPath + "/uploads/" + replayedID})
			return err
		},
		"StatFile": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Files.StatFile(ctx, &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file}})
			return err
		},
		"ListFiles": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: conv})
			return err
		},
		"WatchFiles": func(ctx context.Context, c *lpfileshare.Client) error {
			s, err := c.Raw().Files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: conv})
			return stream(err, func() error { _, err := s.Recv(); return err })
		},
		"GetCapabilities": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Files.GetCapabilities(ctx, &pb.GetCapabilitiesRequest{Account: accountPath})
			return err
		},
		"CreateConversation": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Conversations.CreateConversation(ctx, &pb.CreateConversationRequest{Account: accountPath})
			return err
		},
		"GetConversation": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Conversations.GetConversation(ctx, &pb.GetConversationRequest{Name: conv})
			return err
		},
		"ListConversations": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Conversations.ListConversations(ctx, &pb.ListConversationsRequest{Account: accountPath})
			return err
		},
		"CloseConversation": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Conversations.CloseConversation(ctx, &pb.CloseConversationRequest{Name: conv})
			return err
		},
		"GetFileSharing": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Accounts.GetFileSharing(ctx, &pb.GetFileSharingRequest{Account: accountPath})
			return err
		},
		"SetFileSharing": func(ctx context.Context, c *lpfileshare.Client) error {
			_, err := c.Raw().Accounts.SetFileSharing(ctx, &pb.SetFileSharingRequest{Account: accountPath, Enabled: new(false)})
			return err
		},
	}
}

const replayedID = "0d1f6c1e-51b5-4a41-8a3a-0a1f6a0f5d11"

func TestToken_ProvesNothingUntilLivePersonAcceptsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	conv := w.conversation(c.Client)
	data := photo(t, 5_000)
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RequestID: replayedID}, data)
	if w.sb.Sockets() == 0 {
		t.Fatal("the true session is not open")
	}
	before := w.sb.Journal()

	head, claims, _ := strings.Cut(c.token, ".")
	claims, sig, _ := strings.Cut(claims, ".")
	forged := head + "." + claims + "." + flip(sig)
	foreign := sandboxToken(t, sandbox.Options{OwnKey: true}) // validly signed, by another LivePerson
	for name, token := range map[string]string{
		"the same sub, wrong signature": forged,
		"the same sub, no signature":    head + "." + claims + ".",
		"another key":                   foreign,
		"no JWT":                        "sesame",
	} {
		for method, call := range identified(conv, file.GetName()) {
			t.Run(name+"/"+method, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				bad := c.As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(token)))
				wantReason(t, call(ctx, bad), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
			})
		}
	}
	for method, call := range identified(conv, file.GetName()) {
		t.Run("two identities/"+method, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			two, err := lpfileshare.Dial(w.grpc, lpfileshare.WithDialOptions(grpc.WithPerRPCCredentials(extraIdentity{})))
			if err != nil {
				t.Fatal(err)
			}
			defer two.Close()
			wantReason(t, call(ctx, two.As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(c.token)))), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		})
		t.Run("none/"+method, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			wantReason(t, call(ctx, w.dial()), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		})
	}
	after := w.sb.Journal()
	if len(after.Published) != len(before.Published) || len(after.Stored) != len(before.Stored) || len(after.Signed) != len(before.Signed) {
		t.Error("a refused token had an effect")
	}
	// The true one still works, and its upload is still remembered.
	resp, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RequestID: replayedID}, bytes.NewReader(data))
	if err != nil || !resp.GetReplayed() || resp.GetFile().GetName() != file.GetName() {
		t.Errorf("the repeat of the true caller: %v, %v", resp, err)
	}
}

// extraIdentity puts a second identity beside the one that the client helper puts.
type extraIdentity struct{}

func (extraIdentity) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"lp-external-consumer-id": "x"}, nil
}
func (extraIdentity) RequireTransportSecurity() bool { return false }

// flip changes a signature's first byte: its last character has bits that do not count.
func flip(sig string) string {
	if sig[0] == 'A' {
		return "B" + sig[1:]
	}
	return "A" + sig[1:]
}

// sandboxToken signs up at another sandbox.
func sandboxToken(t *testing.T, opts sandbox.Options) string {
	t.Helper()
	sb, err := sandbox.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	resp, err := http.Post(sb.URL()+"/api/account/"+account+"/signup", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var answer struct{ JWT string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.JWT == "" {
		t.Fatalf("sign-up: %v", err)
	}
	return answer.JWT
}

func TestToken_ExpiredIsRejectedThoughItsSessionIsOpen(t *testing.T) {
	t.Parallel()
	var c consumer
	var conv, file string
	var expires time.Time
	for lifetime := 2 * time.Second; ; lifetime *= 4 { // longer if the machine is too busy to upload before the token expires
		w := newWorld(t, sandbox.Options{TokenLifetime: lifetime})
		c = w.consumer()
		expires = time.Now().Add(lifetime + time.Second) // the sandbox rounds up to a second
		created, err := c.CreateConversation(t.Context(), &pb.CreateConversationRequest{Account: accountPath})
		if err == nil {
			conv = created.GetName()
			var resp *pb.UploadResponse
			resp, err = c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RequestID: replayedID}, bytes.NewReader(photo(t, 5_000)))
			file = resp.GetFile().GetName()
		}
		if err == nil {
			break
		}
		if lifetime > time.Minute {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, "the token expires", func() bool { return time.Now().After(expires.Add(lpwire.Leeway)) })
	for method, call := range identified(conv, file) {
		t.Run(method, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			wantReason(t, call(ctx, c.Client), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		})
	}
}

func TestToken_OfAnotherAccountIsNotAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{Accounts: []string{account, "87654321"}})
	c := w.consumer()
	_, err := c.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: "accounts/87654321"})
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	agent := w.agent("ann")
	_, err = agent.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: "accounts/87654321"})
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
}

func TestLog_HasNoSecret(t *testing.T) {
	t.Parallel()
	const password, appSecret, code = "pass-word-4711", "app-secret-0815", "auth-code-1234567890"
	w := newWorld(t, sandbox.Options{Password: password})
	c := w.consumer()
	conv := w.conversation(c.Client)
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", Caption: "captioned"}, photo(t, 5_000))
	// Sign-ins that work and sign-ins that do not.
	if _, err := c.Raw().Identity.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_AuthCode{AuthCode: code}}); err != nil {
		t.Error(err)
	}
	customer := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"an unknown customer","aud":"acc:1"}`)) + "."
	if _, err := c.Raw().Identity.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_CustomerJwt{CustomerJwt: customer}}); err == nil {
		t.Log("the sandbox takes an unsigned customer's JWT")
	}
	for _, secret := range []string{password, "wrong-" + appSecret} {
		keys := &pb.BotKeys{Username: "bot", AppKey: "key-" + appSecret, Secret: secret, AccessToken: "at-" + appSecret, AccessTokenSecret: "ats-" + appSecret}
		_, _ = c.Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{Account: accountPath, Credentials: &pb.SignInAgentRequest_BotKeys{BotKeys: keys}})
	}
	w.download(c.Client, file.GetName())
	anonymous, err := c.Raw().Identity.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{
		Account: accountPath, Grant: &pb.SignInConsumerRequest_Anonymous{Anonymous: &pb.AnonymousSignIn{ConnectorId: "4711"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := c.Raw().Identity.RenewConsumer(t.Context(), &pb.RenewConsumerRequest{Account: accountPath, RenewalSecret: anonymous.GetRenewalSecret()})
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account:     accountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: password}},
	})
	if err != nil {
		t.Fatal(err)
	}
	agent := c.As(lpfileshare.AgentToken(lpfileshare.StaticToken(in.GetAgentToken())))
	if _, err := agent.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath}); err != nil {
		t.Fatal(err)
	}
	// Faults at every step, because errors can contain secrets.
	for _, f := range []sandbox.Fault{
		{On: "store:PUT", Drop: true, Count: 1}, {On: "store:PUT", Status: 503, Count: 1}, {On: "store:PUT", Expire: true, Count: 1},
		{On: "store:GET", CutAfter: 100, Count: 2}, {On: "ws:upgrade", Drop: true, Count: 1},
	} {
		w.sb.Inject(f)
	}
	w.sb.DropSockets(0)
	again := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "b.jpg"}, photo(t, 6_000))
	w.download(c.Client, again.GetName())
	w.sb.Inject(sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 500, Count: 20})
	_, err = c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "c.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 4_000)))
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)
	w.stop()

	logs := w.logs.String()
	secrets := map[string]string{
		"the consumer's token": c.token, "an anonymous token": anonymous.GetConsumerToken(), "a renewal secret": anonymous.GetRenewalSecret(),
		"a renewed token": renewed.GetConsumerToken(), "the next renewal secret": renewed.GetRenewalSecret(),
		"an agent's token": in.GetAgentToken(), "a password": password, "a bot's key": appSecret, "an auth code": code, "a customer's JWT": customer,
		"a signature's name": "temp_url_sig", "a socket's path": "/ws_api/", "a scheme word": "jwt e",
	}
	if bearer := regexp.MustCompile(`\b[0-9a-f]{64}\b`).FindString(logs); bearer != "" {
		t.Errorf("what looks like a bearer is in the logs: %s", bearer)
	}
	for what, secret := range secrets {
		if contains(logs, secret) {
			t.Errorf("%s is in the logs", what)
		}
		// The end of a secret is secret too: it has the signature of a JWT.
		if len(secret) > 60 && contains(logs, secret[len(secret)-40:]) {
			t.Errorf("the end of %s is in the logs", what)
		}
	}
	if !contains(logs, "debug") && !contains(logs, "DEBUG") {
		t.Error("the logs are not at debug level, so they show nothing")
	}
}

func TestAgentToken_IsTheServersOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{AutoAssign: true})
	in, err := w.dial().Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account:     accountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: "sandbox"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) error {
		agent := w.dial().As(lpfileshare.AgentToken(lpfileshare.StaticToken(token)))
		_, err := agent.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
		return err
	}
	if err := ask(in.GetAgentToken()); err != nil {
		t.Error(err)
	}
	// A grant that the server has not sealed is rejected, although its bearer is valid.
	var login struct {
		Bearer string
		Config struct{ UserID string }
	}
	resp, err := http.Post(w.sb.URL()+"/api/account/"+account+"/login?v=1.3", "application/json", strings.NewReader(`{"username":"ann","password":"sandbox"}`))
	if err != nil {
		t.Fatal(err)
	}
	err = json.NewDecoder(resp.Body).Decode(&login)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil || login.Bearer == "" || login.Config.UserID == "" {
		t.Fatalf("the login gave %v, %v", login, err)
	}
	written := share.AgentGrant{Account: account, UserID: login.Config.UserID, UserPID: "another agent", Bearer: login.Bearer}
	wantReason(t, ask(written.Token()), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	wantReason(t, ask(flip(in.GetAgentToken())), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	// Another server with another key does not know it; with the same key it does.
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5f", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start("--agent-token-key=" + key)
	wantReason(t, ask(in.GetAgentToken()), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	again, err := w.dial().Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account:     accountPath,
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: "sandbox"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start("--agent-token-key=" + key)
	if err := ask(again.GetAgentToken()); err != nil {
		t.Errorf("a server with the same key: %v", err)
	}
}
