package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func (g *gateway) Upload(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error {
	agent, err := g.authenticate(s.Context())
	if err != nil {
		return err
	}
	if g.upload != nil {
		return g.upload(s)
	}
	m, err := s.Recv()
	if err != nil {
		return err
	}
	spec := m.GetSpec()
	g.mu.Lock()
	g.specs = append(g.specs, spec)
	g.mu.Unlock()
	if spec.GetValidateOnly() {
		return s.SendAndClose(&pb.UploadResponse{RequestId: spec.GetRequestId()})
	}
	if spec.GetSizeBytes() > 3_000_000 {
		return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
	}
	if err := s.SendHeader(metadata.Pairs("lpfs-request-id", spec.GetRequestId())); err != nil {
		return err
	}
	var data []byte
	for m.GetFinish() == nil {
		if m, err = s.Recv(); err != nil {
			return err
		}
		data = append(data, m.GetChunk().GetData()...)
	}
	return s.SendAndClose(&pb.UploadResponse{RequestId: spec.GetRequestId(), File: g.keep(spec, data, agent), Image: g.image})
}

// keep stores a file and sends it to the watches.
func (g *gateway) keep(spec *pb.UploadSpec, data []byte, agent bool) *pb.File {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.files)
	sum := md5.Sum(data)
	f := &pb.File{
		Name: fmt.Sprintf("%s/files/f%d", spec.GetConversation(), n), FileType: spec.GetFileType(), Caption: spec.GetCaption(),
		StoragePath: fmt.Sprintf("/v1/AUTH_async_images/12345678/%d.jpg", n), DisplayName: spec.GetDisplayName(),
		Etag: hex.EncodeToString(sum[:]), MessageSequence: new(int64(n)), SenderRole: pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER,
		CreateTime: timestamppb.Now(), StoredSizeBytes: new(int64(len(data))),
	}
	if spec.GetPreview().GetGenerate() {
		f.PreviewDataUri = "data:image/jpeg;base64,AAAA"
	}
	if agent {
		f.SenderRole = pb.ParticipantRole_PARTICIPANT_ROLE_ASSIGNED_AGENT
	}
	g.files = append(g.files, f)
	g.data[f.GetName()] = data
	close(g.changed)
	g.changed = make(chan struct{})
	return proto.CloneOf(f)
}

func (g *gateway) file(ctx context.Context, name string) (*pb.File, []byte, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.files {
		if f.GetName() == name {
			return f, bytes.Clone(g.data[name]), nil
		}
	}
	return nil, nil, failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
}

func (g *gateway) StatFile(ctx context.Context, r *pb.StatFileRequest) (*pb.StatFileResponse, error) {
	f, _, err := g.file(ctx, r.GetName())
	return &pb.StatFileResponse{File: f}, err
}

func (g *gateway) Download(r *pb.DownloadRequest, s grpc.ServerStreamingServer[pb.DownloadResponse]) error {
	f, data, err := g.file(s.Context(), r.GetName())
	if err != nil {
		return err
	}
	if g.corrupt {
		data[len(data)-1] ^= 1
	}
	total := int64(len(data))
	data = data[r.GetReadOffset():]
	if err := s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Header{Header: &pb.DownloadHeader{
		File: f, ContentRange: &pb.ContentRange{StartBytes: r.GetReadOffset(), EndBytes: total, TotalBytes: total},
	}}}); err != nil {
		return err
	}
	for at := 0; at < len(data); at += 1000 {
		part := data[at:min(at+1000, len(data))]
		if err := s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: &pb.DataChunk{
			Offset: r.GetReadOffset() + int64(at), Data: part, Crc32C: new(crc32.Checksum(part, castagnoli)),
		}}}); err != nil {
			return err
		}
		if g.onDownload != nil {
			g.onDownload()
			<-s.Context().Done()
			return s.Context().Err()
		}
		if g.breakDownload != nil {
			return g.breakDownload
		}
	}
	return s.Send(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Trailer{Trailer: &pb.DownloadTrailer{
		SentBytes: int64(len(data)), SentChecksums: &pb.Checksums{Crc32C: new(crc32.Checksum(data, castagnoli))},
	}}})
}

func (g *gateway) ListFiles(ctx context.Context, r *pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	resp := &pb.ListFilesResponse{WatchToken: fmt.Sprint(len(g.files)), UnreadableConversations: g.unreadable}
	files := slices.Clone(g.files)
	if r.GetNewestFirst() {
		slices.Reverse(files)
	}
	for _, f := range files {
		if belongs(f, r.GetParent()) {
			f = proto.CloneOf(f)
			f.StoredSizeBytes = nil // as LivePerson's messages have no sizes
			resp.Files = append(resp.Files, f)
		}
	}
	return resp, nil
}

func belongs(f *pb.File, parent string) bool {
	return strings.HasPrefix(f.GetName(), parent+"/") || path.Base(parent) == "-"
}

func (g *gateway) WatchFiles(r *pb.WatchFilesRequest, s grpc.ServerStreamingServer[pb.WatchFilesResponse]) error {
	if _, err := g.authenticate(s.Context()); err != nil {
		return err
	}
	at := 0
	fmt.Sscan(r.GetResumeToken(), &at)
	first := &pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_Heartbeat{}, ResumeToken: fmt.Sprint(at)}
	if err := s.Send(first); err != nil {
		return err
	}
	for _, u := range g.unreadable {
		m := &pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_UnreadableConversation{UnreadableConversation: u}, ResumeToken: fmt.Sprint(at)}
		if err := s.Send(m); err != nil {
			return err
		}
	}
	if g.onWatch != nil {
		if err := g.onWatch(); err != nil {
			return err
		}
	}
	for {
		g.mu.Lock()
		news, changed := g.files[at:], g.changed
		g.mu.Unlock()
		for _, f := range news {
			at++
			if belongs(f, r.GetParent()) {
				m := &pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_File{File: f}, ResumeToken: fmt.Sprint(at)}
				if err := s.Send(m); err != nil {
					return err
				}
			}
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (g *gateway) GetUpload(ctx context.Context, r *pb.GetUploadRequest) (*pb.GetUploadResponse, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, err
	}
	if g.state != nil {
		return &pb.GetUploadResponse{Upload: g.state}, nil
	}
	return &pb.GetUploadResponse{Upload: &pb.Upload{
		RequestId: path.Base(r.GetName()), State: pb.UploadState_UPLOAD_STATE_PUBLISHED, File: &pb.File{Name: "accounts/1/conversations/c/files/f"},
	}}, nil
}

func (g *gateway) PublishUpload(ctx context.Context, r *pb.PublishUploadRequest) (*pb.PublishUploadResponse, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, err
	}
	if r.GetName() != "accounts/12345678/uploads/6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7" {
		return nil, failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
	}
	return &pb.PublishUploadResponse{File: &pb.File{Name: "accounts/12345678/conversations/c1/files/f"}}, nil
}
