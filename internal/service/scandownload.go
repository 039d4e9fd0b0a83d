package service

import (
	"context"

	"google.golang.org/grpc/mem"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// A downloadScan has a file scanned before it is sent. The zero value scans nothing.
type downloadScan struct {
	scanner upload.Scanner // nil: files are not scanned
	buffers mem.BufferPool
	owner   share.Principal
	// most is the size of the largest file that is scanned, in bytes, for which memory is reserved; 0 without a scanner.
	most int64
}

// newDownloadScan returns the scan of a download of session.
func newDownloadScan(s *Server, session Session) downloadScan {
	if !s.ScanDownloads || s.ports.Scanner == nil {
		return downloadScan{}
	}
	owner := session.Principal()
	return downloadScan{s.ports.Scanner, s.Buffers, owner, s.Settings(owner.Account).MaxFileBytes}
}

// open opens the part of a file that a request asks for. If files are scanned, the file is read whole into memory and scanned first, whichever
// part was asked for. No verdict is kept: ETags are MD5s, of which two files can have the same.
func (d *downloadScan) open(ctx context.Context, file download.Object, req *lpfilesharev1.DownloadRequest, memory *admission.Download, turns *admission.Transfer) (*download.Reader, error) {
	offset, limit, ifMatch := req.GetReadOffset(), req.GetReadLimit(), share.ParseETag(req.GetIfMatchEtag())
	if d.scanner == nil {
		return file.Open(ctx, offset, limit, ifMatch)
	}
	object, err := file.Open(ctx, 0, 0, ifMatch)
	if err != nil {
		return nil, err
	}
	if err = d.scan(ctx, object, memory, turns); err == nil {
		err = object.Part(offset, limit)
	}
	if err != nil {
		object.Close()
		return nil, err
	}
	return object, nil
}

// scan reads an object into memory and returns nil if it may be sent.
func (d *downloadScan) scan(ctx context.Context, object *download.Reader, memory *admission.Download, turns *admission.Transfer) error {
	if object.Stored.Size > d.most {
		return share.Reject(share.FileRejectedByScanner, "the file has %d bytes, and only files of at most %d bytes are scanned and sent", object.Stored.Size, d.most).
			With("part", "file", "why", "size")
	}
	memory.KeepWhole(object.Stored.Size)
	nothing := func() {}
	if err := object.Hold(ctx, d.buffers, func(read func() error) error { return turns.Work(read, nothing) }); err != nil {
		return err
	}
	return d.scanner.Scan(ctx, share.ScanJob{
		Owner: d.owner, Part: "file",
		Open:    func(context.Context) share.ScanReader { return object.Content() },
		Arrived: func(context.Context) error { return nil },
	})
}
