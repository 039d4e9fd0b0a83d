package service

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// recommendedChunk is a good chunk size for uploads: large enough for speed, small enough for idle timers and progress.
const recommendedChunk = 64 << 10

// GetCapabilities is the contract's GetCapabilities.
func (s *Server) GetCapabilities(ctx context.Context, req *lpfilesharev1.GetCapabilitiesRequest) (*lpfilesharev1.GetCapabilitiesResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	if err := v.err(); err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	session.Release()
	l := s.Settings(account)
	return &lpfilesharev1.GetCapabilitiesResponse{
		MaxFileBytes:          l.MaxFileBytes,
		FileTypes:             allowedTypes(l.Documents),
		MaxPreviewChars:       upload.MaxPreviewChars - 1,
		MaxImagePixels:        l.MaxImagePixels,
		MaxChunkBytes:         MaxChunkBytes,
		RecommendedChunkBytes: recommendedChunk,
		UploadIdleTimeout:     durationpb.New(s.IdleTimeout),
		UploadTimeout:         durationpb.New(s.UploadTimeout),
		RequestIdTtl:          durationpb.New(s.RequestIDTTL),
		HeartbeatInterval:     durationpb.New(s.Heartbeat),
		MaxCaptionChars:       maxCaption,
		MaxImageInputBytes:    l.MaxImageInputBytes,
		StripsImages:          l.StripImages,
		MaxSmallFileBytes:     min(l.MaxFileBytes, MaxSmallFileBytes),
		MinPingInterval:       durationpb.New(MinPingInterval),
		ServerVersion:         s.Version,
		MaxDisplayNameChars:   maxDisplayName,
		MaxMessageBytes:       MaxRecvMessageBytes,
	}, nil
}

// GetFileSharing is the contract's GetFileSharing.
func (s *Server) GetFileSharing(ctx context.Context, req *lpfilesharev1.GetFileSharingRequest) (*lpfilesharev1.GetFileSharingResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	if err := v.err(); err != nil {
		return nil, err
	}
	agent, err := s.agent(ctx, account)
	if err != nil {
		return nil, err
	}
	on, err := s.ports.Accounts.FileSharing(ctx, agent)
	if err != nil {
		return nil, err
	}
	return &lpfilesharev1.GetFileSharingResponse{Enabled: on}, nil
}

// SetFileSharing is the contract's SetFileSharing.
func (s *Server) SetFileSharing(ctx context.Context, req *lpfilesharev1.SetFileSharingRequest) (*lpfilesharev1.SetFileSharingResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	if req.Enabled == nil {
		v.add("enabled", "is required")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	agent, err := s.agent(ctx, account)
	if err != nil {
		return nil, err
	}
	if err := s.ports.Accounts.SetFileSharing(ctx, agent, req.GetEnabled()); err != nil {
		return nil, err
	}
	return &lpfilesharev1.SetFileSharingResponse{Enabled: req.GetEnabled()}, nil
}

// agent reads the caller's agent token, for requests whose bearer LivePerson itself checks. No session is needed, because nothing is
// answered from memory.
func (s *Server) agent(ctx context.Context, account string) (share.AgentGrant, error) {
	_, g, err := s.agentCredential(ctx, account, "account settings need an agent: use lp-agent-token")
	return g, err
}

// agentCredential is agent, and also returns the credential. notAgent is the message for callers that are not agents.
func (s *Server) agentCredential(ctx context.Context, account, notAgent string) (c share.Credential, g share.AgentGrant, err error) {
	if c, err = s.credential(ctx, account); err != nil {
		return c, g, err
	}
	if c.Scheme != share.AgentToken {
		// A caller without any valid token gets TokenInvalid first.
		session, err := s.session(ctx, account)
		if err != nil {
			return c, g, err
		}
		session.Release()
		return c, g, share.Reject(share.NotAllowed, "%s", notAgent)
	}
	if g, err = share.ParseAgentToken(c.Secret); err != nil {
		return c, g, err
	}
	if g.Account != account {
		return c, g, errOtherAccount()
	}
	return c, g, s.checkServed(account)
}
