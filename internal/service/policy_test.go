package service

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// unidentified has a valid request of every method that requires no token, and the scheme of the token that it is about.
var unidentified = map[string]struct {
	req    proto.Message
	scheme share.Scheme
}{
	pb.IdentityService_SignInConsumer_FullMethodName: {
		&pb.SignInConsumerRequest{Account: accountName(account), Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}}, share.ConsumerToken,
	},
	pb.IdentityService_RenewConsumer_FullMethodName: {&pb.RenewConsumerRequest{Account: accountName(account), RenewalSecret: secret}, share.ConsumerToken},
	pb.IdentityService_SignInAgent_FullMethodName: {
		&pb.SignInAgentRequest{Account: accountName(account), Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "u", Password: secret}}}, share.AgentToken,
	},
}

// Rules can name each method of the contract, and nothing else.
func TestPolicy_MethodsAreThoseOfTheContract(t *testing.T) {
	server := grpc.NewServer()
	(&Server{}).Register(server)
	var methods []policy.Method
	for _, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, policy.Method(m.Name))
		}
	}
	known := policy.Methods()
	slices.Sort(methods)
	slices.Sort(known)
	if !slices.Equal(methods, known) {
		t.Errorf("the contract has the methods\n%v, and the groups of internal/policy/method.go\n%v", methods, known)
	}
	for _, m := range known {
		if m.SignsIn() != "" && !slices.Contains(policy.SignIn.Methods(), m) {
			t.Errorf("%s signs in, but is not in the group %s", m, policy.SignIn)
		}
	}
}

// Every method asks the policy, once it knows the account and the identity, and a denied call uses nothing.
func TestPolicy_DeniedCallsUseNothing(t *testing.T) {
	service := policy.Caller{Name: policy.Name{Kind: policy.CN, Value: "service"}, Via: policy.ViaMTLS}
	for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken, share.ExternalConsumerID} {
		t.Run(string(scheme), inBubble(func(t *testing.T) {
			var mu sync.Mutex
			var asked []policy.Request
			h := newHarness(t, func(c *Config) {
				c.Permit = func(q policy.Request) error {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, q)
					return share.Reject(share.CallerNotPermitted, "denied by a rule")
				}
			})
			id := map[share.Scheme]string{share.ConsumerToken: aliceToken, share.AgentToken: agentToken("bearer-" + secret), share.ExternalConsumerID: aliceToken}[scheme]
			ctx := metadata.AppendToOutgoingContext(t.Context(), string(scheme), id, "test-service", service.Name.Value)
			want := policy.Request{Caller: service, Account: account, Scheme: scheme}
			if scheme == share.ExternalConsumerID {
				want.Consumer = id
			}
			methods := 0
			for name, info := range h.grpc.GetServiceInfo() {
				for _, m := range info.Methods {
					method := "/" + name + "/" + m.Name
					req, want := identified[method], want
					if without, ok := unidentified[method]; ok {
						req, want = without.req, policy.Request{Caller: service, Account: account, Scheme: without.scheme}
						if got := policy.Method(m.Name).SignsIn(); got != without.scheme {
							t.Errorf("%s signs in with %q according to the policy, and with %q", m.Name, got, without.scheme)
						}
					} else if m.Name == "SignOutAgent" {
						req = &pb.SignOutAgentRequest{Account: accountName(account)}
					}
					if req == nil {
						t.Errorf("no request is known for %s", method)
						continue
					}
					methods++
					want.Method = policy.Method(m.Name)
					mu.Lock()
					asked = nil
					mu.Unlock()
					call, cancel := context.WithCancel(ctx)
					err := h.call(call, method, req)
					cancel()
					wantError(t, err, share.CallerNotPermitted)
					if text := status.Convert(err).Message(); text != "denied by a rule" {
						t.Errorf("%s: %s", method, text)
					}
					mu.Lock()
					if !slices.Equal(asked, []policy.Request{want}) {
						t.Errorf("%s asked for %+v, want %+v", method, asked, want)
					}
					mu.Unlock()
				}
			}
			if methods != len(identified)+len(unidentified)+1 {
				t.Errorf("%d methods", methods)
			}
			for _, used := range []map[string]int{h.ledger.calls, h.lp.calls, h.accounts.calls, h.store.calls, h.images.calls} {
				if len(used) > 0 {
					t.Errorf("denied calls used %v", slices.Collect(maps.Keys(used)))
				}
			}
		}))
	}
}
