package main

import (
	"bytes"
	"encoding/json"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestPrint_EscapesControlCharactersInJSON(t *testing.T) {
	const caption = "\x1b[31m\x7f\u009b31m\u202egpj.exe ä文😀"
	var out bytes.Buffer
	a := &app{globals: &globals{JSON: true}, stdout: &out}
	if err := a.print(&pb.File{Caption: caption}, ""); err != nil {
		t.Fatal(err)
	}
	if want := `{"caption":"\u001b[31m\u007f\u009b31m\u202egpj.exe ä文😀"}` + "\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	var got struct{ Caption string }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Caption != caption {
		t.Errorf("parsed %q, %v", got.Caption, err)
	}
}
