// Package naive is the gateway that a programmer writes first: the standard codec, an io.Pipe into an http.Client on the way up, and
// io.ReadFull from its body on the way down. It is the yardstick of the benchmarks, so it must not be improved.
//
// It checks no identity and stores files under paths that it invents, unless it is given LivePerson's URL: then it makes the
// requests of commit addc3e6 for each file, and as many uses of a ledger.
package naive

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// downloadChunk is the size of the chunks of a download, which is the server's default too.
const downloadChunk = 256 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// gateway implements what the generator calls.
type gateway struct {
	pb.UnimplementedFileSharingServiceServer
	pb.UnimplementedConversationServiceServer
	store string // scheme, host and port
	sums  bool
	http  *http.Client
	work  *work // nil: no LivePerson and no ledger
}

// Run serves a naive gateway until it is killed.
func Run(args []string) error {
	set := flag.NewFlagSet("naive", flag.ContinueOnError)
	store := set.String("store", "", "URL of the store")
	sums := set.Bool("sums", false, "compute the server's default sums: up MD5 and CRC-32C, down CRC-32C")
	liveperson := set.String("liveperson", "", "URL of LivePerson's stand-in; default: none, and no ledger")
	cert := set.String("tls-cert", "", "PEM file of the certificate; default: no TLS")
	key := set.String("tls-key", "", "PEM file of its key")
	if err := set.Parse(args); err != nil {
		return err
	}
	g := &gateway{store: *store, sums: *sums, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}}}
	if *liveperson != "" {
		var err error
		if g.work, err = newWork(*liveperson); err != nil {
			return err
		}
	}
	var opts []grpc.ServerOption
	if *cert != "" {
		secure, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			return err
		}
		opts = append(opts, grpc.Creds(secure))
	}
	s := grpc.NewServer(opts...)
	pb.RegisterFileSharingServiceServer(s, g)
	pb.RegisterConversationServiceServer(s, g)
	return serve(s)
}

// serve serves on free ports, with expvar on one of its own.
func serve(s *grpc.Server) error {
	debug, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(debug, expvar.Handler()) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "ready addr=%s debug=%s\n", l.Addr(), debug.Addr())
	return s.Serve(l)
}

// caller returns the caller's session with LivePerson, or nil.
func (g *gateway) caller(ctx context.Context) (*session, error) {
	if g.work == nil {
		return nil, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return g.work.session(strings.Join(md.Get("lp-consumer-token"), ""))
}

func (g *gateway) CreateConversation(ctx context.Context, req *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
	id := "none"
	caller, err := g.caller(ctx)
	if err == nil && caller != nil {
		id, err = caller.converse()
	}
	return &pb.CreateConversationResponse{Conversation: &pb.Conversation{Name: req.GetAccount() + "/conversations/" + id}}, err
}

func (g *gateway) Upload(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	spec := first.GetSpec()
	caller, err := g.caller(stream.Context())
	if err != nil {
		return err
	}
	var record *record
	target := "/v1/AUTH_async-images/12345678/" + uuid.NewString() + ".pdf"
	if caller != nil {
		if record, err = g.work.claim(spec.GetRequestId()); err != nil {
			return err
		}
		if target, err = caller.uploadURL(spec.GetSizeBytes()); err != nil {
			return err
		}
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	etag, err := g.put(stream, target, spec)
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(target, "?")
	if caller != nil {
		if err := g.publish(caller, record, spec.GetConversation(), path); err != nil {
			return err
		}
	}
	return stream.SendAndClose(&pb.UploadResponse{RequestId: spec.GetRequestId(), File: &pb.File{
		Name: spec.GetConversation() + "/files/" + hex.EncodeToString([]byte(path)), StoragePath: path, Etag: etag,
		FileType: spec.GetFileType(), DisplayName: spec.GetDisplayName(), StoredSizeBytes: spec.SizeBytes,
	}})
}

// publish saves the states between which a server may stop, and publishes.
func (g *gateway) publish(caller *session, record *record, conversation, path string) error {
	for _, state := range []string{"stored", "publishing"} {
		if err := g.work.save(record, state, path); err != nil {
			return err
		}
	}
	if err := caller.publish(conversation[strings.LastIndexByte(conversation, '/')+1:], path); err != nil {
		return err
	}
	return g.work.save(record, "published", path)
}

// put stores what arrives and returns the ETag.
func (g *gateway) put(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse], target string, spec *pb.UploadSpec) (string, error) {
	body, to := io.Pipe()
	req, err := http.NewRequestWithContext(stream.Context(), http.MethodPut, g.store+target, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = spec.GetSizeBytes()
	req.Header.Set("Content-Type", "application/pdf")
	etag, failed := "", make(chan error, 1)
	go func() {
		resp, err := g.http.Do(req)
		if err == nil {
			if resp.Body.Close(); resp.StatusCode != http.StatusCreated {
				err = errors.New(resp.Status)
			}
			etag = resp.Header.Get("Etag")
		}
		body.CloseWithError(err)
		failed <- err
	}()
	sums := g.newSums()
	err = receive(stream, to, sums)
	to.CloseWithError(err)
	if stored := <-failed; stored != nil {
		return "", stored
	}
	if err == nil && sums != nil {
		err = sums.check(spec, etag)
	}
	return etag, err
}

// receive writes the chunks to the store until the finish.
func receive(stream grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse], to io.Writer, sums *sums) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetFinish() != nil {
			return nil
		}
		if sums != nil {
			if err := sums.add(m.GetChunk()); err != nil {
				return err
			}
		}
		if _, err := to.Write(m.GetChunk().GetData()); err != nil {
			return err
		}
	}
}

// sums are the server's default sums of an upload.
type sums struct {
	md5, crc32c hash.Hash
}

func (g *gateway) newSums() *sums {
	if !g.sums {
		return nil
	}
	return &sums{md5.New(), crc32.New(castagnoli)}
}

func (s *sums) add(chunk *pb.DataChunk) error {
	if chunk.Crc32C != nil && crc32.Checksum(chunk.GetData(), castagnoli) != chunk.GetCrc32C() {
		return errors.New("the CRC-32C of a chunk is wrong")
	}
	s.md5.Write(chunk.GetData())
	s.crc32c.Write(chunk.GetData())
	return nil
}

func (s *sums) check(spec *pb.UploadSpec, etag string) error {
	if etag != hex.EncodeToString(s.md5.Sum(nil)) {
		return errors.New("the store's ETag is wrong")
	}
	if want := spec.GetChecksums(); want != nil && want.Crc32C != nil && fmt.Sprintf("%08x", want.GetCrc32C()) != hex.EncodeToString(s.crc32c.Sum(nil)) {
		return errors.New("the CRC-32C of the file is wrong")
	}
	return nil
}

func (g *gateway) Download(req *pb.DownloadRequest, stream grpc.ServerStreamingServer[pb.DownloadResponse]) error {
	name := req.GetName()
	path, err := hex.DecodeString(name[strings.LastIndexByte(name, '/')+1:])
	if err != nil {
		return err
	}
	target := string(path)
	caller, err := g.caller(stream.Context())
	if err == nil && caller != nil {
		target, err = caller.downloadURL(target)
	}
	if err != nil {
		return err
	}
	get, err := http.NewRequestWithContext(stream.Context(), http.MethodGet, g.store+target, nil)
	if err != nil {
		return err
	}
	resp, err := g.http.Do(get)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	header := &pb.DownloadHeader{
		File:         &pb.File{Name: name, StoragePath: string(path), Etag: resp.Header.Get("Etag"), StoredSizeBytes: &resp.ContentLength},
		ContentRange: &pb.ContentRange{EndBytes: resp.ContentLength, TotalBytes: resp.ContentLength},
	}
	if err := stream.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Header{Header: header}}); err != nil {
		return err
	}
	return g.send(stream, resp.Body)
}

// send sends the chunks and the trailer.
func (g *gateway) send(stream grpc.ServerStreamingServer[pb.DownloadResponse], body io.Reader) error {
	buf := make([]byte, downloadChunk)
	trailer := &pb.DownloadTrailer{}
	file := crc32.New(castagnoli)
	for {
		n, err := io.ReadFull(body, buf)
		if n > 0 {
			chunk := &pb.DataChunk{Offset: trailer.SentBytes, Data: buf[:n]}
			if g.sums {
				chunk.Crc32C = proto.Uint32(crc32.Checksum(buf[:n], castagnoli))
				file.Write(buf[:n])
			}
			if err := stream.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: chunk}}); err != nil {
				return err
			}
			trailer.SentBytes += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if g.sums {
		trailer.SentChecksums = &pb.Checksums{Crc32C: proto.Uint32(file.Sum32())}
	}
	return stream.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Trailer{Trailer: trailer}})
}
