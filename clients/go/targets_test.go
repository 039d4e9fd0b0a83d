package lpfileshare_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// The first server of an upload stops in the middle of it, and so does the second.
func TestTargets_UploadRepeatsOnNextServer(t *testing.T) {
	var mu sync.Mutex
	var ids, servers []string
	var list []string
	for range 3 {
		f, stops := &fake{}, make(chan func(), 1)
		f.upload = func(_ int, s uploadStream) error {
			r, err := receiveSpec(s)
			if err != nil {
				return err
			}
			mu.Lock()
			ids, servers = append(ids, r.spec.GetRequestId()), append(servers, f.addr)
			nth := len(ids)
			mu.Unlock()
			if nth < 3 { // stop this server, and end this call
				go (<-stops)()
				<-s.Context().Done()
				return nil
			}
			for err == nil && r.finish == nil {
				err = r.next(s)
			}
			if err != nil {
				return err
			}
			return s.SendAndClose(&pb.UploadResponse{RequestId: r.spec.GetRequestId()})
		}
		stop, err := f.listen(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		stops <- stop
		list = append(list, f.addr)
	}
	c, err := lpfileshare.Dial(strings.Join(list, ", "))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Connect(testContext(t)); err != nil {
		t.Error(err)
	}
	if _, err := c.Health(testContext(t), ""); err != nil {
		t.Error(err)
	}
	o := lpfileshare.UploadOptions{Conversation: "accounts/1/conversations/c", FileType: pb.FileType_FILE_TYPE_TXT}
	if _, err := c.Upload(testContext(t), o, bytes.NewReader(make([]byte, 200_000))); err != nil {
		t.Fatal(err)
	}
	if len(slices.Compact(slices.Sorted(slices.Values(servers)))) != 3 || len(ids) != 3 || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("tried the servers %v with the request ids %v", servers, ids)
	}
}

func TestTargets_SkipUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	web := httptest.NewTLSServer(nil) // for its certificate, which is valid for 127.0.0.1
	defer web.Close()
	f := &fake{stat: func(context.Context, int) (*pb.StatFileResponse, error) { return &pb.StatFileResponse{}, nil }}
	stop, err := f.listen(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	config := web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = ""
	c, err := lpfileshare.Dial(closed.Addr().String()+","+f.addr, lpfileshare.WithTLS(config))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 {
		if _, err := c.Raw().Files.StatFile(testContext(t), &pb.StatFileRequest{}); err != nil {
			t.Error(err)
		}
	}
}

func TestTargets_Validate(t *testing.T) {
	for _, target := range []string{",", "a:1,", "a:1,,b:1", "dns:///a:1,b:1", "unix:/run/a.sock,b:1", ":1,b:1"} {
		if c, err := lpfileshare.Dial(target); err == nil {
			c.Close()
			t.Errorf("%q was accepted", target)
		}
	}
	for _, target := range []string{"a:1,b:2", "a,b", "[::1]:1,::1"} {
		c, err := lpfileshare.Dial(target)
		if err != nil {
			t.Errorf("%q: %v", target, err)
			continue
		}
		c.Close()
	}
}
