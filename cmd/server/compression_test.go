package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// TestCompression_Refused sends gzip messages by HTTP/2 alone: a gRPC client that can compress registers gzip for the whole process,
// and so for the server of this test.
func TestCompression_Refused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	client := plaintextHTTP2(t)
	for name, test := range map[string]struct {
		method  string
		request proto.Message
		want    codes.Code // if it is not compressed: the call has no identity, and the upload no spec
	}{
		"unary":     {pb.FileSharingService_GetCapabilities_FullMethodName, &pb.GetCapabilitiesRequest{Account: accountPath}, codes.Unauthenticated},
		"streaming": {pb.FileSharingService_Upload_FullMethodName, &pb.UploadRequest{Finish: &pb.UploadFinish{}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			message, err := proto.Marshal(test.request)
			if err != nil {
				t.Fatal(err)
			}
			if code, details := rawCall(t, client, w.grpc, test.method, "identity", grpcFrame(0, message)); code != test.want || !details {
				t.Errorf("not compressed: %v, details %t, want %v with details", code, details, test.want)
			}
			var zipped bytes.Buffer
			z := gzip.NewWriter(&zipped)
			if _, err := z.Write(message); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if code, details := rawCall(t, client, w.grpc, test.method, "gzip", grpcFrame(1, zipped.Bytes())); code != codes.Unimplemented || details {
				t.Errorf("gzip: %v, details %t, want %v without details", code, details, codes.Unimplemented)
			}
		})
	}
}

func plaintextHTTP2(t *testing.T) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// grpcFrame is a message as gRPC sends it: a byte that says whether it is compressed, its length, its bytes.
func grpcFrame(compressed byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message))), message...)
}

// rawCall makes a gRPC call of one message and returns its code, and whether its status has details.
func rawCall(t *testing.T, client *http.Client, addr, method, encoding string, body []byte) (code codes.Code, details bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Grpc-Encoding", encoding)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	status := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" { // a response of trailers only
		status = resp.Header
	}
	n, err := strconv.ParseUint(status.Get("Grpc-Status"), 10, 32)
	if err != nil {
		t.Fatalf("the response has no status: %v", err)
	}
	return codes.Code(n), status.Get("Grpc-Status-Details-Bin") != ""
}
