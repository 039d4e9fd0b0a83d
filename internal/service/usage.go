package service

import "github.com/lpfileshare/lpfileshare/internal/admission"

// Usage is what calls use of the server's limits now.
type Usage struct {
	Uploads   admission.Usage
	Downloads admission.DownloadUsage
	Openings  admission.OpeningsUsage
}

// Usage returns what calls use of the server's limits now.
func (s *Server) Usage() Usage {
	return Usage{Uploads: s.memory.Usage(), Downloads: s.downloads.Usage(), Openings: s.Openings.Usage()}
}
