package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

//go:embed limits.txt
var limitsText string

// A limit is one line of limits.txt.
type limit struct {
	figure   string
	scenario scenario
	most     float64
}

// checked are the figures of limits.txt, from the measurements of the server and of the naive gateway.
var checked = map[string]func(m *measured) spread{
	"kb-per-file": func(m *measured) spread { return m.figure(allocated, ours) },
	"allocations": func(m *measured) spread { return m.figure(allocations, ours) },
	"cpu-ratio":   func(m *measured) spread { return m.ratio(cpuPerFile, ours, naiveSums) },
	"peak-mib":    func(m *measured) spread { return m.figure(peak, ours) },
}

func readLimits(text string) ([]limit, error) {
	var limits []limit
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		l := limit{scenario: scenario{}}
		var way string
		_, err := fmt.Sscan(line, &l.figure, &way, &l.scenario.size, &l.scenario.streams, &l.most)
		l.scenario.up = way == "up"
		if err != nil || checked[l.figure] == nil || !l.scenario.up && way != "down" {
			return nil, fmt.Errorf("limits.txt: %q is not FIGURE WAY SIZE STREAMS LIMIT", line)
		}
		limits = append(limits, l)
	}
	return limits, nil
}

// check measures what limits.txt limits. What is over its limit is measured once more, with more rounds, and then is an error.
func check(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("bench check", flag.ContinueOnError)
	program := set.String("server", "", "server to measure; default: the one of this source tree, which is built")
	if err := set.Parse(args); err != nil {
		return err
	}
	limits, err := readLimits(limitsText)
	if err != nil {
		return err
	}
	r, err := newRig(*program, 0, 0)
	if err != nil {
		return err
	}
	defer r.close()
	begun := time.Now()
	over, err := measureLimits(ctx, r, limits, 3)
	if err == nil && len(over) > 0 {
		fmt.Println("\nonce more, with more rounds:")
		over, err = measureLimits(ctx, r, over, 7)
	}
	if err != nil {
		return err
	}
	fmt.Printf("took %s\n", time.Since(begun).Round(time.Second))
	var names []string
	for _, l := range over {
		names = append(names, fmt.Sprintf("%s of %s", l.figure, l.scenario))
	}
	if len(names) > 0 {
		return errors.New("over the limit in bench/limits.txt: " + strings.Join(names, "; "))
	}
	return nil
}

// measureLimits measures what the limits are for, and returns those that are exceeded.
func measureLimits(ctx context.Context, r *rig, limits []limit, rounds int) (over []limit, err error) {
	var done []scenario
	for _, l := range limits {
		if slices.Contains(done, l.scenario) {
			continue
		}
		done = append(done, l.scenario)
		same := slices.DeleteFunc(slices.Clone(limits), func(o limit) bool { return o.scenario != l.scenario })
		m, err := measureLimited(ctx, r, l.scenario, same, rounds)
		if err != nil {
			return nil, err
		}
		for _, l := range same {
			verdict, have := "", checked[l.figure](m)
			if have.median > l.most {
				verdict = "OVER"
				over = append(over, l)
			}
			fmt.Printf("%-12s %-18s %8.2f (%.2f-%.2f), limit %8.2f %s\n", l.figure, l.scenario, have.median, have.least, have.most, l.most, verdict)
		}
	}
	return over, nil
}

// measureLimited measures the server in one scenario, and the naive gateway if a limit compares them.
func measureLimited(ctx context.Context, r *rig, sc scenario, limits []limit, rounds int) (*measured, error) {
	s := &suite{title: "check", scenarios: []scenario{sc}, rounds: rounds, peers: []peer{server(ours, "", "", false)}}
	if slices.ContainsFunc(limits, func(l limit) bool { return l.figure == "cpu-ratio" }) {
		s.peers = append(s.peers, naiveGateway(naiveSums, "", false, false, "-sums"))
	} else { // memory varies less than time
		s.rounds = max(1, rounds/3)
	}
	pc := pace{warm: 300 * time.Millisecond, window: 1500 * time.Millisecond, calm: calm}
	left := map[string]error{}
	if err := s.measure(ctx, r, pc, left); err != nil {
		return nil, err
	}
	for _, err := range left {
		return nil, err
	}
	return &s.measured[0], nil
}
