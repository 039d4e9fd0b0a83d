package service

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// MaxSmallFileBytes is the largest file that UploadSmallFile accepts. With the largest spec it fits in MaxRecvMessageBytes.
const MaxSmallFileBytes = 5_000_000

// UploadSmallFile is the contract's UploadSmallFile: an Upload whose three messages arrive as one.
func (s *Server) UploadSmallFile(ctx context.Context, req *lpfilesharev1.UploadSmallFileRequest) (*lpfilesharev1.UploadSmallFileResponse, error) {
	call := &oneMessageUpload{ctx: ctx, req: &lpfilesharev1.UploadRequest{
		FirstMessage: &lpfilesharev1.UploadRequest_Spec{Spec: req.GetSpec()},
		Finish:       &lpfilesharev1.UploadFinish{},
	}}
	if req.GetSpec() == nil {
		var v violations
		v.add("spec", "is required")
		return nil, v.err()
	}
	if len(req.GetData()) > 0 {
		call.req.Chunk = &lpfilesharev1.DataChunk{Data: req.GetData()}
	}
	if err := s.upload(call, uploadLimits{chunk: MaxSmallFileBytes, file: MaxSmallFileBytes}); err != nil {
		return nil, err
	}
	return &lpfilesharev1.UploadSmallFileResponse{Result: call.resp}, nil
}

// A oneMessageUpload lets a unary call use the upload path of the streaming one.
type oneMessageUpload struct {
	ctx  context.Context
	req  *lpfilesharev1.UploadRequest // nil once it was received
	resp *lpfilesharev1.UploadResponse
}

func (u *oneMessageUpload) Context() context.Context { return u.ctx }

func (u *oneMessageUpload) Recv() (*lpfilesharev1.UploadRequest, error) {
	req := u.req
	if req == nil {
		return nil, io.EOF
	}
	u.req = nil
	return req, nil
}

func (u *oneMessageUpload) SetHeader(md metadata.MD) error { return grpc.SetHeader(u.ctx, md) }

// SendHeader delays the header to the response: the client of a unary call waits for nothing else.
func (u *oneMessageUpload) SendHeader(md metadata.MD) error { return grpc.SetHeader(u.ctx, md) }

func (u *oneMessageUpload) SendAndClose(resp *lpfilesharev1.UploadResponse) error {
	u.resp = resp
	return nil
}
