package service

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An error is sent in a header, and peers accept 8 KiB there. So it repeats nothing of a request that is not validated: here every
// field of every request has 12,000 characters, one after the other.
func TestErrors_RepeatNoLongField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		long := strings.Repeat("x", 12_000)
		calls := 0
		for _, file := range []protoreflect.FileDescriptor{
			pb.File_lpfileshare_v1_file_sharing_service_proto, pb.File_lpfileshare_v1_conversation_service_proto,
			pb.File_lpfileshare_v1_identity_service_proto, pb.File_lpfileshare_v1_account_service_proto,
		} {
			for s := range file.Services().Len() {
				methods := file.Services().Get(s).Methods()
				for m := range methods.Len() {
					method := methods.Get(m)
					for field, req := range longFields(method.Input(), long) {
						calls++
						err := h.callAny(h.alice(), method, req)
						wantShortStatus(t, fmt.Sprintf("%s with a long %s", method.FullName(), field), err, long)
					}
				}
			}
		}
		if calls < 60 {
			t.Errorf("only %d fields were found", calls)
		}
	})
}

func TestUpload_LongRequestIDIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		long := strings.Repeat("6", 12_000)
		b := picture(10)
		_, streamed := h.upload(h.alice(), whole(spec(b, withID(long)), b, 10)...)
		_, small := h.files.UploadSmallFile(h.alice(), &pb.UploadSmallFileRequest{Spec: spec(b, withID(long)), Data: b})
		for what, err := range map[string]error{"Upload": streamed, "UploadSmallFile": small} {
			wantError(t, err, share.InvalidField)
			wantShortStatus(t, what, err, long)
		}
	})
}

// Metadata is clipped whatever put it there.
func TestStatus_MetadataIsClipped(t *testing.T) {
	long := strings.Repeat("x", 12_000)
	for kind := range conditions {
		e := share.Reject(kind, "%s", long).With("subject", long, "requestId", long, "limit", long)
		wantShortStatus(t, string(kind), statusOfKind(e).Err(), long[:1000])
		if e.Metadata["subject"] != long {
			t.Errorf("%s: the error itself was changed", kind)
		}
	}
}

func wantShortStatus(t *testing.T, what string, err error, long string) {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok {
		t.Errorf("%s: %v", what, err)
		return
	}
	if n := proto.Size(s.Proto()) + len(s.Message()); n >= 4<<10 || strings.Contains(s.Proto().String(), long[:500]) {
		t.Errorf("%s: the status has %d bytes: %.200s", what, n, s.Message())
	}
}

// callAny makes a call of any method with one request, and returns its error.
func (h *harness) callAny(ctx context.Context, method protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // some calls have no invalid field, and go on
	defer cancel()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	stream, err := h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil && err != io.EOF {
		return err
	}
	_ = stream.CloseSend()
	for {
		if err := stream.RecvMsg(dynamicpb.NewMessage(method.Output())); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// longFields returns requests, each with one long field, by the field's name. The names of resources in them are valid.
func longFields(d protoreflect.MessageDescriptor, long string) map[string]proto.Message {
	all := map[string]proto.Message{}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		for path, value := range longValues(f, long) {
			m := dynamicpb.NewMessage(d)
			fillNames(m)
			if f.IsList() {
				m.Mutable(f).List().Append(value)
			} else {
				m.Set(f, value)
			}
			all[path] = m
		}
	}
	return all
}

func longValues(f protoreflect.FieldDescriptor, long string) map[string]protoreflect.Value {
	name := string(f.Name())
	switch f.Kind() {
	case protoreflect.StringKind:
		return map[string]protoreflect.Value{name: protoreflect.ValueOfString(long)}
	case protoreflect.BytesKind:
		return map[string]protoreflect.Value{name: protoreflect.ValueOfBytes([]byte(long))}
	case protoreflect.MessageKind:
		all := map[string]protoreflect.Value{}
		for path, m := range longFields(f.Message(), long) {
			all[name+"."+path] = protoreflect.ValueOfMessage(m.ProtoReflect())
		}
		return all
	}
	return nil
}

func fillNames(m protoreflect.Message) {
	for name, value := range map[protoreflect.Name]string{"account": accountName(account), "parent": parent, "conversation": parent} {
		if f := m.Descriptor().Fields().ByName(name); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			m.Set(f, protoreflect.ValueOfString(value))
		}
	}
}
