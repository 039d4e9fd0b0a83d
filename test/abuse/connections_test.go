package abuse

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A stalled connection grants its streams no window, so their answers stay in the server.
type stalled struct {
	net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	pack   *hpack.Encoder
	next   uint32
}

// dialStalled connects. What the server sends is read and ignored, except that settings and pings are acknowledged by nobody.
func dialStalled(ctx context.Context, addr string) (*stalled, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &stalled{Conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	c.pack = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go io.Copy(io.Discard, conn) // ends with the connection
	return c, nil
}

// call begins a call with one request.
func (c *stalled) call(method, token string, request proto.Message) error {
	body, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	c.block.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"}, {"content-type", "application/grpc"},
		{"te", "trailers"}, {"lp-consumer-token", token},
	} {
		if err := c.pack.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	id := c.next
	c.next += 2
	err = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true})
	if err == nil {
		err = c.framer.WriteData(id, true, append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...))
	}
	return err
}

// published uploads a file and returns its name.
func published(ctx context.Context, c harness.Consumer, size int) (string, error) {
	resp, err := c.UploadBytes(ctx, lpfileshare.UploadOptions{Conversation: c.Conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT}, text(size))
	if err != nil {
		return "", err
	}
	return resp.GetFile().GetName(), nil
}

// downloads returns downloads of a file of a consumer of its own.
func downloads(size int) func(s *server) func(ctx context.Context) error {
	return func(s *server) func(ctx context.Context) error {
		c := s.Consumer(s.t)
		name, err := published(s.t.Context(), c, size)
		if err != nil {
			s.t.Fatal(err)
		}
		return func(ctx context.Context) error {
			_, err := c.Download(ctx, lpfileshare.DownloadOptions{Name: name, RetryFor: -1}, io.Discard)
			return err
		}
	}
}

// stalledDownloads has consumers begin 256 downloads each, and read none of them.
func stalledDownloads(consumers int) func(ctx context.Context, s *server) {
	return func(ctx context.Context, s *server) {
		for range consumers {
			c := s.Consumer(s.t)
			name, err := published(ctx, c, 3_000_000)
			if err != nil {
				s.t.Errorf("the attacker's own upload: %v", err)
				return
			}
			var conn *stalled
			for i := range 256 {
				if i%128 == 0 {
					if conn, err = dialStalled(ctx, s.Addr); err != nil {
						s.t.Error(err)
						return
					}
					defer conn.Close()
				}
				if err := conn.call(pb.FileSharingService_Download_FullMethodName, c.Token, &pb.DownloadRequest{
					Source: &pb.DownloadRequest_Name{Name: name}, MaxChunkBytes: 1 << 20,
				}); err != nil {
					s.t.Error(err)
					return
				}
			}
		}
		<-ctx.Done()
	}
}

// manyDownloads has one consumer download a file 250 times at once, again and again.
func manyDownloads(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	name, err := published(ctx, c, 3_000_000)
	if err != nil {
		s.t.Errorf("the attacker's own upload: %v", err)
		return
	}
	s.attackElsewhere(ctx, "downloads", c.Token, name)
}

// manyUploads has one consumer upload 64 files at once, again and again.
func manyUploads(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	s.attackElsewhere(ctx, "uploads", c.Token, c.Conversation)
}

// idleConnections keeps more connections than the server accepts by default. They speak HTTP/2 and make no call.
func idleConnections(ctx context.Context, s *server) {
	for range 4196 {
		c, err := dialStalled(ctx, s.Addr)
		if err != nil {
			if ctx.Err() == nil {
				s.t.Error(err)
			}
			break
		}
		defer c.Close()
	}
	<-ctx.Done()
}

// newConnections returns a health check and a list over a connection of their own.
func newConnections(s *server) func(ctx context.Context) error {
	consumer := s.Consumer(s.t)
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		c, err := lpfileshare.Dial(s.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		status, err := c.Health(ctx, "")
		if err != nil {
			return err
		}
		if status != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("the server is %v", status)
		}
		return list(ctx, c.As(consumer.Credential()))
	}
}

const secret = sandbox.DefaultAppSecret

// connectorAccount makes the account one of the Connector API whose webhooks the server receives.
func connectorAccount(t *testing.T, _ *sandbox.Sandbox) []string {
	return append(connectorFlags(t, true), "--webhook-listen=127.0.0.1:0")
}

func connectorFlags(t *testing.T, webhooks bool) []string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "accounts.yaml")
	text := fmt.Sprintf("accounts:\n  %q:\n    messenger: connector\n    app: {id: %s, secret_file: secret, webhooks: %t}\n", account, sandbox.DefaultAppID, webhooks)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--accounts=" + file}
}

// external returns a consumer that the server signs in, with a conversation.
func (s *server) external(id string) harness.Consumer {
	s.t.Helper()
	c := harness.Consumer{ID: id, Client: s.connect().As(lpfileshare.ExternalConsumerID(id))}
	var err error
	if c.Conversation, err = harness.Open(s.t.Context(), c.Client, account); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// oldFile returns look-ups of a file that a consumer of the Connector API uploaded before the attack.
func oldFile(s *server) func(ctx context.Context) error {
	c := s.external("honest")
	name, err := published(s.t.Context(), c, 3000)
	if err != nil {
		s.t.Fatal(err)
	}
	return func(ctx context.Context) error {
		_, err := c.Stat(ctx, name)
		return err
	}
}

// fillEventLog has another consumer of the Connector API publish pictures with the longest previews.
func fillEventLog(ctx context.Context, s *server) {
	c := s.external("greedy")
	atOnce(ctx, 8, func(ctx context.Context, _ int) { _ = picture(ctx, c.Client, c.Conversation, preview) })
}

// deliveries returns deliveries of webhooks, each over a connection of its own, as they arrive from many machines.
func deliveries(s *server) func(ctx context.Context) error {
	var sequence atomic.Int64
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	return func(ctx context.Context) error {
		n := sequence.Add(1)
		body, err := json.Marshal(map[string]any{"kind": "notification", "type": "ms.MessagingEventNotification", "body": map[string]any{"changes": []any{map[string]any{
			"sequence": n, "originatorId": "agent", "originatorMetadata": map[string]any{"id": "agent", "role": "ASSIGNED_AGENT"},
			"serverTimestamp": time.Now().UnixMilli(), "conversationId": "conversation", "dialogId": "conversation",
			"event": map[string]any{"type": "ContentEvent", "contentType": "text/plain", "message": "hello"},
		}}}})
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		return post(ctx, client, s.Webhooks, body, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
}

func post(ctx context.Context, client *http.Client, url string, body []byte, signature string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+url+"/webhooks", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("x-liveperson-account-id", account)
	req.Header.Set("x-liveperson-client-id", sandbox.DefaultAppID)
	req.Header.Set("x-liveperson-signature", "sha256="+signature)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// slowBodies keeps 300 deliveries whose bodies arrive byte by byte.
func slowBodies(ctx context.Context, s *server) {
	atOnce(ctx, 300, func(ctx context.Context, _ int) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Webhooks)
		if err != nil {
			wait(ctx, 100*time.Millisecond)
			return
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		_, err = fmt.Fprintf(conn, "POST /webhooks HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\nx-liveperson-account-id: %s\r\n"+
			"x-liveperson-client-id: %s\r\nx-liveperson-signature: sha256=%s\r\n\r\n", account, sandbox.DefaultAppID, base64.StdEncoding.EncodeToString(make([]byte, 32)))
		for err == nil {
			_, err = conn.Write([]byte{' '})
			wait(ctx, 100*time.Millisecond)
		}
	})
}

// resets begins 1,000 uploads a second on one connection, without an identity, and resets half of them at once.
func resets(ctx context.Context, s *server) {
	c := s.connect()
	atRate(ctx, 1000, func(ctx context.Context, i int) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := as(c, "garbage").Raw().Files.Upload(ctx)
		if err == nil {
			_ = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: textSpec("accounts/none/conversations/none")}})
			if i%2 == 0 {
				_, _ = stream.CloseAndRecv()
			}
		}
		cancel()
	})
}

// checkLogVolume fails if the server has logged more than 100 KB for each second of the attack.
func checkLogVolume(s *server) {
	const most = 100_000
	logged := len(s.Logs.String())
	if perSecond := logged / int(attackTime.Seconds()); perSecond > most {
		s.t.Errorf("%d bytes were logged for each second", perSecond)
	}
}

var connections = []row{
	{name: "250 downloads at once of one caller", honest: downloads(3000), attack: manyDownloads, busy: true},
	{
		name: "64 uploads at once of one caller", honest: uploads(3000), attack: manyUploads, busy: true,
		unjudged: "most steps of an upload have no turns",
	},
	{name: "256 downloads of one caller who reads nothing", honest: downloads(3000), attack: stalledDownloads(1)},
	{name: "256 downloads of each of 4 callers who read nothing", honest: downloads(3000), attack: stalledDownloads(4)},
	{name: "4,196 idle connections, beside new ones", honest: newConnections, attack: idleConnections},
	{
		name: "an event log of 8 MiB, filled by one consumer", flags: []string{"--event-bytes=8MiB"},
		prepare: func(t *testing.T, _ *sandbox.Sandbox) []string { return connectorFlags(t, false) }, honest: oldFile, attack: fillEventLog,
	},
	{name: "300 slow bodies of webhooks", prepare: connectorAccount, honest: deliveries, attack: slowBodies},
	{name: "1,000 uploads/s that are reset or have no identity", honest: uploads(3000), attack: resets, check: checkLogVolume},
}

func TestConnections(t *testing.T) {
	for _, r := range connections {
		t.Run(r.name, r.run)
	}
}

// unfinished keeps n streams whose messages never end, and returns when the connection ends.
func (c *stalled) unfinished(ctx context.Context, n int) {
	const claimed = 5 << 20
	chunk := make([]byte, 16<<10)
	head := binary.BigEndian.AppendUint32([]byte{0}, claimed)
	for sent := 0; ; sent += len(chunk) {
		for i := range n {
			id := uint32(2*i + 1)
			if sent == 0 {
				c.block.Reset()
				for _, h := range [][2]string{
					{":method", "POST"}, {":scheme", "http"}, {":path", pb.FileSharingService_Upload_FullMethodName}, {":authority", "localhost"},
					{"content-type", "application/grpc"}, {"te", "trailers"},
				} {
					if c.pack.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}) != nil {
						return
					}
				}
				if c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}) != nil ||
					c.framer.WriteData(id, false, head) != nil {
					return
				}
			}
			if sent >= 1<<20-64<<10 { // the stream's window
				continue
			}
			if c.framer.WriteData(id, false, chunk) != nil {
				return
			}
		}
		if sent >= 1<<20 {
			wait(ctx, time.Second) // what was sent stays; the server ends the streams or the connection
			return
		}
	}
}
