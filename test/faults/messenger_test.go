package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A messenger is how the gateway talks with LivePerson: each has a table of its own, of the same states and kinds.
type messenger struct {
	name string
	// protocol takes the way to LivePerson apart.
	protocol proxy.Protocol
	// domains are the services that are reached on that way.
	domains []string
	// hooked means that only webhooks report messages, because LivePerson cannot be asked.
	hooked bool
	// opening is the state in which the gateway authenticates; more are states that the other messenger does not have.
	opening state
	more    []state
	// misleading are the errors, by the name of their state, with which LivePerson may answer a message that it has published, and that
	// must not lose or double it. Each has the codes of its variants in turn.
	misleading []misleading
	// urlAnswer and publishAnswer are what only these answers say.
	urlAnswer, publishAnswer string
	// news is where LivePerson reports a message.
	news func(at func(int64) int64) place
	// status answers a request with an error instead of LivePerson, statusAfter in the place of its answer.
	status, statusAfter func(code int) func(proxy.Message) []byte
	// retryFor is for how long a caller's library repeats by itself.
	retryFor time.Duration
	// flags are what the server is started with besides; dir is the lane's.
	flags func(dir string) ([]string, error)
	// signIn makes a new consumer, and open its conversation.
	signIn func(ctx context.Context, l *lane) (lpfileshare.Identity, string, error)
	// reauthenticate makes the gateway authenticate again.
	reauthenticate func(ctx context.Context, l *lane) error
	// settle waits until nothing is going on between LivePerson and the gateway, after a case.
	settle func(ctx context.Context, l *lane) error
}

// misleading are the codes of a state in which LivePerson publishes a message and answers with an error.
type misleading struct {
	name  string
	codes []int
}

// connector is the Connector API with webhooks.
func connector() *messenger {
	return &messenger{
		name: "connector", hooked: true, protocol: proxy.HTTPCalls, domains: []string{"sentinel", "idp", "asyncMessagingEnt"},
		urlAnswer: "temp_url_sig", publishAnswer: `"sequence"`, news: hookSays,
		misleading: []misleading{{"503", []int{503}}}, // docs/adr/0024-error-answers.md: others mean that nothing was published
		status:     callStatus, statusAfter: callStatus,
		// Shorter than LP_PUBLISH_UNCONFIRMED asks to wait: the cases repeat that themselves.
		retryFor: 4 * time.Second,
		flags:    connectorFlags,
		signIn: func(context.Context, *lane) (lpfileshare.Identity, string, error) {
			external := uuid.NewString()
			sum := sha256.Sum256([]byte(account + "\x00consumer\x00" + external)) // LivePerson's id of it, as the sandbox makes it
			return lpfileshare.ExternalConsumerID(external), hex.EncodeToString(sum[:]), nil
		},
		reauthenticate: func(_ context.Context, l *lane) error {
			l.sb.Inject(sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 401, Count: 1})
			return nil
		},
		settle: func(ctx context.Context, l *lane) error {
			for l.sb.WebhooksWaiting() > 0 {
				select {
				case <-ctx.Done():
					return fmt.Errorf("webhooks are not delivered: %w", ctx.Err())
				case <-time.After(2 * time.Millisecond):
				}
			}
			return nil
		},
		opening: state{
			name: "obtaining the tokens", fresh: true,
			place: func(v int) place {
				return [...]place{
					lpSays(proxy.ToServer, spread(v), "POST /sentinel/"),
					lpSays(proxy.ToClient, spread(v), `"access_token"`),
					lpSays(proxy.ToServer, spread(v), "POST /api/account/", `"ext_consumer_id"`),
					lpSays(proxy.ToClient, spread(v), `"token"`),
				}[v%4]
			},
			lost: func(v int) place {
				return [...]place{lpSays(proxy.ToClient, spread(v), `"access_token"`), lpSays(proxy.ToClient, spread(v), `"token"`)}[v%2]
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 502, 503, 504, 429, 599, 401, 403, 404}[v]
				word := [...]string{"POST /sentinel/", `"ext_consumer_id"`}[v%2]
				return lpSays(proxy.ToServer, nil, word), httpStatus(code), true, code < 429
			},
		},
		more: []state{{
			name: "webhook delivery", unanswered: true,
			place: webhookDelivery, publish: webhookDelivery,
			lost: func(v int) place {
				if v%2 == 0 {
					return hookSays(spread(v))
				}
				return place{leg: hookLeg, dir: proxy.ToClient, at: spread(v)}
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 502, 503, 504, 429, 599, 401, 403, 404}[v]
				return hookSays(nil), httpStatus(code), true, false
			},
		}},
	}
}

func webhookDelivery(v int) place {
	if v%3 == 2 {
		return place{leg: hookLeg, dir: proxy.ToClient, at: spread(v)}
	}
	return hookSays(spread(v))
}

func hookSays(at func(int64) int64) place {
	return place{leg: hookLeg, dir: proxy.ToServer, at: at, match: func(m proxy.Message) bool { return m.Says("hosted/file") }}
}

// callStatus is an error as the Connector API answers with it.
func callStatus(code int) func(proxy.Message) []byte {
	return func(proxy.Message) []byte {
		body := fmt.Sprintf(`{"reqId":"1","code":%d,"body":{"errorCode":%d,"msg":"made up"}}`, code, 100*code)
		return fmt.Appendf(nil, "HTTP/1.1 %d Made Up\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", code, len(body), body)
	}
}

// connectorFlags say that the account uses the sandbox's app install.
func connectorFlags(dir string) ([]string, error) {
	file := filepath.Join(dir, "accounts.yaml")
	text := fmt.Sprintf("accounts:\n  %q:\n    messenger: connector\n    app: {id: %s, secret_file: secret, webhooks: true}\n", account, sandbox.DefaultAppID)
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(sandbox.DefaultAppSecret), 0o600); err != nil {
		return nil, err
	}
	return []string{"--accounts=" + file, "--webhook-listen=127.0.0.1:0"}, os.WriteFile(file, []byte(text), 0o600)
}

// socket is the messaging socket.
func socket() *messenger {
	return &messenger{
		name: "socket", protocol: proxy.WebSocket, domains: []string{"asyncMessagingEnt"},
		misleading: []misleading{
			{"503", []int{503}}, {"429", []int{429}}, {"501", []int{501}}, {"4xx", []int{400, 403, 404, 408, 409, 410, 413, 422, 499}},
		},
		urlAnswer: "ms.BaseGenerateURLResponse", publishAnswer: "ms.PublishEventResponse",
		news: func(at func(int64) int64) place {
			return lpSays(proxy.ToClient, at, "ms.MessagingEventNotification", "hosted/file")
		},
		status: socketStatus, statusAfter: socketStatusAfter,
		retryFor: time.Minute,
		flags:    func(string) ([]string, error) { return nil, nil },
		signIn: func(ctx context.Context, l *lane) (lpfileshare.Identity, string, error) {
			c, err := harness.SignUp(ctx, l.direct, account)
			return c.Credential(), c.ID, err
		},
		reauthenticate: dropSockets,
		settle:         dropSockets,
		opening: state{
			name: "opening the session", fresh: true,
			place: func(v int) place {
				return [...]place{
					lpSays(proxy.ToServer, spread(v), "GET /ws_api/"),
					lpSays(proxy.ToClient, spread(v), "HTTP/1.1 101"),
					lpSays(proxy.ToServer, spread(v), "SubscribeExConversations"),
					lpSays(proxy.ToClient, spread(v), "SubscribeExConversationsResponse"),
				}[v%4]
			},
			lost: func(v int) place {
				return [...]place{
					lpSays(proxy.ToClient, spread(v), "HTTP/1.1 101"),
					lpSays(proxy.ToClient, spread(v), "SubscribeExConversationsResponse"),
					lpSays(proxy.ToClient, spread(v), "ExConversationChangeNotification"),
				}[v%3]
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 502, 503, 504, 429, 599, 401, 403, 404}[v]
				return lpSays(proxy.ToServer, nil, "GET /ws_api/"), httpStatus(code), true, code < 429
			},
		},
	}
}

// dropSockets ends all LivePerson sockets. No call uses them, so the server does not reopen them.
func dropSockets(ctx context.Context, l *lane) error {
	l.sb.DropSockets(0)
	for l.sb.Sockets() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("sockets stay open: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
