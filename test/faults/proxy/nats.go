package proxy

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// NATS is what NATS servers and their clients speak: lines, and messages with what they carry. A message's name is its verb.
func NATS(Direction) splitter { return natsLines{} }

type natsLines struct{}

func (natsLines) next(in *bufio.Reader) (Message, error) {
	line, err := readUntil(in, "\r\n", maxMessage)
	m := Message{Name: "bytes", raw: line, Text: line}
	words := strings.Fields(string(line))
	if err != nil || len(words) == 0 {
		return m, err
	}
	m.Name = strings.ToUpper(words[0])
	switch m.Name {
	case "PUB", "HPUB", "MSG", "HMSG":
	default:
		return m, nil
	}
	n, err := strconv.Atoi(words[len(words)-1])
	if err != nil || n < 0 || n > maxMessage {
		return m, errTooLong
	}
	at := len(m.raw)
	m.raw = append(m.raw, make([]byte, n+2)...)
	k, err := io.ReadFull(in, m.raw[at:])
	m.raw = m.raw[:at+k]
	m.Text = m.raw
	return m, err
}
