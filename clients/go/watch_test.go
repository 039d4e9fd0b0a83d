package lpfileshare_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// numbers is a watch whose files are named 1, 2, 3 and whose tokens are the same; it sends up to two per call, then ends.
func numbers(end func(n int, s watchStream) error) func(int, *pb.WatchFilesRequest, watchStream) error {
	return func(n int, r *pb.WatchFilesRequest, s watchStream) error {
		at, _ := strconv.Atoi(r.GetResumeToken())
		if err := s.Send(&pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_Heartbeat{}, ResumeToken: strconv.Itoa(at)}); err != nil {
			return err
		}
		for i := at + 1; i <= at+2; i++ {
			name := strconv.Itoa(i)
			if err := s.Send(&pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_File{File: &pb.File{Name: name}}, ResumeToken: name}); err != nil {
				return err
			}
		}
		return end(n, s)
	}
}

func TestWatchGoesOnBehindTheLastMessage(t *testing.T) {
	var f *fake
	f = &fake{watch: numbers(func(n int, s watchStream) error {
		switch n {
		case 1:
			return status.Error(codes.Unavailable, "gone")
		case 2:
			return failure(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW)
		case 3:
			return nil
		case 4:
			time.Sleep(20 * time.Millisecond) // what was sent gets there
			f.cut()
		}
		<-s.Context().Done() // silent, for longer than the client will have it
		return s.Context().Err()
	})}
	c := start(t, f)
	var names []string
	var token string
	done := errors.New("enough")
	var told []bool
	err := c.Watch(testContext(t), lpfileshare.WatchOptions{
		Parent: conversation, Token: "10", MaxSilence: 300 * time.Millisecond, OnToken: func(s string) { token = s },
		OnConnection: func(err error) { told = append(told, err == nil) },
	}, func(file *pb.File) error {
		names = append(names, file.GetName())
		if len(names) == 11 {
			return done
		}
		return nil
	})
	if err != done || fmt.Sprint(names) != "[11 12 13 14 15 16 17 18 19 20 21]" || token != "20" {
		t.Errorf("names %v, token %q, error %v", names, token, err)
	}
	if fmt.Sprint(told) != "[true false true false true false true false true false true]" {
		t.Errorf("told of the connection: %v", told)
	}
	if f.count("WatchFiles") != 6 {
		t.Errorf("%d calls", f.count("WatchFiles"))
	}
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	for _, tc := range []struct {
		name  string
		ctx   context.Context
		watch func(int, *pb.WatchFilesRequest, watchStream) error
		want  func(error) bool
	}{
		{"when the token is too old", testContext(t), func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			return failure(codes.OutOfRange, pb.ErrorReason_ERROR_REASON_WATCH_RESET)
		}, func(err error) bool { return errors.Is(err, lpfileshare.ErrWatchReset) }},
		{"when it is refused", testContext(t), func(int, *pb.WatchFilesRequest, watchStream) error {
			return failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
		}, func(err error) bool {
			return lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND
		}},
		{"with its context", ctx, func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			cancel()
			<-s.Context().Done()
			return nil
		}, func(err error) bool { return err == context.Canceled }},
		{"when there is no hope left", testContext(t), func(int, *pb.WatchFilesRequest, watchStream) error {
			return status.Error(codes.Unavailable, "gone")
		}, func(err error) bool { return status.Code(err) == codes.Unavailable }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, &fake{watch: tc.watch})
			o := lpfileshare.WatchOptions{Parent: conversation, RetryFor: time.Second}
			err := c.Watch(tc.ctx, o, func(*pb.File) error { return nil })
			if !tc.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWatchRenewsARefusedToken(t *testing.T) {
	f := &fake{renew: renewTo("new")}
	f.watch = func(n int, r *pb.WatchFilesRequest, s watchStream) error {
		if n == 1 {
			return failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED)
		}
		return numbers(func(int, watchStream) error { return nil })(n, r, s)
	}
	c := start(t, f, lpfileshare.WithConsumerToken(session("old", time.Hour)))
	done := errors.New("enough")
	if err := c.Watch(testContext(t), lpfileshare.WatchOptions{}, func(*pb.File) error { return done }); err != done {
		t.Error(err)
	}
}

func TestListFilesTurnsAllPages(t *testing.T) {
	c := start(t, &fake{list: func(r *pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
		page, _ := strconv.Atoi(r.GetPageToken())
		resp := &pb.ListFilesResponse{Files: []*pb.File{{Name: strconv.Itoa(page)}}}
		if page < 2 {
			resp.NextPageToken = strconv.Itoa(page + 1)
		} else {
			resp.WatchToken = "w"
		}
		return resp, nil
	}})
	var names []string
	token, err := c.ListFiles(testContext(t), conversation, func(f *pb.File) error {
		names = append(names, f.GetName())
		return nil
	})
	if err != nil || token != "w" || fmt.Sprint(names) != "[0 1 2]" {
		t.Errorf("names %v, token %q, error %v", names, token, err)
	}
}
