package ledger

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A guard notices that the bucket has lost records. A lost record is a forgotten request id: if its request is repeated, the file is
// published a second time.
//
// It relies on revisions, which only increase: NATS assigns to every write a revision above all earlier ones, until the bucket is
// removed or its newest records are lost. The probe is the record that health checks write all the time, so it is always among the
// newest; if the probe is missing or old after a restart, so are other records.
//
// The state of a ledger in files is in a file beside them, and survives the process. Of a cluster the guard knows what this process
// has written.
type guard struct {
	accept bool // --ledger-accept-loss
	log    *slog.Logger

	newest atomic.Uint64 // highest revision of a record that was acknowledged to this process
	reused atomic.Bool   // a record got a revision that was in use before, and no check has seen that yet
	lost   atomic.Bool   // records are missing, as of the last check

	// The other fields belong to Open and then to the goroutine that checks.
	probe   uint64    // revision of the last probe
	needed  uint64    // revision of the first probe after the newest record
	after   uint64    // the newest record when needed was written
	records uint64    // number of records at the last check
	created time.Time // when the bucket was created that has all records; zero: not known yet
	bad     time.Time // when the bucket was created that lacks some; zero: none

	file   string        // "": none
	keeps  time.Duration // how long the bucket keeps a record at least
	sync   bool          // every write is synced
	state  guardState
	filed  uint64    // newest when the file was written
	next   uint64    // the next state.Synced; 0: none
	nextAt time.Time // when next was the probe
}

// guardState is the content of the file.
type guardState struct {
	Version int `json:"version"`
	// Probe is the revision of the first probe after the newest record. It survives the process, but not a power failure: then Synced
	// counts, an earlier one.
	Probe   uint64    `json:"probe"`
	Synced  uint64    `json:"synced"`
	Records uint64    `json:"records"`
	Boot    string    `json:"boot,omitempty"` // identifies the time between two starts of the machine
	Time    time.Time `json:"time"`
	// Keeps is how long the bucket kept records.
	Keeps time.Duration `json:"keeps,omitempty"`
	// Blocks are the checksums of JetStream's files, if it was stopped in an orderly way.
	Blocks map[string]uint32 `json:"blocks,omitempty"`
}

const (
	guardFile    = "state.json"
	guardVersion = 1
)

// errLost is returned while the ledger lacks records that it had.
var errLost = errors.New("the ledger has lost records, and a repeated request could publish its file a second time; restore them from a backup, or " +
	"accept the loss with --ledger-accept-loss")

func lost(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errLost, fmt.Sprintf(format, args...))
}

// load reads the file of a ledger in dir, and compares the files of its stream with it. JetStream must not run yet.
func (g *guard) load(dir, streamDir string) error {
	g.file = filepath.Join(dir, guardFile)
	text, err := os.ReadFile(g.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var s guardState
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil || s.Version != guardVersion {
		// It is written anew, and is no reason to refuse a ledger that may be complete.
		g.log.Warn("the file that shows whether the ledger has lost records cannot be read; losses before this start are not noticed", "file", g.file, "error", err)
		return nil
	}
	g.state = s
	keeps := cmp.Or(s.Keeps, g.keeps)                  // as it was when the records were written
	if s.Records == 0 || time.Since(s.Time) >= keeps { // nothing that it knows of can be missing
		return nil
	}
	g.records, g.needed = s.Records, s.Synced
	if s.Boot != "" && s.Boot == bootID() || g.sync {
		g.needed = s.Probe
	}
	g.probe = g.needed
	if s.Blocks == nil {
		return nil
	}
	now, err := checksums(streamDir)
	if err != nil {
		return lost("%v", err)
	}
	var damaged []string
	for name, sum := range s.Blocks {
		if got, ok := now[name]; !ok || got != sum {
			damaged = append(damaged, name)
		}
	}
	if len(damaged) > 0 {
		slices.Sort(damaged)
		return lost("%d of its %d files in %s are missing or damaged, first %s", len(damaged), len(s.Blocks), streamDir, damaged[0])
	}
	return nil
}

// checksums returns the checksum of each file in which JetStream stores the records of a stream.
func checksums(streamDir string) (map[string]uint32, error) {
	files, err := filepath.Glob(filepath.Join(streamDir, "msgs", "*.blk"))
	if err != nil {
		return nil, err
	}
	sums := map[string]uint32{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, err
		}
		sums[filepath.Base(name)] = h.Sum32()
	}
	return sums, nil
}

// creating is called if there is no bucket. It returns the first revision of a new one, which is above those of any earlier one: no
// ledger makes 1,000 writes per millisecond. 0: the default.
func (g *guard) creating() (first uint64, err error) {
	switch {
	case g.probe == 0 && g.newest.Load() == 0:
		if !g.accept {
			return 0, nil // the first start
		}
	case !g.expectsRecords():
		g.log.Warn("the ledger's bucket was removed; it had no records, and is created anew")
	case !g.accept:
		return 0, lost("its bucket %s does not exist any more", bucketName)
	default:
		g.log.Error("the ledger has lost all records, which --ledger-accept-loss accepts; repeated requests may publish files a second time")
	}
	return uint64(time.Now().UnixMilli()), nil
}

// expectsRecords reports whether a bucket without records lacks some.
func (g *guard) expectsRecords() bool { return g.records > 0 || g.newest.Load() > g.probe }

// opened verifies that a bucket that was opened has the newest records. probe is the revision of its probe, 0 if it has none; last is its
// last revision.
func (g *guard) opened(probe, last uint64) error {
	if !g.expectsRecords() || probe >= g.needed {
		return nil // the probe was written after the newest record
	}
	newest := g.newest.Load()
	if newest == 0 {
		newest = g.needed - 1
	}
	// A backup may be older than the last probe. A bucket whose files are missing may still report its last revision, but has no probe.
	if probe > 0 && last >= newest {
		return nil
	}
	return lost("its newest records are missing, up to revision %d", newest)
}

// accepted handles a loss that was noticed: it returns err unless the operator accepts it.
func (g *guard) accepted(err error) error {
	if !errors.Is(err, errLost) || !g.accept {
		return err
	}
	g.log.Error("--ledger-accept-loss: repeated requests may publish files a second time", "accepted", err)
	g.newest.Store(0)
	g.probe, g.needed, g.records, g.created, g.bad = 0, 0, 0, time.Time{}, time.Time{}
	return nil
}

// saved verifies the revision of a record that was written; newest was before when the write began.
func (g *guard) saved(before, rev uint64) error {
	if rev <= before && !g.accept {
		g.reused.Store(true)
		g.lost.Store(true)
		return lost("it begins anew at revision %d, after revision %d", rev, before)
	}
	for {
		now := g.newest.Load()
		if now >= rev && rev > before || g.newest.CompareAndSwap(now, rev) {
			return nil
		}
	}
}

// probed verifies the revision of a new probe, which was written after newest was before, and the state of the bucket after that.
func (g *guard) probed(before, probe uint64, info *jetstream.StreamInfo) error {
	if !g.bad.IsZero() && g.bad.Equal(info.Created) {
		return lost("its bucket %s was created anew at %s", bucketName, info.Created.UTC().Format(time.RFC3339))
	}
	err := g.complete(before, probe, info)
	if g.reused.Swap(false) && err == nil && !g.accept {
		err = lost("a record got a revision that was in use before")
	}
	if err != nil {
		if g.accept {
			return g.accepted(err)
		}
		g.bad = info.Created
		return err
	}
	if g.needed == 0 || before != g.after {
		g.needed, g.after = probe, before
	}
	g.created, g.bad = info.Created, time.Time{}
	g.probe, g.records = probe, info.State.Msgs-min(info.State.Msgs, 1) // without the probe
	return nil
}

// complete reports whether a bucket has the records that it had at the last check, unless they have expired.
func (g *guard) complete(before, probe uint64, info *jetstream.StreamInfo) error {
	if before == 0 && !g.expectsRecords() {
		return nil
	}
	if probe <= before {
		return lost("it begins anew at revision %d, after revision %d", probe, before)
	}
	if g.created.IsZero() || g.created.Equal(info.Created) {
		return nil
	}
	// This is another bucket. It was restored from a backup if it has older records than itself, and created by a server that accepts the
	// loss if it begins above all revisions.
	if info.State.FirstTime.Before(info.Created) || info.Config.FirstSeq > before && info.Config.FirstSeq > g.probe {
		return nil
	}
	return lost("its bucket %s was removed and created anew at %s", bucketName, info.Created.UTC().Format(time.RFC3339))
}

// persist writes the state to the file, if it has changed.
func (g *guard) persist() {
	if g.file == "" {
		return
	}
	now := time.Now()
	syncing := g.next != 0 && now.Sub(g.nextAt) > syncInterval+time.Minute
	if g.state.Version != 0 && g.state.Blocks == nil && g.after == g.filed && !syncing {
		return // nothing but probes since
	}
	if syncing {
		g.state.Synced, g.next = g.next, 0
	}
	if g.next == 0 {
		g.next, g.nextAt = g.needed, now
	}
	g.state.Blocks = nil
	if err := g.write(now); err != nil {
		g.log.Debug("the state of the ledger was not written; the previous one stays", "error", err)
		return
	}
	g.filed = g.after
}

// opening forgets the checksums, because JetStream changes the files from now on.
func (g *guard) opening() error {
	if g.state.Blocks == nil {
		return nil
	}
	g.state.Blocks = nil
	return g.write(g.state.Time)
}

// stopped records the files of a server that has stopped in an orderly way.
func (g *guard) stopped(streamDir string) error {
	if g.file == "" || g.created.IsZero() || g.lost.Load() {
		return nil // nothing was verified since the last stop
	}
	sums, err := checksums(streamDir)
	if err != nil {
		return err
	}
	if g.records == 0 && g.expectsRecords() {
		g.records = 1 // written since the last check
	}
	g.state.Blocks, g.state.Synced = sums, g.needed
	return g.write(time.Now())
}

// write replaces the file.
func (g *guard) write(now time.Time) error {
	s := g.state
	s.Version, s.Probe, s.Records, s.Boot, s.Time, s.Keeps = guardVersion, g.needed, g.records, bootID(), now, g.keeps
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(g.file), guardFile+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil && (g.sync || s.Blocks != nil || g.created.IsZero()) {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), g.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	g.state = s
	return nil
}

// bootID identifies the time since the machine has started; "" if that is unknown.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // Linux
	return string(id[:max(len(id)-1, 0)])
}
