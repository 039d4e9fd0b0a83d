package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// actions are the steps that the runner does itself. Their results are those of the step.
var actions = map[string]func(t *trial, args map[string]any) (any, error){
	"wait":    func(*trial, map[string]any) (any, error) { return nil, nil }, // see trial.wait
	"await":   (*trial).await,
	"sleep":   (*trial).sleep,
	"publish": (*trial).publish,
	"kill":    (*trial).kill,
	"start":   (*trial).startAgain,
	"drain":   (*trial).drain,
	"cut":     (*trial).cut,
	"arm":     (*trial).arm,
	"fault":   (*trial).fault,
	"folder":  (*trial).folder,
	"calls":   (*trial).fakeCalls,
	"conns":   (*trial).conns,
	"secrets": (*trial).noSecrets,
	"talk":    (*trial).talk,
}

func number(args map[string]any, name string) int {
	n, _ := args[name].(float64)
	return int(n)
}

func text(args map[string]any, name string) string {
	s, _ := args[name].(string)
	return s
}

func (t *trial) callOf(args map[string]any) (*Call, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.calls[text(args, "of")]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("there is no call %q", text(args, "of"))
}

// wait judges the call that a step began: {"do": "wait", "of": ID}. Its time is that of this step.
func (t *trial) wait(s *Step, args map[string]any) error {
	begun := time.Now()
	c, err := t.callOf(args)
	if err != nil {
		return err
	}
	judged := *s
	judged.ID = text(args, "of")
	return t.judge(&judged, c, begun)
}

// await waits for an event of a call: {"of": ID, "event": matcher, "count": n}.
func (t *trial) await(args map[string]any) (any, error) {
	c, err := t.callOf(args)
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(stepTime)
	defer limit.Stop()
	for {
		events, changed := c.Events()
		left := max(number(args, "count"), 1)
		for _, e := range events {
			if match("", args["event"], e) == "" {
				if left--; left == 0 {
					return e, nil
				}
			}
		}
		select {
		case <-changed:
		case <-c.done:
			if again, _ := c.Events(); len(again) > len(events) {
				continue
			}
			return nil, fmt.Errorf("the call ended without the event %s: %s", short(args["event"]), short(c.answer))
		case <-limit.C:
			return nil, fmt.Errorf("the event %s did not come; there were %s", short(args["event"]), short(events))
		}
	}
}

func (t *trial) sleep(args map[string]any) (any, error) {
	if !pause(t.ctx, number(args, "ms")) {
		return nil, context.Cause(t.ctx)
	}
	return nil, nil
}

// publish sends files with the runner's own client: {"file": NAME, "count": n}.
func (t *trial) publish(args map[string]any) (any, error) {
	data, err := t.files.Data(text(args, "file"))
	if err != nil {
		return nil, err
	}
	names, err := publish(t.ctx, t.consumer, max(number(args, "count"), 1), data)
	return map[string]any{"files": names}, err
}

// talk opens another conversation of the same consumer, or closes one: {"close": NAME}.
func (t *trial) talk(args map[string]any) (any, error) {
	if name := text(args, "close"); name != "" {
		_, err := t.consumer.CloseConversation(t.ctx, name)
		return nil, err
	}
	c, err := harness.Open(t.ctx, t.consumer.Client, harness.Account)
	return map[string]any{"conversation": c}, err
}

func (t *trial) own() error {
	if t.server == nil || !t.c.Own {
		return errors.New("the case has no server of its own")
	}
	t.restarted = true
	return nil
}

// kill kills the server, as kill -9 does.
func (t *trial) kill(map[string]any) (any, error) {
	if err := t.own(); err != nil {
		return nil, err
	}
	t.server.run.Kill()
	return nil, nil
}

// startAgain starts the server again, on the same address.
func (t *trial) startAgain(map[string]any) (any, error) {
	if err := t.own(); err != nil {
		return nil, err
	}
	return nil, t.server.Start()
}

// drain asks the server to end, and does not wait for it.
func (t *trial) drain(args map[string]any) (any, error) {
	if err := t.own(); err != nil {
		return nil, err
	}
	t.server.Terminate()
	if args["wait"] == true {
		return nil, t.server.run.Wait()
	}
	return nil, nil
}

// cut cuts every connection: {"how": "reset" or "finish"}.
func (t *trial) cut(args map[string]any) (any, error) {
	kind := proxy.Reset
	if text(args, "how") == "finish" {
		kind = proxy.Finish
	}
	return map[string]any{"cut": t.link.Cut(kind)}, nil
}

// arm arms a rule, for the connections that follow.
func (t *trial) arm(args map[string]any) (any, error) {
	r := Rule{On: text(args, "on"), After: int64(number(args, "after")), Do: text(args, "rule"), ForMs: number(args, "forMs"), Conns: number(args, "conns")}
	return nil, r.arm(t.link)
}

// folder returns the names of the files in a folder: {"path": FOLDER}.
func (t *trial) folder(args map[string]any) (any, error) {
	entries, err := os.ReadDir(text(args, "path"))
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return map[string]any{"names": names}, err
}

// fault arms a fault of the sandbox, or with {"clear": true} disarms all.
func (t *trial) fault(args map[string]any) (any, error) {
	if args["clear"] == true {
		t.server.sandbox.ClearFaults()
		return nil, nil
	}
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	return nil, t.server.Fault(text)
}

// fakeCalls waits until the fake has got a number of calls of a method, and returns what they brought: {"method": NAME, "count": n}.
func (t *trial) fakeCalls(args map[string]any) (any, error) {
	ctx, cancel := context.WithTimeout(t.ctx, stepTime)
	defer cancel()
	if err := t.fake.await(ctx, text(args, "method"), number(args, "count")); err != nil {
		return nil, err
	}
	return map[string]any{"calls": t.fake.recorded(text(args, "method"))}, nil
}

// conns returns how many connections there have been.
func (t *trial) conns(map[string]any) (any, error) {
	open, ever := t.link.Conns()
	return map[string]any{"open": open, "ever": ever}, nil
}

// noSecrets fails if the result of a print has a token: {"in": [texts]}.
func (t *trial) noSecrets(args map[string]any) (any, error) {
	texts, ok := args["in"].([]any)
	if !ok || len(texts) == 0 {
		return nil, errors.New("nothing was printed")
	}
	for _, one := range texts {
		if s := t.leak(fmt.Sprint(one)); s != "" {
			return nil, fmt.Errorf("a secret is in %.300s", one)
		}
	}
	return nil, nil
}

// leak returns the secret that is in a text, or "".
func (r *Runner) leak(text string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.secrets {
		if strings.Contains(text, s) {
			return s
		}
	}
	return ""
}
