package recvlimit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/test.Service/Take"

// discard is where the tests' logs go.
var discard = slog.New(slog.DiscardHandler)

// serve starts a server that reads all messages of a call and answers with their number of bytes.
func serve(tb testing.TB, creds credentials.TransportCredentials) (addr string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.Creds(creds), grpc.MaxRecvMsgSize(16<<20), grpc.MaxConcurrentStreams(250), grpc.WaitForHandlers(true),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			n := 0
			for {
				var m wrapperspb.BytesValue
				err := stream.RecvMsg(&m)
				if err == io.EOF {
					return stream.SendMsg(wrapperspb.Int64(int64(n)))
				}
				if err != nil {
					return err
				}
				n += len(m.GetValue())
			}
		}),
	)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	tb.Cleanup(server.Stop)
	return listener.Addr().String()
}

func dial(tb testing.TB, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// send makes a call with one message of n bytes.
func send(ctx context.Context, conn *grpc.ClientConn, n int) error {
	return conn.Invoke(ctx, method, wrapperspb.Bytes(zeros(n)), &wrapperspb.Int64Value{})
}

// A holder is a client that sends unfinished messages.
type holder struct {
	net.Conn
	framer *http2.Framer
	resets chan http2.RSTStreamFrame
	gone   chan struct{}
}

// hold connects, and opens streams with unfinished messages of n bytes of payload each.
func hold(tb testing.TB, conn net.Conn, n int, streams ...uint32) *holder {
	tb.Helper()
	h := &holder{Conn: conn, framer: http2.NewFramer(conn, conn), resets: make(chan http2.RSTStreamFrame, 1000), gone: make(chan struct{})}
	tb.Cleanup(func() { conn.Close() })
	var block bytes.Buffer
	pack := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = pack.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}) // Sensitive: the block can be sent again
	}
	must(tb, second(io.WriteString(conn, http2.ClientPreface)))
	must(tb, h.framer.WriteSettings())
	go func() { // ends with the connection
		defer close(h.gone)
		for {
			f, err := h.framer.ReadFrame()
			if err != nil {
				return
			}
			if r, ok := f.(*http2.RSTStreamFrame); ok {
				h.resets <- *r
			}
		}
	}()
	for _, id := range streams {
		must(tb, h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}))
		must(tb, h.framer.WriteData(id, false, prefix(10<<20)))
		for left := n; left > 0; left -= 16 << 10 {
			must(tb, h.framer.WriteData(id, false, zeros(min(left, 16<<10))))
		}
	}
	return h
}

func second(_ int, err error) error { return err }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until ok, which other goroutines bring about.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			tb.Fatalf("not within 20 s: %s", what)
		}
	}
}

func tcp(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	must(tb, err)
	return conn
}

// transports are the ways to connect, each with what a client of it uses.
func transports(tb testing.TB) map[string][2]credentials.TransportCredentials {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, key.Public(), key)
	must(tb, err)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return map[string][2]credentials.TransportCredentials{
		"plaintext": {insecure.NewCredentials(), insecure.NewCredentials()},
		"TLS": {credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}),
			credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})},
	}
}

// TestLimiter_EndsCalls has one connection hold too much and then nothing: the server ends its oldest messages, goes on with the
// others, and serves another connection meanwhile.
func TestLimiter_EndsCalls(t *testing.T) {
	for name, creds := range transports(t) {
		t.Run(name, func(t *testing.T) {
			l := New(1<<20, discard)
			addr := serve(t, l.Credentials(creds[0]))
			raw := tcp(t, addr)
			if name == "TLS" {
				raw = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			}
			other := dial(t, addr, creds[1])
			must(t, send(t.Context(), other, 100_000))
			h := hold(t, raw, 300_000, 1, 3, 5, 7, 9)
			reset := <-h.resets
			if reset.ErrCode != http2.ErrCodeRefusedStream {
				t.Errorf("the stream was reset with %v", reset.ErrCode)
			}
			eventually(t, "the rest is within the limit", func() bool { return l.Held() > 0 && l.Held() <= 1<<20 && l.Ended() > 0 })
			must(t, send(t.Context(), other, 100_000))
			if l.Closed() != 0 {
				t.Error("a connection was closed")
			}
			raw.Close()
			eventually(t, "nothing is held", func() bool { return l.Held() == 0 })
		})
	}
}

// TestLimiter_Client shows what a gRPC client sees: UNAVAILABLE, and its connection goes on.
func TestLimiter_Client(t *testing.T) {
	l := New(1<<20, discard)
	conn := dial(t, serve(t, l.Credentials(insecure.NewCredentials())), insecure.NewCredentials())
	if err := send(t.Context(), conn, 3<<20); status.Code(err) != codes.Unavailable {
		t.Errorf("a message of three times the limit: %v, want UNAVAILABLE", err)
	}
	must(t, send(t.Context(), conn, 900_000))
	if l.Ended() == 0 || l.Closed() != 0 {
		t.Errorf("%d calls were ended and %d connections closed", l.Ended(), l.Closed())
	}
	eventually(t, "nothing is held", func() bool { return l.Held() == 0 })
}

// TestLimiter_SharedConnection sends 40 messages of 512 KiB at once over one connection, as a proxy would, in a limit of 4 MiB.
// Calls that are ended are repeated after a backoff, and all succeed.
func TestLimiter_SharedConnection(t *testing.T) {
	const calls, size = 40, 512 << 10
	l := New(4<<20, discard)
	conn := dial(t, serve(t, l.Credentials(insecure.NewCredentials())), insecure.NewCredentials())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	var tries, first atomic.Int64
	begun := time.Now()
	for range calls {
		all.Go(func() {
			for try := 1; ; try++ {
				tries.Add(1)
				err := send(ctx, conn, size)
				switch {
				case err == nil && try == 1:
					first.Add(1)
					return
				case err == nil:
					return
				case status.Code(err) != codes.Unavailable:
					t.Errorf("try %d: %v", try, err)
					return
				}
				time.Sleep(mathrand.N(min(time.Second, 50*time.Millisecond<<try)))
			}
		})
	}
	all.Wait()
	t.Logf("%d messages of 512 KiB over one connection in 4 MiB: %d the first time, %d tries, %.1f s; %d connections closed",
		calls, first.Load(), tries.Load(), time.Since(begun).Seconds(), l.Closed())
	if l.Held() != 0 || l.Closed() != 0 {
		t.Errorf("%d bytes held, %d connections closed", l.Held(), l.Closed())
	}
}

// bubble connects a client to a conn whose Read runs in a goroutine, as grpc-go's would, without grpc-go.
func bubble(l *Limiter) (client net.Conn, server *conn, read *bytes.Buffer) {
	client, inner := net.Pipe()
	server, read = l.newConn(inner), &bytes.Buffer{}
	go func() {
		_, _ = io.Copy(read, server) // until either end closes
		server.Close()
	}()
	return client, server, read
}

func TestLimiter_ConnectionStuckInFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(50_000, discard)
		client, _, read := bubble(l)
		s := newScript().open(1, 3).data(1, prefix(1<<20), zeros(16379)).data(3, prefix(1<<20), zeros(16379)).data(1, zeros(16384)).data(3, zeros(16384))
		must(t, second(client.Write(s.Bytes()[:s.Len()-1])))
		synctest.Wait()
		if l.Closed() != 0 || l.Ended() != 0 {
			t.Fatalf("%d calls ended and %d connections closed before the frame's end", l.Ended(), l.Closed())
		}
		time.Sleep(resetWithin) // of the bubble
		synctest.Wait()
		if l.Closed() != 1 || l.Held() != 0 || !bytes.Equal(read.Bytes(), s.Bytes()[:s.Len()-1]) {
			t.Errorf("%d connections closed, %d bytes held, %d bytes read", l.Closed(), l.Held(), read.Len())
		}
	})
}

func TestLimiter_ConnectionStuckInFrame_GoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(50_000, discard)
		client, _, read := bubble(l)
		s := newScript().open(1, 3).data(1, prefix(1<<20), zeros(16379)).data(3, prefix(1<<20), zeros(16379)).data(1, zeros(16384)).data(3, zeros(16384))
		must(t, second(client.Write(s.Bytes()[:s.Len()-1])))
		time.Sleep(resetWithin - 1)
		must(t, second(client.Write([]byte{0})))
		time.Sleep(time.Hour)
		must(t, second(client.Write(newScript().data(3, zeros(100)).Bytes()[prefaceLen:])))
		synctest.Wait()
		if l.Closed() != 0 || l.Ended() == 0 || l.Held() > 50_000 {
			t.Errorf("%d calls ended, %d connections closed, %d bytes held", l.Ended(), l.Closed(), l.Held())
		}
		updates := inserted(t, read.Bytes())
		if len(updates) != int(l.Ended()) {
			t.Errorf("grpc-go reads WINDOW_UPDATE of 0 for streams %d, and %d calls were ended", updates, l.Ended())
		}
		client.Close()
		synctest.Wait()
		if l.Held() != 0 {
			t.Errorf("%d bytes are held", l.Held())
		}
	})
}

// inserted returns the streams that were given a WINDOW_UPDATE of 0.
func inserted(t *testing.T, read []byte) (ids []uint32) {
	framer := http2.NewFramer(nil, bytes.NewReader(read[prefaceLen:]))
	for {
		_, err := framer.ReadFrame()
		if se, ok := err.(http2.StreamError); ok {
			ids = append(ids, se.StreamID)
		} else if err == io.EOF {
			return ids
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLimiter_QuietConnection has a connection that holds much and sends nothing more lose its messages to the share of another.
func TestLimiter_QuietConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(200_000, discard)
		quiet, _, quietRead := bubble(l)
		s := newScript().open(1, 3, 5, 7, 9)
		for id := uint32(1); id < 10; id += 2 {
			s.data(id, prefix(1<<20), zeros(16379)).data(id, zeros(16384))
		}
		must(t, second(quiet.Write(s.Bytes())))
		time.Sleep(time.Hour)
		busy, _, busyRead := bubble(l)
		b := newScript().open(1)
		for range 5 {
			b.data(1, prefix(20_000), zeros(16379))
			b.data(1, zeros(20_000-16379))
		}
		b.data(1, prefix(1<<20), zeros(16379)).data(1, zeros(16384)).data(1, zeros(16384))
		must(t, second(busy.Write(b.Bytes())))
		synctest.Wait()
		if ids := inserted(t, quietRead.Bytes()); len(ids) == 0 {
			t.Error("nothing of the quiet connection was ended")
		}
		if ids := inserted(t, busyRead.Bytes()); len(ids) != 0 {
			t.Errorf("streams %d of the connection within its share were ended", ids)
		}
		if l.Held() > 200_000 {
			t.Errorf("%d bytes are held", l.Held())
		}
		quiet.Close()
		busy.Close()
	})
}

// TestLimiter_MessageCompleteInTime does not end a call whose message becomes complete before the stream could be reset.
func TestLimiter_MessageCompleteInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(50_000, discard)
		client, server, read := bubble(l)
		s := newScript().open(1).data(1, prefix(16384+100-5), zeros(16379)).data(1, zeros(100))
		must(t, second(client.Write(s.Bytes()[:s.Len()-1])))
		synctest.Wait()
		server.reset(1)
		must(t, second(client.Write([]byte{0})))
		synctest.Wait()
		if ids := inserted(t, read.Bytes()); len(ids) != 0 || l.Ended() != 0 || l.Held() != 0 || l.pending.Load() != 0 {
			t.Errorf("streams %d, %d ended, %d held, %d pending", ids, l.Ended(), l.Held(), l.pending.Load())
		}
		client.Close()
	})
}

func TestOrder(t *testing.T) {
	second := int64(time.Second)
	all := []unfinished{
		{id: 1, begun: 70 * second, moved: 99 * second}, {id: 2, begun: 60 * second, moved: 80 * second}, {id: 3, begun: 99 * second, moved: 99 * second},
		{id: 4, begun: 50 * second, moved: 94 * second}, {id: 5, begun: 98 * second, moved: 99 * second},
	}
	order(all, 100*second)
	var ids []uint32
	for _, m := range all {
		ids = append(ids, m.id)
	}
	if want := []uint32{2, 4, 3, 5, 1}; !slices.Equal(ids, want) {
		t.Errorf("the order is %d, want %d: slow ones first, then the newest", ids, want)
	}
}

func TestLimiter_Log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := New(50_000, slog.New(slog.NewTextHandler(&log, nil)))
		for range 3 {
			client, _, _ := bubble(l)
			s := newScript().open(1).data(1, prefix(1<<20), zeros(16379)).data(1, zeros(16384)).data(1, zeros(16384)).data(1, zeros(16384))
			must(t, second(client.Write(s.Bytes())))
			time.Sleep(time.Second)
			client.Close()
		}
		if n := strings.Count(log.String(), "\n"); l.Ended() != 3 || n != 1 || !strings.Contains(log.String(), "limit=50000") {
			t.Errorf("%d calls ended, and the log has %d lines:\n%s", l.Ended(), n, log.String())
		}
	})
}

// BenchmarkStream sends messages of 64 KiB on one stream, to a server without a Limiter and to one with it.
func BenchmarkStream(b *testing.B) {
	for name, creds := range map[string]credentials.TransportCredentials{
		"plain": insecure.NewCredentials(), "counted": New(64<<20, discard).Credentials(insecure.NewCredentials()),
	} {
		b.Run(name, func(b *testing.B) {
			conn := dial(b, serve(b, creds), insecure.NewCredentials())
			stream, err := conn.NewStream(b.Context(), &grpc.StreamDesc{ClientStreams: true}, method)
			must(b, err)
			m := wrapperspb.Bytes(zeros(64 << 10))
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			for b.Loop() {
				must(b, stream.SendMsg(m))
			}
			must(b, stream.CloseSend())
			must(b, stream.RecvMsg(&wrapperspb.Int64Value{}))
		})
	}
}

// BenchmarkSmallFrames measures what grpc-go holds for each DATA frame of 1 byte, which perFrame must cover. Frames of one stream in
// a row pile up, and grpc-go joins them; those of many streams by turns are read one by one.
func BenchmarkSmallFrames(b *testing.B) {
	const streams, frames = 250, 2000
	var ids []uint32
	for i := range uint32(streams) {
		ids = append(ids, 2*i+1)
	}
	for _, order := range []string{"in a row", "by turns"} {
		b.Run(order, func(b *testing.B) {
			for b.Loop() {
				l := New(1<<40, discard)
				h := hold(b, tcp(b, serve(b, l.Credentials(insecure.NewCredentials()))), 1, ids...)
				eventually(b, "the streams are open", func() bool { return l.Held() >= streams*(frameCost(1)+frameCost(5)) })
				before := heap()
				sent := newScript()
				sent.Reset()
				for i := range streams * frames {
					if order == "in a row" {
						sent.data(ids[i/frames], zeros(1))
					} else {
						sent.data(ids[i%streams], zeros(1))
					}
					if sent.Len() >= 1000 || i == streams*frames-1 {
						must(b, second(h.Write(sent.Bytes())))
						sent.Reset()
					}
				}
				eventually(b, "all have arrived", func() bool { return l.Held() >= streams*frames*frameCost(1) })
				b.ReportMetric(float64(heap()-before)/(streams*frames), "B/frame")
				h.Close()
			}
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestConnection_EndsWithTheConnection(t *testing.T) {
	l := New(16<<20, discard)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections := make(chan context.Context, 2)
	server := grpc.NewServer(grpc.Creds(l.Credentials(insecure.NewCredentials())), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		p, _ := peer.FromContext(stream.Context())
		if AuthInfo(p).AuthType() != "insecure" {
			t.Errorf("the inner credentials are %s", AuthInfo(p).AuthType())
		}
		connections <- Connection(stream.Context())
		return stream.SendMsg(wrapperspb.Int64(0))
	}))
	go func() { _ = server.Serve(listener) }() // ends with Stop
	defer server.Stop()
	conn := dial(t, listener.Addr().String(), insecure.NewCredentials())
	for range 2 {
		if err := send(t.Context(), conn, 10); err != nil {
			t.Fatal(err)
		}
	}
	first, second := <-connections, <-connections
	if first != second || first.Err() != nil {
		t.Errorf("two calls of one connection have %v and %v, %v", first, second, first.Err())
	}
	conn.Close()
	<-first.Done()
}
