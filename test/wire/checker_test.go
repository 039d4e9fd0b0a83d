package wire

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

func freshChecker(t *testing.T) *Checker {
	t.Helper()
	compiled, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	return newChecker(compiled)
}

func fromClient(data string) Frame {
	return Frame{FromClient: true, Dialect: "consumer", Data: []byte(data)}
}
func fromServer(data string) Frame { return Frame{Dialect: "consumer", Data: []byte(data)} }

// An example is a frame from the reference, or a similar one.
type example struct {
	Section    string          `json:"section"`
	Note       string          `json:"note"`
	FromClient bool            `json:"fromClient"`
	Dialect    string          `json:"dialect"`
	Answers    string          `json:"answers"` // the type of the request that a response answers
	Frame      json.RawMessage `json:"frame"`
	Refused    string          `json:"refused"` // part of the refusal; empty: the frame is accepted
}

// TestChecker_DocumentedExamples checks the examples of LivePerson's documentation: those that the server and the sandbox may send, and
// those that they accept but must not send.
func TestChecker_DocumentedExamples(t *testing.T) {
	data, err := os.ReadFile("testdata/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var examples []example
	if err := json.Unmarshal(data, &examples); err != nil {
		t.Fatal(err)
	}
	for i, e := range examples {
		t.Run(fmt.Sprintf("%d %s %s", i, e.Section, e.Note), func(t *testing.T) {
			c := freshChecker(t)
			if e.Answers != "" {
				var response struct {
					ReqID string `json:"reqId"`
				}
				if err := json.Unmarshal(e.Frame, &response); err != nil {
					t.Fatal(err)
				}
				request := fmt.Appendf(nil, `{"kind":"req","id":%q,"type":%q}`, response.ReqID, e.Answers)
				_ = c.CheckForeign(Frame{FromClient: true, Dialect: e.Dialect, Data: request})
			}
			err := c.Check(Frame{FromClient: e.FromClient, Dialect: e.Dialect, Data: e.Frame})
			switch {
			case e.Refused == "" && err != nil:
				t.Error(err)
			case e.Refused != "" && err == nil:
				t.Error("accepted")
			case e.Refused != "" && !strings.Contains(err.Error(), e.Refused):
				t.Errorf("refused for another reason than %q: %v", e.Refused, err)
			}
		})
	}
}

func TestChecker_AnswerMatchesRequest(t *testing.T) {
	const (
		ask      = `{"kind":"req","id":"7","type":"ms.GenerateURLForDownloadFile","body":{"relativePath":"/v1/AUTH_a/12345678/x.JPG"}}`
		publish  = `{"kind":"req","id":"7","type":"ms.PublishEvent","body":{"dialogId":"c","event":{"type":"ChatStateEvent","chatState":"GONE"}}}`
		url      = `{"kind":"resp","reqId":"7","code":200,"type":"ms.GenerateURLResponse","body":{"relativePath":"/v1/AUTH_a/12345678/x.JPG","queryParams":{"temp_url_sig":"0cff08d2d5618d100bc1353f32872c002180711f","temp_url_expires":"1523947094"}}}`
		sequence = `{"kind":"resp","reqId":"7","code":200,"type":"ms.PublishEventResponse","body":{"sequence":0}}`
		refusal  = `{"kind":"resp","reqId":"7","code":403,"type":".ReqBody$ErrorResp","body":{"title":"Forbidden","details":"","errorCode":40301}}`
		badCode  = `{"kind":"resp","reqId":"7","code":200,"type":".ReqBody$ErrorResp","body":{"title":"Forbidden","details":"","errorCode":40301}}`
	)
	for _, c := range []struct {
		name   string
		frames []Frame // all except the last must be accepted
		good   bool
	}{
		{"the right answer", []Frame{fromClient(ask), fromServer(url)}, true},
		{"another request's answer", []Frame{fromClient(ask), fromServer(sequence)}, false},
		{"a refusal", []Frame{fromClient(ask), fromServer(refusal)}, true},
		{"a refusal that says 200", []Frame{fromClient(ask), fromServer(badCode)}, false},
		{"an answer to nothing", []Frame{fromServer(url)}, false},
		{"a second answer", []Frame{fromClient(ask), fromServer(url), fromServer(url)}, false},
		{"an answer in the other dialect", []Frame{fromClient(ask), {Dialect: "brand", Data: []byte(url)}}, false},
		{"two connections with the same id", []Frame{fromClient(ask), fromClient(publish), fromServer(sequence), fromServer(url)}, true},
		{"and one answer too many", []Frame{fromClient(ask), fromClient(publish), fromServer(sequence), fromServer(url), fromServer(url)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker := freshChecker(t)
			last := len(c.frames) - 1
			for _, f := range c.frames[:last] {
				if err := checker.Check(f); err != nil {
					t.Fatal(err)
				}
			}
			if err := checker.Check(c.frames[last]); (err == nil) != c.good {
				t.Errorf("good: %v, error: %v", c.good, err)
			}
		})
	}
}

func TestChecker_UnknownFrames(t *testing.T) {
	c := freshChecker(t)
	for i, f := range []Frame{
		fromClient(`{"kind":"req","id":"1","type":"ms.Unheard","body":{}}`),
		fromClient(`{"kind":"req","id":"1","type":"ms.PublishEvent","body":{"dialogId":"c","event":{"type":"RichContentEvent","content":{}}}}`),
		fromClient(`{"kind":"notification","type":"ms.MessagingEventNotification","body":{"changes":[]}}`),
		fromServer(`{"kind":"notification","type":"ms.Unheard","body":{}}`),
		fromServer(`{"kind":"req","id":"1","type":"GetClock"}`),
		fromServer(`{"kind":"resp","reqId":`),
		fromServer(`[]`),
		fromServer(``),
		{FromClient: true, Dialect: "martian", Data: []byte(`{"kind":"req","id":"1","type":"GetClock"}`)},
	} {
		if c.Check(f) == nil {
			t.Errorf("frame %d is accepted: %s", i, f.Data)
		}
	}
	if got := c.Counts()[unknown]; got != 9 {
		t.Errorf("%d frames counted as unknown, want 9", got)
	}
}

// TestChecker_CheckForeign expects that the frames of other clients are not checked, but their answers are.
func TestChecker_CheckForeign(t *testing.T) {
	c := freshChecker(t)
	check := func(fromClient bool, data string) error {
		return c.CheckForeign(Frame{FromClient: fromClient, Dialect: "brand", Data: []byte(data)})
	}
	for _, data := range []string{
		`{"kind":"req","id":1,"type":"ms.GenerateURLForUploadFile","body":{"fileSize":5020,"fileType":"JPEG"}}`,
		`{"kind":"req","id":"2","type":".ams.routing.SetAgentState","headers":null,"body":{"availability":"AWAY"}}`,
		`no JSON at all`,
	} {
		if err := check(true, data); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
	const string202 = `{"kind":"resp","reqId":"2","code":202,"type":".ReqBody$StringResp","body":"OK"}`
	if err := check(false, string202); err != nil {
		t.Error(err)
	}
	const numericExpiry = `{"kind":"resp","reqId":"1","code":200,"type":"ms.GenerateURLResponse","body":{"relativePath":"/v1/AUTH_a/12345678/x.JPG","queryParams":{"temp_url_sig":"0cff08d2d5618d100bc1353f32872c002180711f","temp_url_expires":1523947094}}}`
	if check(false, numericExpiry) == nil {
		t.Error("a numeric temp_url_expires is accepted")
	}
	const malformed = `{"kind":"resp","reqId":"0","code":400,"type":".ReqBody$ErrorResp","body":{"title":"Bad request","details":"no JSON","errorCode":40002}}`
	if err := check(false, malformed); err != nil {
		t.Error(err)
	}
	if got := c.Checked(); got != 3 {
		t.Errorf("%d frames checked, want the server's 3", got)
	}
}

func TestChecker_ErrAndReport(t *testing.T) {
	c := freshChecker(t)
	if c.Err() == nil {
		t.Error("no error without a frame")
	}
	if err := c.Check(fromClient(`{"kind":"req","id":"1","type":"GetClock"}`)); err != nil {
		t.Fatal(err)
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	for range maxKept + 2 {
		_ = c.Check(fromClient(`{"kind":"req","id":"1","type":"GetClock","body":{}}`))
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "22 of 23 frames are invalid") {
		t.Errorf("Err() = %v", err)
	}
	report := c.Report()
	for _, want := range []string{
		"23      22     consumer.request.GetClock\n", "never seen: brand.request.GetClock\n", "and 2 more\n",
		"additional properties 'body' not allowed", "\nwire: 23 frames checked, 22 wrong\n",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

func TestChecker_ConcurrentUse(t *testing.T) {
	c := freshChecker(t)
	r, err := Record(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const clients, requests = 8, 50
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			for n := range requests {
				id := fmt.Sprintf("%d-%d", i, n)
				ask := fromClient(fmt.Sprintf(`{"kind":"req","id":%q,"type":"GetClock"}`, id))
				say := fromServer(fmt.Sprintf(`{"kind":"resp","reqId":%q,"code":200,"type":".GetClock$Response","body":{"currentTime":1513813587308}}`, id))
				for _, f := range []Frame{ask, say} {
					r.Add(f)
					if err := c.Check(f); err != nil {
						t.Error(err)
					}
				}
				_ = c.Report()
			}
		})
	}
	work.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := c.Checked(); got != 2*clients*requests {
		t.Errorf("%d frames checked, want %d", got, 2*clients*requests)
	}
}

// TestChecker_PreviewLimit expects a limit of 30 KB for the whole data URI.
func TestChecker_PreviewLimit(t *testing.T) {
	const (
		head  = `data:image/jpeg;base64,`
		frame = `{"kind":"req","id":"1","type":"ms.PublishEvent","body":{"dialogId":"c","event":{"type":"ContentEvent","contentType":"hosted/file","message":{"caption":"","relativePath":"/v1/AUTH_a/12345678/x.JPG","fileType":"JPG","preview":%q}}}}`
	)
	for chars, good := range map[int]bool{30*1024 - 1: true, 30 * 1024: false} {
		f := fromClient(fmt.Sprintf(frame, head+strings.Repeat("A", chars-len(head))))
		if err := freshChecker(t).Check(f); (err == nil) != good {
			t.Errorf("%d characters: good: %v, error: %v", chars, good, err)
		}
	}
}
