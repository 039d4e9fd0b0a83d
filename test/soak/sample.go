package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// every is how often the server is looked at.
const every = 5 * time.Second

// A sample is the server at one moment, and what callers saw since the one before.
type sample struct {
	at     time.Duration
	values [len(columns)]float64
}

// columns are the figures that are sampled.
var columns = [...]struct {
	name, unit string
	flat       bool    // it must not grow
	floor      float64 // growth below this is none
}{
	{"resident", "MiB", true, 64},
	{"heap in use after a collection", "MiB", true, 32},
	{"goroutines", "", true, 300},
	{"open files", "", true, 200},
	{"uploads and downloads under way", "", false, 0},
	{"uploads ended", "1/s", false, 0},
	{"downloads ended", "1/s", false, 0},
	{"upload, median", "s", false, 0},
	{"upload, 99 %", "s", false, 0},
	{"download, median", "s", false, 0},
	{"download, 99 %", "s", false, 0},
}

// watch samples until ctx ends.
func watch(ctx context.Context, h *rig, m *meter) ([]sample, error) {
	begun := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var all []sample
	last := begun
	for {
		select {
		case <-ctx.Done():
			return all, nil
		case <-tick.C:
		}
		now := time.Now()
		s := sample{at: now.Sub(begun)}
		v := &s.values
		var err error
		if v[1], v[2], err = inside(ctx, h.server.Debug); err != nil {
			if ctx.Err() != nil {
				return all, nil
			}
			return nil, fmt.Errorf("looking at the server: %w\n%s", err, h.server.Logs.Tail())
		}
		if v[0], v[3], err = outside(h.server.PID()); err != nil {
			return nil, fmt.Errorf("looking at the server: %w", err)
		}
		uploads, downloads := m.take()
		seconds := now.Sub(last).Seconds()
		v[4], v[5], v[6] = float64(m.inFlight.Load()), float64(len(uploads))/seconds, float64(len(downloads))/seconds
		v[7], v[8], v[9], v[10] = quantile(uploads, 0.5), quantile(uploads, 0.99), quantile(downloads, 0.5), quantile(downloads, 0.99)
		last = now
		all = append(all, s)
	}
}

// inside asks the server itself, after a garbage collection, so that what is measured is in use.
func inside(ctx context.Context, debug string) (heap, goroutines float64, err error) {
	resp, err := get(ctx, "http://"+debug+"/debug/gc")
	if err != nil {
		return 0, 0, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil {
		goroutines, err = strconv.ParseFloat(strings.TrimSpace(string(body)), 64)
	}
	if err != nil {
		return 0, 0, err
	}
	if resp, err = get(ctx, "http://"+debug+"/debug/vars"); err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	var vars struct {
		Memstats struct{ HeapAlloc float64 } `json:"memstats"`
	}
	err = json.NewDecoder(resp.Body).Decode(&vars)
	return vars.Memstats.HeapAlloc / (1 << 20), goroutines, err
}

// outside asks the kernel.
func outside(pid int) (resident, files float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(rest, &resident); err != nil {
				return 0, 0, err
			}
		}
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return resident / 1024, float64(len(open)), err
}

func quantile(of []time.Duration, q float64) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[min(int(q*float64(len(of))), len(of)-1)].Seconds()
}

// judge prints the slope of each figure over the last two thirds, as the median of the slopes between any two samples, which a few
// odd ones do not move; an error if what must stay flat has grown by more than half and by more than its floor.
func judge(all []sample) error {
	if len(all) < 6 {
		return fmt.Errorf("%d samples are too few to judge by", len(all))
	}
	late := all[len(all)/3:]
	window := late[len(late)-1].at - late[0].at
	var grown []string
	fmt.Printf("%-33s %9s %9s %9s   growth over the last %s\n", "", "least", "median", "most", window.Round(time.Second))
	for n, c := range columns {
		var values, slopes []float64
		for i, s := range late {
			values = append(values, s.values[n])
			for _, later := range late[i+1:] {
				slopes = append(slopes, (later.values[n]-s.values[n])/(later.at-s.at).Seconds())
			}
		}
		slices.Sort(values)
		slices.Sort(slopes)
		growth := slopes[len(slopes)/2] * window.Seconds()
		fmt.Printf("%-33s %9.2f %9.2f %9.2f   %+.2f %s\n", c.name, values[0], values[len(values)/2], values[len(values)-1], growth, c.unit)
		if c.flat && growth > c.floor && growth > values[len(values)/2]/2 {
			grown = append(grown, c.name)
		}
	}
	if len(grown) > 0 {
		return fmt.Errorf("not flat: %s", strings.Join(grown, ", "))
	}
	fmt.Println("flat: memory, goroutines and open files")
	return nil
}

// write writes the samples and their picture.
func write(dir string, all []sample) error {
	f, err := os.Create(filepath.Join(dir, "soak.csv"))
	if err != nil {
		return err
	}
	defer f.Close()
	w := csv.NewWriter(f)
	head := []string{"seconds"}
	for _, c := range columns {
		name := c.name
		if c.unit != "" {
			name += " (" + c.unit + ")"
		}
		head = append(head, name)
	}
	_ = w.Write(head)
	for _, s := range all {
		row := []string{strconv.FormatFloat(s.at.Seconds(), 'f', 0, 64)}
		for _, v := range s.values {
			row = append(row, strconv.FormatFloat(v, 'f', 2, 64))
		}
		_ = w.Write(row)
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "soak.svg"), draw(all), 0o644)
}
