package naive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// timeout bounds a request to LivePerson and a use of the ledger.
const timeout = 30 * time.Second

// work is what commit addc3e6 does for a file besides moving it: per upload two requests to LivePerson, one load of the ledger and
// four saves, per download one request. The ledger is NATS in this process, in memory.
type work struct {
	liveperson string // host and port
	ledger     jetstream.KeyValue

	mu       sync.Mutex
	sessions map[string]*session // by token
}

func newWork(liveperson string) (*work, error) {
	dir, err := os.MkdirTemp("", "naive-ledger")
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(timeout) {
		return nil, errors.New("the ledger did not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	ledger, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "requests", Storage: jetstream.MemoryStorage, TTL: 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	return &work{liveperson: strings.TrimPrefix(liveperson, "http://"), ledger: ledger, sessions: map[string]*session{}}, nil
}

// A record is what the ledger has of an upload.
type record struct {
	RequestID string    `json:"requestId"`
	State     string    `json:"state"`
	Path      string    `json:"path,omitempty"`
	At        time.Time `json:"at"`
	revision  uint64
}

// claim looks a request id up and claims it.
func (w *work) claim(id string) (*record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := w.ledger.Get(ctx, id); !errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("the request id is known: %w", err)
	}
	r := &record{RequestID: id, State: "receiving", At: time.Now()}
	value, err := json.Marshal(r)
	if err == nil {
		r.revision, err = w.ledger.Create(ctx, id, value)
	}
	return r, err
}

// save saves a record's next state.
func (w *work) save(r *record, state, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r.State, r.Path, r.At = state, path, time.Now()
	value, err := json.Marshal(r)
	if err == nil {
		r.revision, err = w.ledger.Update(ctx, r.RequestID, value, r.revision)
	}
	return err
}

// A session is a consumer's socket.
type session struct {
	mu      sync.Mutex // guards what follows, and writes
	socket  *websocket.Conn
	last    int
	waiting map[string]chan json.RawMessage // by request id
	err     error                           // why the socket ended
}

// session returns the session of a token. The first use opens it.
func (w *work) session(token string) (*session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sessions[token]; s != nil {
		return s, nil
	}
	url := "ws://" + w.liveperson + "/ws_api/account/12345678/messaging/consumer?v=3"
	socket, _, err := websocket.DefaultDialer.Dial(url, http.Header{"Authorization": {"jwt " + token}})
	if err != nil {
		return nil, errors.New("LivePerson does not accept the token")
	}
	s := &session{socket: socket, waiting: map[string]chan json.RawMessage{}}
	go s.read()
	w.sessions[token] = s
	return s, nil
}

// read passes answers to those that wait for them, until the socket ends.
func (s *session) read() {
	for {
		_, data, err := s.socket.ReadMessage()
		var frame struct {
			ReqID string          `json:"reqId"`
			Code  int             `json:"code"`
			Body  json.RawMessage `json:"body"`
		}
		if err == nil {
			err = json.Unmarshal(data, &frame)
		}
		s.mu.Lock()
		if err != nil {
			s.err = err
			for _, c := range s.waiting {
				close(c)
			}
			s.waiting = nil
			s.mu.Unlock()
			return
		}
		if c := s.waiting[frame.ReqID]; c != nil {
			delete(s.waiting, frame.ReqID)
			if frame.Code == http.StatusOK {
				c <- frame.Body
			}
			close(c)
		}
		s.mu.Unlock()
	}
}

// ask sends a request and reads the answer's body into answer.
func (s *session) ask(kind string, body, answer any) error {
	c := make(chan json.RawMessage, 1)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	s.last++
	id := strconv.Itoa(s.last)
	s.waiting[id] = c
	err := s.socket.WriteJSON(map[string]any{"kind": "req", "id": id, "type": kind, "body": body})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	data, ok := <-c
	if !ok {
		return fmt.Errorf("LivePerson rejects %s", kind)
	}
	return json.Unmarshal(data, answer)
}

// converse opens a conversation.
func (s *session) converse() (string, error) {
	var answer struct {
		ID string `json:"conversationId"`
	}
	err := s.ask("cm.ConsumerRequestConversation", nil, &answer)
	return answer.ID, err
}

// signed is the answer to a request for a URL.
type signed struct {
	Path   string            `json:"relativePath"`
	Params map[string]string `json:"queryParams"`
}

func (s *signed) target() string {
	return s.Path + "?temp_url_sig=" + s.Params["temp_url_sig"] + "&temp_url_expires=" + s.Params["temp_url_expires"]
}

func (s *session) uploadURL(size int64) (string, error) {
	var answer signed
	err := s.ask("ms.GenerateURLForUploadFile", map[string]any{"fileSize": strconv.FormatInt(size, 10), "fileType": "PDF"}, &answer)
	return answer.target(), err
}

func (s *session) downloadURL(path string) (string, error) {
	var answer signed
	err := s.ask("ms.GenerateURLForDownloadFile", map[string]any{"relativePath": path}, &answer)
	return answer.target(), err
}

func (s *session) publish(conversation, path string) error {
	var answer struct{}
	return s.ask("ms.PublishEvent", map[string]any{
		"dialogId": conversation, "conversationId": conversation,
		"event": map[string]any{"type": "ContentEvent", "contentType": "hosted/file", "message": map[string]any{"caption": "", "relativePath": path, "fileType": "PDF"}},
	}, &answer)
}
