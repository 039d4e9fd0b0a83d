package lpfileshare_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// heartbeat is a heartbeat as the server sends it.
func heartbeat(interval time.Duration, token string) *pb.WatchFilesResponse {
	return &pb.WatchFilesResponse{
		Event: &pb.WatchFilesResponse_Heartbeat{Heartbeat: &pb.Heartbeat{Interval: durationpb.New(interval)}}, ResumeToken: token,
	}
}

// numbers is a watch whose files and tokens are named 1, 2, 3 and so on. Each call sends a heartbeat and two files, then ends with end.
func numbers(end func(n int, s watchStream) error) func(int, *pb.WatchFilesRequest, watchStream) error {
	return func(n int, r *pb.WatchFilesRequest, s watchStream) error {
		at, _ := strconv.Atoi(r.GetResumeToken())
		if err := s.Send(heartbeat(20*time.Second, strconv.Itoa(at))); err != nil {
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

// watchError ranges over a watch whose files do not matter, and returns its error.
func watchError(w *lpfileshare.FileWatch) (err error) {
	for _, err = range w.All() {
	}
	return err
}

func TestWatch_ContinuesAfterLastMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f *fake
		f = &fake{watch: numbers(func(n int, s watchStream) error {
			switch n {
			case 1:
				return status.Error(codes.Unavailable, "lost")
			case 2:
				return failure(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW, retryAfter(time.Second))
			case 3:
				return nil
			case 4:
				synctest.Wait() // until the client has received what was sent
				f.cut()
			}
			<-s.Context().Done() // silent, for longer than three heartbeats
			return s.Context().Err()
		})}
		c := start(t, f)
		var names []string
		var connection []bool
		w := c.Watch(t.Context(), lpfileshare.WatchOptions{
			Parent: conversation, Token: "10", OnConnection: func(err error) { connection = append(connection, err == nil) },
		})
		for file, err := range w.All() {
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, file.GetName()); w.Token() != file.GetName() {
				t.Errorf("at file %s the token is %q", file.GetName(), w.Token())
			}
			if len(names) == 11 {
				break
			}
		}
		if fmt.Sprint(names) != "[11 12 13 14 15 16 17 18 19 20 21]" {
			t.Errorf("files %v", names)
		}
		if fmt.Sprint(connection) != "[true false true false true false true false true false true]" {
			t.Errorf("OnConnection: %v", connection)
		}
		if f.count("WatchFiles") != 6 {
			t.Errorf("%d calls", f.count("WatchFiles"))
		}
		for file, err := range w.All() { // a broken loop can be continued
			if err != nil || file.GetName() != "22" {
				t.Errorf("continued with %v, %v", file, err)
			}
			break
		}
	})
}

func TestWatch_EndsWithError(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  error
		want func(error) bool
	}{
		{"reset", failure(codes.OutOfRange, pb.ErrorReason_ERROR_REASON_WATCH_RESET), func(err error) bool {
			return errors.Is(err, lpfileshare.ErrWatchReset) && lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_WATCH_RESET
		}},
		{"rejected", failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND), func(err error) bool {
			return lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND && !errors.Is(err, lpfileshare.ErrWatchReset)
		}},
		{"time limit", status.Error(codes.Unavailable, "lost"), func(err error) bool { return status.Code(err) == codes.Unavailable }},
	} {
		simulated(t, tc.name, func(t *testing.T) {
			c := start(t, &fake{watch: func(int, *pb.WatchFilesRequest, watchStream) error { return tc.end }})
			if err := watchError(c.Watch(t.Context(), lpfileshare.WatchOptions{RetryFor: time.Second})); !tc.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	simulated(t, "context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := start(t, &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			cancel()
			<-s.Context().Done()
			return nil
		}})
		if err := watchError(c.Watch(ctx, lpfileshare.WatchOptions{})); err != context.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

func TestWatch_RenewsRejectedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{renew: renewTo("new")}
		f.watch = func(n int, r *pb.WatchFilesRequest, s watchStream) error {
			if n == 1 {
				return failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED)
			}
			return numbers(func(int, watchStream) error { return nil })(n, r, s)
		}
		c := start(t, f, lpfileshare.WithConsumerToken(session("old", time.Hour)))
		for _, err := range c.Watch(t.Context(), lpfileshare.WatchOptions{}).All() {
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
}

// A dead link does not end a call. Three missed heartbeats do.
func TestWatch_SilentConnection(t *testing.T) {
	const interval = 20 * time.Second
	for _, tc := range []struct {
		name   string
		option time.Duration
		want   time.Duration
	}{{"three heartbeats", 0, 3 * interval}, {"MaxSilence", 15 * time.Second, 15 * time.Second}} {
		simulated(t, tc.name, func(t *testing.T) {
			var opened []time.Time
			var tokens []string
			enough, stop := context.WithCancel(t.Context())
			f := &fake{watch: func(n int, r *pb.WatchFilesRequest, s watchStream) error {
				opened, tokens = append(opened, time.Now()), append(tokens, r.GetResumeToken())
				if n == 2 {
					stop()
				}
				s.Send(heartbeat(interval, "a"))
				<-s.Context().Done()
				return nil
			}}
			c := start(t, f)
			err := watchError(c.Watch(enough, lpfileshare.WatchOptions{MaxSilence: tc.option}))
			if !errors.Is(err, context.Canceled) || len(opened) != 2 || fmt.Sprint(tokens) != "[ a]" {
				t.Fatalf("%d calls with the tokens %q, %v", len(opened), tokens, err)
			}
			if got := opened[1].Sub(opened[0]); got < tc.want || got > tc.want+time.Second {
				t.Errorf("watched again after %v, want %v", got, tc.want)
			}
		})
	}
	simulated(t, "before the first heartbeat", func(t *testing.T) {
		c := start(t, &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error { <-s.Context().Done(); return nil }})
		began := time.Now()
		err := watchError(c.Watch(t.Context(), lpfileshare.WatchOptions{RetryFor: -1}))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no message for 1m30s") || time.Since(began) != 90*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
	simulated(t, "slow loop", func(t *testing.T) { // its time is not the server's silence
		f := &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			for i := 0; s.Context().Err() == nil; i++ {
				m := heartbeat(interval, "")
				if i == 1 || i == 30 {
					m.Event = &pb.WatchFilesResponse_File{File: &pb.File{Name: strconv.Itoa(i)}}
				}
				if err := s.Send(m); err != nil {
					return err
				}
				pause(s.Context(), interval)
			}
			return nil
		}}
		c := start(t, f)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for file, err := range c.Watch(ctx, lpfileshare.WatchOptions{}).All() {
			if err != nil {
				t.Fatal(err)
			}
			if file.GetName() == "30" {
				break
			}
			pause(t.Context(), 5*time.Minute)
		}
		if f.count("WatchFiles") != 1 {
			t.Errorf("%d calls", f.count("WatchFiles"))
		}
	})
}

// A call that ends right after its first heartbeat is not progress: the backoff must grow.
func TestWatch_BacksOff(t *testing.T) {
	for _, tc := range []struct {
		name     string
		lasts    time.Duration // how long each call lasts
		min, max int           // number of calls in a minute
	}{
		{"ends after the first heartbeat", 0, 12, 25},
		{"lasts", 11 * time.Second, 6, 7},
	} {
		simulated(t, tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			f := &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
				s.Send(heartbeat(time.Second, ""))
				if tc.lasts > 0 {
					pause(s.Context(), tc.lasts)
					s.Send(heartbeat(time.Second, ""))
				}
				return status.Error(codes.Unavailable, "lost")
			}}
			c := start(t, f)
			if err := watchError(c.Watch(ctx, lpfileshare.WatchOptions{MaxSilence: time.Minute})); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if n := f.count("WatchFiles"); n < tc.min || n > tc.max {
				t.Errorf("%d calls in a minute, want %d to %d", n, tc.min, tc.max)
			}
		})
	}
}

func TestWatch_OpensAgainBeforeItsMaximumAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		lost := 0
		f := &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			for {
				if err := s.Send(heartbeat(20*time.Second, "")); err != nil {
					return err
				}
				select {
				case <-time.After(20 * time.Second):
				case <-s.Context().Done():
					return nil
				}
			}
		}}
		c := start(t, f)
		o := lpfileshare.WatchOptions{OnConnection: func(err error) {
			if err != nil {
				lost++
			}
		}}
		if err := watchError(c.Watch(ctx, o)); !errors.Is(err, context.DeadlineExceeded) || f.count("WatchFiles") != 3 || lost != 0 {
			t.Errorf("%d calls in an hour, connection lost %d times, %v", f.count("WatchFiles"), lost, err)
		}
	})
}

func TestWatch_OnUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, &fake{watch: func(_ int, _ *pb.WatchFilesRequest, s watchStream) error {
			u := &pb.UnreadableConversation{Name: "a", Reason: pb.ErrorReason_ERROR_REASON_CONVERSATION_TOO_LARGE}
			_ = s.Send(&pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_UnreadableConversation{UnreadableConversation: u}, ResumeToken: "1"})
			return s.Send(&pb.WatchFilesResponse{Event: &pb.WatchFilesResponse_File{File: &pb.File{Name: "f"}}, ResumeToken: "2"})
		}})
		var reported []string
		w := c.Watch(t.Context(), lpfileshare.WatchOptions{Parent: conversation, OnUnreadable: func(u *pb.UnreadableConversation) {
			reported = append(reported, u.GetName())
		}})
		for f, err := range w.All() {
			if err != nil || f.GetName() != "f" {
				t.Fatal(f, err)
			}
			break
		}
		if len(reported) != 1 || reported[0] != "a" || w.Token() != "2" {
			t.Errorf("reported %q, token %q", reported, w.Token())
		}
	})
}
