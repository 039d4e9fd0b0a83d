package service

import (
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
)

// LimitProbes limits the streams of other services than the contract's: health watches and reflection. They end with their client or
// with the connection, which has a maximum age.
func LimitProbes(probes *admission.Probes, rejected *rejections.Tally) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		p, ok := peer.FromContext(stream.Context())
		if !ok || ours(info.FullMethod) {
			return handler(srv, stream)
		}
		release, err := probes.Acquire(p.Addr.String())
		if err != nil {
			s, cause := statusOf(stream.Context(), err)
			if limit := limitOf(s, cause); limit != "" {
				rejected.Add(limit, slog.String("method", info.FullMethod), slog.String("peer", p.Addr.String()))
			}
			return s.Err()
		}
		defer release()
		return handler(srv, stream)
	}
}
