package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
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
	*p = append(*p, server(name, file, false))
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
	set.StringVar(&o.out, "out", "", "folder of performance.md, which gets the tables and plots; default: none")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return o, nil
}

// The names of the peers. ours is what all others are compared with.
const (
	ours      = "lpfileshare"
	oursCRC   = "lpfileshare-crc"
	naiveBare = "naive"
	naiveSums = "naive-sums"
	naiveWork = "naive-work"
)

// allPeers returns the peers in the order of the tables.
func allPeers() []peer {
	return []peer{
		server(ours, "", false),
		server(oursCRC, "", false, "--no-check-etag"),
		naiveGateway(naiveSums, false, false, "-sums"),
		naiveGateway(naiveBare, false, false),
		naiveGateway(naiveWork, false, true, "-sums"),
		reverseProxy("reverseproxy"),
		nginx("nginx-tuned", true),
		nginx("nginx-stock", false),
		direct("direct"),
		server(ours+"-tls", "", true),
		naiveGateway(naiveSums+"-tls", true, false, "-sums"),
	}
}

// compare measures all peers in all scenarios.
func compare(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	r, err := newRig(o.server, 0, 0)
	if err != nil {
		return err
	}
	defer r.close()
	peers := o.choose(append(allPeers(), o.peers...))
	if len(peers) == 0 {
		return fmt.Errorf("no peer is named %q", o.only)
	}
	scenarios, err := o.scenarios()
	if err != nil {
		return err
	}
	begun := time.Now()
	all, left, err := measureAll(ctx, r, peers, scenarios, o)
	if err != nil {
		return err
	}
	fmt.Printf("%d scenarios, %d peers, %d rounds: %s\n", len(scenarios), len(peers), o.rounds, time.Since(begun).Round(time.Second))
	for name, why := range left {
		fmt.Printf("left out: %s: %v\n", name, why)
	}
	printTables(os.Stdout, all, peers)
	return nil
}

func (o *options) choose(all []peer) []peer {
	if o.only == "" {
		return all
	}
	var chosen []peer
	for name := range strings.SplitSeq(o.only, ",") {
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
				s := scenario{up: way == "up", chunk: uploadChunk}
				if _, err := fmt.Sscan(size+" "+streams, &s.size, &s.streams); err != nil || s.size < 16 || s.streams < 1 {
					return nil, fmt.Errorf("%q bytes, %q transfers: want numbers", size, streams)
				}
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// measureAll measures the peers by turns, beginning with another one in each round. left has the peers that cannot be had.
func measureAll(ctx context.Context, r *rig, peers []peer, scenarios []scenario, o *options) (all []measured, left map[string]error, err error) {
	left = map[string]error{}
	for _, s := range scenarios {
		m := measured{s, map[string][]*load.Result{}}
		for round := range o.rounds {
			for i := range peers {
				p := peers[(i+round)%len(peers)]
				if left[p.name] != nil {
					continue
				}
				result, err := measure(ctx, r, p, s, o.pace)
				if errors.Is(err, errMissing) {
					left[p.name] = err
					continue
				}
				if err != nil {
					return nil, nil, err
				}
				m.results[p.name] = append(m.results[p.name], result)
			}
		}
		all = append(all, m)
		fmt.Fprintf(os.Stderr, "%s: measured\n", s)
	}
	return all, left, nil
}
