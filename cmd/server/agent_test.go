package main

import (
	"testing"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestAnAgentsLoginLivesOnWhileItsSessionIsOpen(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		want  pb.ErrorReason
	}{
		{"refreshed", sandbox.Fault{On: "http:refresh", Status: 503, Count: 1}, pb.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{"LivePerson refuses to refresh it", sandbox.Fault{On: "http:refresh", Status: 401}, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{BearerLifetime: 8 * time.Second})
			w.sb.Inject(test.fault)
			agent := w.agent("ann")
			ask := func() error {
				_, err := agent.Files().GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
				return err
			}
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if test.want == 0 {
				if err := ask(); err != nil {
					t.Errorf("after the login's first life: %v", err)
				}
				if _, err := agent.Accounts().GetFileSharing(t.Context(), &pb.GetFileSharingRequest{Account: accountPath}); err != nil {
					t.Errorf("AccountService after the login's first life: %v", err)
				}
				return
			}
			wantReason(t, ask(), test.want)
		})
	}
}
