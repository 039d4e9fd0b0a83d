package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// note prints a line on standard error that is neither a result nor an error. --quiet leaves it out.
func (a *app) note(format string, args ...any) {
	if !a.Quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// print writes a result: as JSON with --json, otherwise as a line of text.
func (a *app) print(m proto.Message, format string, args ...any) error {
	if a.JSON {
		b, err := a.marshal(m)
		if err != nil {
			return err
		}
		return a.printJSON(b)
	}
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

// marshal returns a message as JSON, without previews unless --previews is set.
func (a *app) marshal(m proto.Message) (json.RawMessage, error) {
	if !a.Previews {
		m = proto.Clone(m)
		if f := fileIn(m); f != nil {
			f.PreviewDataUri = ""
		}
	}
	b, err := protojson.Marshal(m)
	return b, err
}

// fileIn returns the file that a message is or has. Nil: none.
func fileIn(m proto.Message) *pb.File {
	if f, ok := m.(*pb.File); ok {
		return f
	}
	if has, ok := m.(interface{ GetFile() *pb.File }); ok {
		return has.GetFile()
	}
	return nil
}

// printJSON writes any value as one line of JSON, in which characters that control a terminal are escaped.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v) // compact, without the control characters of ASCII except DEL
	if err != nil {
		return err
	}
	var line bytes.Buffer
	for _, r := range string(b) {
		if controls(r) {
			fmt.Fprintf(&line, `\u%04x`, r) // none is above U+FFFF
		} else {
			line.WriteRune(r)
		}
	}
	line.WriteByte('\n')
	_, err = a.stdout.Write(line.Bytes())
	return err
}

// rows prints rows of name and value, without those that have no value.
func (a *app) rows(rows [][2]string) error {
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "%-22s %s\n", row[0], plain(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// plain makes text from the network safe to print: a caption can contain control sequences of a terminal. The result is UTF-8.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case controls(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// controls reports whether a character can control a terminal or the direction of its text.
func controls(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
