package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

// A measured has the results of the peers in one scenario, by peer and round.
type measured struct {
	scenario scenario
	results  map[string][]*load.Result
}

// options are the flags of a comparison.
type options struct {
	server  string
	peers   peerFlags
	only    string
	sizes   string
	streams string
	ways    string
	rounds  int
	pace    pace
	swift   string
	out     string
}

// peerFlags are servers of other versions: NAME=FILE.
type peerFlags []peer

func (p *peerFlags) String() string { return "" }

func (p *peerFlags) Set(text string) error {
	name, file, ok := strings.Cut(text, "=")
	if !ok || name == "" || file == "" {
		return errors.New("want NAME=FILE")
	}
	*p = append(*p, server(name, "the server in the file that was given", file, false))
	return nil
}

func parse(args []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.StringVar(&o.server, "server", "", "server to measure; default: the one of this source tree, which is built")
	set.Var(&o.peers, "peer", "`NAME=FILE`: another build of the server, as one more peer; repeatable")
	set.StringVar(&o.only, "only", "", "names of the peers to measure, separated by commas; default: all")
	set.StringVar(&o.sizes, "sizes", "100000,3000000", "sizes of files, in bytes")
	set.StringVar(&o.streams, "streams", "1,8,64,512", "numbers of transfers at once")
	set.StringVar(&o.ways, "ways", "up,down", "directions")
	set.IntVar(&o.rounds, "rounds", 3, "number of rounds")
	set.DurationVar(&o.pace.warm, "warm", 300*time.Millisecond, "time before each measurement")
	set.DurationVar(&o.pace.window, "window", 800*time.Millisecond, "time in which transfers begin that are measured")
	set.Float64Var(&o.pace.calm, "calm", calm, "CPU that other programs may use during a measurement, in `cores`; with more it is repeated once")
	set.StringVar(&o.swift, "swift", "", "`FILE` with the lines that test/swift/up prints, for a real OpenStack Swift that is up; default: none")
	set.StringVar(&o.out, "out", "", "folder of performance.md, which gets the tables and plots; default: none")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return o, nil
}

// ours is the peer that all others are compared with, and naiveSums the one whose CPU time `bench check` compares.
const (
	ours      = "lpfileshare"
	naiveSums = "naive-sums"
)

// plainPeers returns the peers in the order of the tables.
func plainPeers() []peer {
	work := naiveGateway("naive-work", "naive-sums with the requests to LivePerson and the uses of a ledger that the server at commit addc3e6 made; small files only",
		false, true, "-sums")
	work.most = 1_000_000
	bare := naiveGateway("naive", "a naive gRPC gateway without sums: standard codec, io.Pipe, http.Client", false, false)
	bare.against = ours + "-crc"
	return []peer{
		server(ours, "this server with its default flags, but higher limits of one caller", "", false),
		server(ours+"-crc", "the same with `--no-check-etag`: CRC-32C alone", "", false, "--no-check-etag"),
		naiveGateway(naiveSums, "a naive gRPC gateway with this server's default sums: up MD5 and CRC-32C, down CRC-32C", false, false, "-sums"),
		bare,
		work,
		reverseProxy("reverseproxy", "Go's httputil.ReverseProxy over HTTP/1.1, buffers of 128 KiB"),
		nginx("nginx-tuned", "nginx without buffering, buffers of 128 to 256 KiB", true),
		nginx("nginx-stock", "nginx without buffering, buffers of its default sizes", false),
		direct("direct", "the store itself, without a gateway; its CPU time includes the comparison of each byte that it receives"),
	}
}

func tlsPeers() []peer {
	return []peer{
		server(ours+"-tls", "this server with TLS 1.3", "", true),
		naiveGateway(naiveSums+"-tls", "naive-sums with TLS 1.3", true, false, "-sums"),
	}
}

// A suite is a comparison of the first of its peers with the others.
type suite struct {
	title     string
	peers     []peer
	scenarios []scenario
	rounds    int
	window    time.Duration // least, where transfers are slow
	measured  []measured
}

// against returns the name of the peer that is compared with p.
func (s *suite) against(p peer) string {
	if slices.ContainsFunc(s.peers, func(other peer) bool { return other.name == p.against }) {
		return p.against
	}
	return s.peers[0].name
}

// suites returns what is to be measured.
func (o *options) suites() ([]*suite, error) {
	scenarios, err := o.scenarios()
	if err != nil {
		return nil, err
	}
	swift, err := o.swiftPeers()
	if err != nil {
		return nil, err
	}
	plain := append(plainPeers(), o.peers...)
	if o.only != "" {
		chosen := choose(slices.Concat(plain, tlsPeers(), swift), o.only)
		if len(chosen) == 0 {
			return nil, fmt.Errorf("no peer is named %q", o.only)
		}
		return []*suite{{title: "Without TLS", peers: chosen, scenarios: scenarios, rounds: o.rounds}}, nil
	}
	few := slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return s.streams != 8 })
	all := []*suite{
		{title: "Without TLS", peers: plain, scenarios: scenarios, rounds: o.rounds},
		{title: "With TLS", peers: tlsPeers(), scenarios: few, rounds: o.rounds},
	}
	if swift != nil {
		single := slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return s.streams > 8 })
		all = append(all, &suite{title: "A real OpenStack Swift", peers: swift, scenarios: single, rounds: o.rounds, window: 3 * time.Second})
	}
	return all, nil
}

// compare measures all suites, and writes the page if there is one to write.
func compare(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	suites, err := o.suites()
	if err != nil {
		return err
	}
	r, err := newRig(o.server, 0, 0)
	if err != nil {
		return err
	}
	defer r.close()
	begun := time.Now()
	left := map[string]error{}
	if o.swift == "" {
		left["swift, swift-direct"] = errors.New("no real Swift was given: -swift")
	}
	for _, s := range suites {
		if err := s.measure(ctx, r, o.pace, left); err != nil {
			return err
		}
		printTables(os.Stdout, s)
	}
	took := time.Since(begun).Round(time.Second)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		fmt.Printf("left out: %s: %v\n", name, left[name])
	}
	fmt.Printf("took %s\n", took)
	if o.out == "" {
		return nil
	}
	return writePage(o, suites, left, took)
}

func choose(all []peer, names string) []peer {
	var chosen []peer
	for name := range strings.SplitSeq(names, ",") {
		for _, p := range all {
			if p.name == name {
				chosen = append(chosen, p)
			}
		}
	}
	return chosen
}

func (o *options) scenarios() ([]scenario, error) {
	var all []scenario
	for size := range strings.SplitSeq(o.sizes, ",") {
		for streams := range strings.SplitSeq(o.streams, ",") {
			for way := range strings.SplitSeq(o.ways, ",") {
				s := scenario{up: way == "up"}
				if _, err := fmt.Sscan(size+" "+streams, &s.size, &s.streams); err != nil || s.size < 16 || s.streams < 1 {
					return nil, fmt.Errorf("%q bytes, %q transfers: want numbers", size, streams)
				}
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// roundsOf512 is the number of rounds with 512 transfers at once, which take longest.
func roundsOf512(rounds int) int { return max(1, rounds-1) }

// measure measures the peers by turns, beginning with another one in each round. It adds those that cannot be had to left.
func (s *suite) measure(ctx context.Context, r *rig, pc pace, left map[string]error) error {
	pc.window = max(pc.window, s.window)
	for _, sc := range s.scenarios {
		m := measured{sc, map[string][]*load.Result{}}
		begun := time.Now()
		rounds := s.rounds
		if sc.streams >= 512 {
			rounds = roundsOf512(rounds)
		}
		for round := range rounds {
			for i := range s.peers {
				p := s.peers[(i+round)%len(s.peers)]
				if left[p.name] != nil || left[p.name+", "+sc.String()] != nil || p.most > 0 && sc.size > p.most {
					continue
				}
				result, err := measureAgain(ctx, r, p, sc, pc)
				switch {
				case errors.Is(err, errMissing):
					left[p.name] = err
				case ctx.Err() != nil || errors.Is(err, errWrongBytes):
					return err
				case err != nil:
					left[p.name+", "+sc.String()] = err
					delete(m.results, p.name)
				default:
					m.results[p.name] = append(m.results[p.name], result)
				}
			}
		}
		s.measured = append(s.measured, m)
		fmt.Fprintf(os.Stderr, "%s, %s: %s\n", s.title, sc, time.Since(begun).Round(time.Second))
	}
	return nil
}
