package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/test/harness"
)

const (
	ratioFile   = "jpeg:3000000"
	ratioWarm   = 30 // rounds that are not counted: the JVM still compiles in the first ones
	ratioRounds = 25 // rounds that are. The sandbox keeps 1 GiB, which all rounds of all languages must fit into
)

// aims are the wall times that the clients should stay below, as ratios to the Go client.
var aims = map[string]float64{"python": 2.5, "python-async": 2.5, "typescript": 2.5, "java": 1.5, "rust": 1.5}

// ratios measures an upload and a download of 3 MB in each language against the Go client. The languages take turns, so that all
// suffer from what else the machine does.
func ratios(runners []*Runner) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	server, giveBack, err := runners[0].servers.Lease(&Case{Own: true}, runners[0].tmp)
	if err != nil {
		return err
	}
	defer giveBack(false)
	type times struct{ up, down []time.Duration }
	took := map[string]*times{}
	consumers := map[string]harness.Consumer{}
	for _, r := range runners {
		took[r.language] = &times{}
		c, err := harness.SignUpAndTalk(ctx, server.client, harness.Account)
		if err != nil {
			return err
		}
		consumers[r.language] = c
		if err := r.command(ctx, map[string]any{
			"op": "open", "client": "ratios", "target": server.addr, "account": harness.Account,
			"identity": map[string]any{"kind": "consumer", "token": c.Token},
		}, nil); err != nil {
			return fmt.Errorf("%s: %w", r.language, err)
		}
	}
	for round := range ratioWarm + ratioRounds {
		for _, r := range runners {
			up, down, err := r.transfer(ctx, consumers[r.language])
			if err != nil {
				return fmt.Errorf("%s: %w", r.language, err)
			}
			if t := took[r.language]; round >= ratioWarm {
				t.up, t.down = append(t.up, up), append(t.down, down)
			}
		}
	}
	base := took["go"]
	fmt.Printf("%-12s %12s %7s %12s %7s\n", "3 MB", "upload", "ratio", "download", "ratio")
	for _, r := range runners {
		t := took[r.language]
		up, down := median(t.up), median(t.down)
		upRatio, downRatio := float64(up)/float64(median(base.up)), float64(down)/float64(median(base.down))
		note := ""
		if aim := aims[r.language]; aim > 0 {
			note = fmt.Sprintf("  aim %.1f", aim)
			if max(upRatio, downRatio) > aim {
				note += ": MISSED"
			}
		}
		fmt.Printf("%-12s %12v %7.2f %12v %7.2f%s\n", r.language, up.Round(10*time.Microsecond), upRatio, down.Round(10*time.Microsecond), downRatio, note)
	}
	return nil
}

// transfer uploads and downloads the file once.
func (r *Runner) transfer(ctx context.Context, c harness.Consumer) (up, down time.Duration, err error) {
	path, err := r.files.Path(ratioFile)
	if err != nil {
		return 0, 0, err
	}
	var sent struct{ File struct{ Name string } }
	begun := time.Now()
	if err := r.command(ctx, map[string]any{
		"op": "upload", "client": "ratios", "source": map[string]any{"kind": "path", "path": path},
		"options": map[string]any{"conversation": c.Conversation},
	}, &sent); err != nil {
		return 0, 0, err
	}
	up = time.Since(begun)
	begun = time.Now()
	var got struct{ SHA256 string }
	if err := r.command(ctx, map[string]any{
		"op": "download", "client": "ratios", "file": sent.File.Name, "sink": map[string]any{"kind": "memory"},
	}, &got); err != nil {
		return 0, 0, err
	}
	down = time.Since(begun)
	if want, err := r.files.SHA256(ratioFile); err != nil || got.SHA256 != want {
		return 0, 0, fmt.Errorf("other bytes were downloaded: %v", err)
	}
	return up, down, nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
