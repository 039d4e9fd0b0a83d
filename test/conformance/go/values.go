package main

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type object = map[string]any

// session is a ConsumerSession on the wire.
type session struct {
	Token         string `json:"token"`
	RenewalSecret string `json:"renewalSecret"`
	ConsumerID    string `json:"consumerId"`
	ExpiresAtMs   int64  `json:"expiresAtMs"`
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// identity is who calls.
type identity struct {
	Kind               string
	Token              string
	Tokens             []string
	Session            *session
	ExternalConsumerID string
}

func (i *identity) identity(account string) lpfileshare.Identity {
	if i == nil {
		return lpfileshare.Identity{}
	}
	var source lpfileshare.TokenSource = lpfileshare.StaticToken(i.Token)
	if len(i.Tokens) > 0 {
		source = &tokens{left: i.Tokens}
	}
	if s := i.Session; s != nil {
		in := lpfileshare.ConsumerSession{Token: s.Token, RenewalSecret: s.RenewalSecret, ConsumerID: s.ConsumerID}
		if s.ExpiresAtMs != 0 {
			in.Expires = time.UnixMilli(s.ExpiresAtMs)
		}
		source = lpfileshare.NewConsumerTokens(account, in, nil)
	}
	switch i.Kind {
	case "consumer":
		return lpfileshare.ConsumerToken(source)
	case "agent":
		return lpfileshare.AgentToken(source)
	case "external":
		return lpfileshare.ExternalConsumerID(i.ExternalConsumerID)
	}
	return lpfileshare.Identity{}
}

// tokens is a source that moves to the next token at each renewal.
type tokens struct {
	mu   sync.Mutex
	left []string
}

// Token returns the current token.
func (t *tokens) Token(context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left[0], nil
}

// Renew moves to the next token, unless a concurrent call has done so.
func (t *tokens) Renew(_ context.Context, rejected string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left[0] == rejected && len(t.left) > 1 {
		t.left = t.left[1:]
	}
	return t.left[0], nil
}

func (s signIn) consumer(account string) *pb.SignInConsumerRequest {
	req := &pb.SignInConsumerRequest{Account: account}
	switch {
	case s.SignUp:
		req.Grant = &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}
	case s.Anonymous != "":
		req.Grant = &pb.SignInConsumerRequest_Anonymous{Anonymous: &pb.AnonymousSignIn{ConnectorId: s.Anonymous}}
	case s.CustomerJWT != "":
		req.Grant = &pb.SignInConsumerRequest_CustomerJwt{CustomerJwt: s.CustomerJWT}
	case s.AuthCode != "":
		req.Grant = &pb.SignInConsumerRequest_AuthCode{AuthCode: s.AuthCode}
	}
	return req
}

// enum returns the name of a value without prefix, or the number of one that is not known.
func enum(v protoreflect.Enum, prefix string) any {
	if d := v.Descriptor().Values().ByNumber(v.Number()); d != nil {
		return strings.TrimPrefix(string(d.Name()), prefix)
	}
	return int32(v.Number())
}

// value returns the value of an enum by its name without prefix.
func value[E ~int32](values map[string]int32, prefix, name string) E { return E(values[prefix+name]) }

func file(f *pb.File) any {
	if f == nil {
		return nil
	}
	o := object{
		"name": f.GetName(), "storagePath": f.GetStoragePath(), "fileType": enum(f.GetFileType(), "FILE_TYPE_"),
		"contentType": f.GetContentType(), "caption": f.GetCaption(), "displayName": f.GetDisplayName(), "etag": f.GetEtag(),
		"senderRole": enum(f.GetSenderRole(), "PARTICIPANT_ROLE_"), "sha256": hex.EncodeToString(f.GetUploadedChecksums().GetSha256()),
	}
	if f.StoredSizeBytes != nil {
		o["sizeBytes"] = f.GetStoredSizeBytes()
	}
	if sums := f.GetUploadedChecksums(); sums != nil && sums.Crc32C != nil {
		o["crc32c"] = sums.GetCrc32C()
	}
	return o
}

// describe is what a user of the client sees of an error.
func describe(err error) any {
	o := object{"kind": "usage", "text": err.Error(), "message": err.Error(), "code": "", "reason": ""}
	if e, ok := errors.AsType[*lpfileshare.Error](err); ok {
		o["kind"], o["code"], o["message"] = "call", codeName(e), e.Message
		if e.Reason != pb.ErrorReason_ERROR_REASON_UNSPECIFIED {
			o["reason"] = lpfileshare.ReasonName(e.Reason)
		}
		violations := []any{}
		for _, v := range e.Violations {
			violations = append(violations, object{"field": v.Field, "description": v.Description})
		}
		o["metadata"], o["violations"], o["retryAfterMs"] = e.Metadata, violations, e.RetryAfter.Milliseconds()
		o["requestId"], o["attempts"], o["finished"] = e.RequestID, e.Attempts, e.Finished
	}
	switch {
	case errors.Is(err, errSource):
		o["kind"] = "source"
	case errors.Is(err, errSink):
		o["kind"] = "sink"
	case errors.Is(err, lpfileshare.ErrWatchReset):
		o["kind"] = "watchReset"
	case errors.Is(err, context.Canceled):
		o["kind"] = "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		o["kind"] = "deadline"
	}
	return o
}

// codeName is the code in the spelling of the contract.
func codeName(e *lpfileshare.Error) string {
	return [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
		"UNAUTHENTICATED",
	}[e.Code]
}
