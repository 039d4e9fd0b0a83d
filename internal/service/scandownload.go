package service

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// scannedBytes returns the largest file of an account that is downloaded, if downloads are scanned; 0 if they are not.
func (s *Server) scannedBytes(account string) int64 {
	if !s.ScanDownloads || s.ports.Scanner == nil {
		return 0
	}
	return s.Settings(account).MaxFileBytes
}

// openClean opens a part of a file that the scanner accepts. The file is read whole, into memory that was reserved for most bytes, and
// scanned before the first byte is returned, whichever part was asked for. No verdict is kept: ETags are MD5s, of which two files can
// have the same.
func (s *Server) openClean(ctx context.Context, owner share.Principal, file download.Object, most int64, memory *admission.Download, turns *admission.Transfer, offset, limit int64, ifMatch share.ETag) (*download.Reader, error) {
	object, err := file.Open(ctx, 0, 0, ifMatch)
	if err != nil {
		return nil, err
	}
	if err := s.scanWhole(ctx, owner, object, most, memory, turns); err != nil {
		object.Close()
		return nil, err
	}
	if err := object.Part(offset, limit); err != nil {
		object.Close()
		return nil, err
	}
	return object, nil
}

func (s *Server) scanWhole(ctx context.Context, owner share.Principal, object *download.Reader, most int64, memory *admission.Download, turns *admission.Transfer) error {
	if object.Stored.Size > most {
		return share.Reject(share.FileRejectedByScanner, "the file has %d bytes, and only files of at most %d bytes are scanned and sent", object.Stored.Size, most).
			With("part", "file", "why", "size")
	}
	memory.KeepWhole(object.Stored.Size)
	nothing := func() {}
	if err := object.Hold(ctx, s.Buffers, func(read func() error) error { return turns.Work(read, nothing) }); err != nil {
		return err
	}
	return s.ports.Scanner.Scan(ctx, share.ScanJob{
		Owner: owner, Part: "file",
		Open:    func(context.Context) share.ScanReader { return object.Content() },
		Arrived: func(context.Context) error { return nil },
	})
}
