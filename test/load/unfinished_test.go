package load

import (
	"encoding/binary"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// An unfinishedAttack sends messages that never end.
type unfinishedAttack struct {
	name, method string
	frame        int  // bytes of each DATA frame's payload
	cut          bool // stop within a frame as soon as a stream is reset, and keep the connection open
}

var unfinishedAttacks = []unfinishedAttack{
	{"Upload", pb.FileSharingService_Upload_FullMethodName, 16 << 10, false},
	{"UploadSmallFile", pb.FileSharingService_UploadSmallFile_FullMethodName, 16 << 10, false},
	{"Health/Check", "/grpc.health.v1.Health/Check", 16 << 10, false},
	{"Upload, frames of 4,097 bytes", pb.FileSharingService_Upload_FullMethodName, 4097, false},
	{"Upload, frames of 1 byte", pb.FileSharingService_Upload_FullMethodName, 1, false},
	{"Health/Check, frames of 1 byte", "/grpc.health.v1.Health/Check", 1, false},
	{"Health/Check, cut within a frame", "/grpc.health.v1.Health/Check", 16 << 10, true},
}

var attackFor = flag.Duration("attack", 2*time.Second, "how long each attack of TestUnfinishedMessages lasts")

// TestUnfinishedMessages has 250 streams on each of 4 connections send messages of 5 MiB that never end, without an identity, and
// begin another when the server ends one. The server's memory stays bounded, and honest uploads succeed meanwhile. An attack lasts
// at most as long as -attack says.
func TestUnfinishedMessages(t *testing.T) {
	const (
		connections, streams = 4, 250
		maxPeak              = 400 * mib
	)
	fmt.Printf("%s: %d connections with %d streams each, for %s; uploads of 3 MB beside them: number, median and slowest in ms\n%-34s %9s %9s %9s %9s %22s %22s\n",
		t.Name(), connections, streams, *attackFor, "messages on", "peak MiB", "sent MiB", "ended", "closed", "Upload", "UploadSmallFile")
	for _, attack := range unfinishedAttacks {
		t.Run(attack.name, func(t *testing.T) {
			s := startServer(t, "--documents")
			c := s.Consumer(t)
			conversation, client := c.Conversation, c.Client
			if err := upload(t.Context(), client, conversation, text(fileBytes)); err != nil {
				t.Fatal(err)
			}
			end := time.Now().Add(*attackFor)
			attackers := make([]*attacker, connections)
			var running sync.WaitGroup
			for i := range attackers {
				attackers[i] = &attacker{addr: s.Addr, attack: attack, end: end}
				running.Go(func() { attackers[i].run(t, streams) })
			}
			streamed := uploadUntil(t, end, func() error { return upload(t.Context(), client, conversation, text(fileBytes)) })
			unary := uploadUntil(t, end, func() error {
				_, err := client.Raw().Files.UploadSmallFile(t.Context(), &pb.UploadSmallFileRequest{
					Spec: &pb.UploadSpec{Conversation: conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT}, Data: text(fileBytes),
				})
				return err
			})
			both := [2][]time.Duration{<-streamed, <-unary}
			running.Wait()
			var sent int64
			var ended, closed int
			for _, a := range attackers {
				sent, ended, closed = sent+a.sent, ended+a.ended, closed+a.closed
			}
			peak := s.Memory(t, "VmHWM")
			for _, times := range both {
				if len(times) == 0 {
					t.Fatal("no upload succeeded beside the attack")
				}
			}
			fmt.Printf("%-34s %9d %9d %9d %9d %22s %22s\n", attack.name, peak/mib, sent/mib, ended, closed, spread(both[0]), spread(both[1]))
			if peak > maxPeak {
				t.Errorf("%s: the server had %d MiB resident, want at most %d", attack.name, peak/mib, maxPeak/mib)
			}
		})
	}
}

// uploadUntil repeats an upload until end, and returns how long each took.
func uploadUntil(t *testing.T, end time.Time, upload func() error) <-chan []time.Duration {
	done := make(chan []time.Duration, 1)
	go func() {
		var times []time.Duration
		for time.Now().Before(end) {
			begun := time.Now()
			if err := upload(); err != nil {
				t.Errorf("an upload of 3 MB beside the attack: %v", err)
				break
			}
			times = append(times, time.Since(begun))
		}
		done <- times
	}()
	return done
}

func spread(times []time.Duration) string {
	slices.Sort(times)
	return fmt.Sprintf("%d, %d, %d", len(times), times[len(times)/2].Milliseconds(), times[len(times)-1].Milliseconds())
}

// An attacker keeps unfinished messages on one connection, within the windows of its streams. It ignores the connection's window, as
// grpc-go does. It connects again when the server closes the connection.
type attacker struct {
	*rawConn
	attack unfinishedAttack
	addr   string
	end    time.Time
	sent   int64
	ended  int // streams
	closed int // connections
}

// messageBytes is what each message claims to have; 64 KiB of it are never sent.
const messageBytes = 5 << 20

func (a *attacker) run(t *testing.T, streams int) {
	for time.Now().Before(a.end) {
		a.rawConn = dialRaw(t, a.addr, 65535)
		_ = a.SetWriteDeadline(a.end)
		if !a.attackOnce(streams) {
			a.closed++
		}
		for _, n := range a.endings() {
			a.ended += n
		}
	}
}

// attackOnce reports whether the connection lasted until the end of the attack.
func (a *attacker) attackOnce(streams int) bool {
	type open struct {
		id   uint32
		sent int
	}
	all := make([]open, streams)
	for time.Now().Before(a.end) {
		progress := false
		for i := range all {
			s := &all[i]
			if s.id == 0 || a.over(s.id) {
				if s.id != 0 && a.attack.cut {
					return a.stopWithinFrame(all[(i+1)%streams].id)
				}
				id, err := a.headers(a.attack.method, false)
				if err != nil {
					return !time.Now().Before(a.end)
				}
				*s = open{id: id}
			}
			n := min(256<<10, a.window(s.id)-s.sent, messageBytes-64<<10-s.sent)
			if a.attack.frame == 1 {
				n = min(n, 2000)
			}
			if n <= 0 {
				continue
			}
			if err := a.write(dataFrames(s.id, s.sent == 0, n, a.attack.frame)); err != nil {
				return !time.Now().Before(a.end)
			}
			s.sent += n
			a.sent += int64(n)
			progress = true
		}
		if !progress {
			select {
			case <-a.gone:
				return false
			case <-a.news: // a window or an end
			case <-time.After(time.Until(a.end)):
			}
		}
	}
	return true
}

func (a *attacker) write(b []byte) error {
	a.rawConn.write.Lock()
	defer a.rawConn.write.Unlock()
	_, err := a.Conn.Write(b)
	return err
}

// stopWithinFrame leaves the server waiting for the rest of a frame.
func (a *attacker) stopWithinFrame(id uint32) bool {
	b := dataFrames(id, false, 16<<10, 16<<10)
	_ = a.write(b[:len(b)-1])
	select {
	case <-a.gone:
		return false
	case <-time.After(time.Until(a.end)):
		return true
	}
}

// dataFrames returns DATA frames with n bytes in all, the first of which begin a message.
func dataFrames(id uint32, first bool, n, frame int) []byte {
	out := make([]byte, 0, n+n/frame*9+9)
	prefix := binary.BigEndian.AppendUint32([]byte{0}, messageBytes)
	if !first {
		prefix = nil
	}
	for n > 0 {
		k := min(n, frame)
		out = append(out, byte(k>>16), byte(k>>8), byte(k), 0, 0)
		out = binary.BigEndian.AppendUint32(out, id)
		out = append(out, make([]byte, k)...)
		m := copy(out[len(out)-k:], prefix)
		prefix = prefix[m:]
		n -= k
	}
	return out
}
