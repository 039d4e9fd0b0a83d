package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

// A realSwift is an OpenStack Swift that test/swift/up has brought up.
type realSwift struct {
	endpoint, key string
	pids          []int
	liveperson    *standIn // whose files are there; started when it is first used, and killed with the rig
}

// readSwift reads the lines that test/swift/up prints.
func readSwift(file string) (*realSwift, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &realSwift{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case name == "SWIFT_ENDPOINT":
			s.endpoint = value
		case name == "SWIFT_KEY":
			s.key = value
		case strings.HasPrefix(name, "SWIFT_") && strings.HasSuffix(name, "_PID"):
			pid, err := strconv.Atoi(value)
			if err != nil {
				return nil, fmt.Errorf("%s: %s is not a process id", file, name)
			}
			s.pids = append(s.pids, pid)
		}
	}
	if s.endpoint == "" || s.key == "" {
		return nil, fmt.Errorf("%s has no SWIFT_ENDPOINT and SWIFT_KEY", file)
	}
	return s, nil
}

// swiftPeers returns this server before a real Swift, and that Swift alone: none if none was given.
func (o *options) swiftPeers() ([]peer, error) {
	if o.swift == "" {
		return nil, nil
	}
	s, err := readSwift(o.swift)
	if err != nil {
		return nil, err
	}
	through := server(ours+"-swift", "this server before a real OpenStack Swift", "", false)
	before := through.start
	through.start = func(r *rig, job *load.Job) (func(), error) {
		if s.liveperson == nil {
			var err error
			if s.liveperson, err = r.start("liveperson", "-store", s.endpoint, "-key", s.key); err != nil {
				return nil, err
			}
			r.more = append(r.more, s.liveperson)
		}
		other := *r
		other.liveperson = s.liveperson
		job.Beside = append(job.Beside, append(s.pids, s.liveperson.PID())...)
		return before(&other, job)
	}
	alone := peer{name: "swift-direct", about: "the same Swift without a gateway; an upload is followed by the HEAD that LivePerson's stand-in makes",
		start: func(_ *rig, job *load.Job) (func(), error) {
			job.HTTP, job.Addr, job.Key, job.Head, job.PIDs = true, strings.TrimPrefix(s.endpoint, "http://"), s.key, true, s.pids
			return func() {}, nil
		}}
	return []peer{through, alone}, nil
}
