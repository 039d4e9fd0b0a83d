package main

import (
	"bytes"
	"encoding/json"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	channelzservice "google.golang.org/grpc/channelz/service"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/scan"
)

// counters are what /debug/vars and /statusz show besides Go's own variables; docs/limits.md describes them.
type counters struct {
	rejected *rejections.Tally
	messages *recvlimit.Limiter
	webhooks *connector.Messenger
	scanner  *scan.Scanner // nil: none
	log      *serverLog
}

// vars returns the counters by name.
func (c *counters) vars() map[string]any {
	vars := map[string]any{"rejections": c.rejections(), "webhooks": c.webhooks.Counts(), "log_lines": c.log.counts()}
	if c.scanner != nil {
		vars["scans"] = c.scanner.Counts()
	}
	return vars
}

// rejections returns how often each limit rejected something.
func (c *counters) rejections() map[string]int64 {
	rejected := c.rejected.Counts()
	rejected["RECEIVE_MEMORY"] = c.messages.Ended()
	return rejected
}

// writeVars answers /debug/vars.
func (c *counters) writeVars(w http.ResponseWriter, _ *http.Request) {
	vars := c.vars()
	expvar.Do(func(v expvar.KeyValue) { vars[v.Key] = json.RawMessage(v.Value.String()) })
	writeJSON(w, vars)
}

// collectGarbage answers /debug/gc with the number of goroutines, so that a measurement counts live memory only.
func collectGarbage(w http.ResponseWriter, _ *http.Request) {
	runtime.GC()
	fmt.Fprintln(w, runtime.NumGoroutine())
}

// writeLevel answers GET /log-level.
func (l *serverLog) writeLevel(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, strings.ToLower(l.level.Level().String()))
}

// setLevel answers PUT /log-level, whose body is a level. It lasts until the server ends.
func (l *serverLog) setLevel(w http.ResponseWriter, r *http.Request) {
	const longest = 32
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
	var level slog.Level
	if err != nil || level.UnmarshalText(bytes.TrimSpace(text)) != nil {
		http.Error(w, "the body must be debug, info, warn or error", http.StatusBadRequest)
		return
	}
	before := l.level.Level()
	l.level.Set(level)
	l.always("log level changed", slog.String("from", before.String()), slog.String("to", level.String()))
	l.writeLevel(w, r)
}

// writeChannelz answers /channelz with what gRPC's channelz service knows of the server and its connections, as JSON.
func writeChannelz(service channelzpb.ChannelzServer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := struct {
			Servers []json.RawMessage `json:"servers"`
			Sockets []json.RawMessage `json:"sockets"`
		}{}
		add := func(to *[]json.RawMessage, m proto.Message) {
			if text, err := protojson.Marshal(m); err == nil {
				*to = append(*to, text)
			}
		}
		servers, err := service.GetServers(r.Context(), &channelzpb.GetServersRequest{})
		if err != nil {
			http.Error(w, "channelz is not available", http.StatusInternalServerError)
			return
		}
		for _, server := range servers.GetServer() {
			add(&answer.Servers, server)
			sockets, err := service.GetServerSockets(r.Context(), &channelzpb.GetServerSocketsRequest{ServerId: server.GetRef().GetServerId()})
			if err != nil { // the server has just ended
				continue
			}
			for _, ref := range sockets.GetSocketRef() {
				if socket, err := service.GetSocket(r.Context(), &channelzpb.GetSocketRequest{SocketId: ref.GetSocketId()}); err == nil {
					add(&answer.Sockets, socket.GetSocket())
				}
			}
		}
		writeJSON(w, answer)
	}
}

// channelz keeps the implementation of the service that grpc registers, because it is not exported otherwise.
type channelz struct{ server channelzpb.ChannelzServer }

// RegisterService implements grpc.ServiceRegistrar.
func (c *channelz) RegisterService(_ *grpc.ServiceDesc, service any) {
	c.server, _ = service.(channelzpb.ChannelzServer)
}

// newChannelz returns gRPC's channelz service.
func newChannelz() channelzpb.ChannelzServer {
	c := &channelz{}
	channelzservice.RegisterChannelzServiceToServer(c)
	return c.server
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
