package sandbox

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const (
	// A Swift thinks that whoever asks for more than so many ranges, for more overlapping pairs than so many, or for so many
	// ranges out of order, means it no good.
	maxRanges       = 50
	maxOverlaps     = 2
	maxNonAscending = 8
)

// A byteRange is one range as asked for. first -1: the last so many bytes. last -1: up to the end.
type byteRange struct{ first, last int64 }

type byteRanges []byteRange

// A span is a run of an object's bytes: from from up to, not including, to.
type span struct{ from, to int64 }

func (s span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.from, s.to-1, size)
}

// parseRange reads a Range header. What is not understood asks for nothing, and so for the whole object.
func parseRange(header string) (byteRanges, bool) {
	const unit = "bytes="
	list := strings.ReplaceAll(header, " ", "")
	if len(list) < len(unit) || !strings.EqualFold(list[:len(unit)], unit) {
		return nil, false
	}
	list = list[len(unit):]
	var ranges byteRanges
	for one := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(one, "-")
		r := byteRange{-1, -1}
		if plain, ok := pythonInt(first); ok {
			first = plain
		}
		if !ok || first == "" && last == "" || !parsePosition(first, &r.first) || !parsePosition(last, &r.last) {
			return nil, false
		}
		if first != "" && last != "" && r.last < r.first {
			return nil, false
		}
		ranges = append(ranges, r)
	}
	return ranges, true
}

// parsePosition reads a number without a sign into n; nothing leaves n as it is.
func parsePosition(s string, n *int64) bool {
	if s == "" {
		return true
	}
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return false
	}
	*n = int64(v)
	return true
}

// of returns what the ranges are in an object of size bytes, in the order asked for, without those that lie outside. ok is
// false when nothing is left, or too much was asked for; nil spans mean the whole object.
func (ranges byteRanges) of(size int64) (spans []span, ok bool) {
	for _, r := range ranges {
		switch {
		case r.first < 0 && r.last == 0:
			// The last no bytes.
		case r.first < 0 && size == 0:
			return nil, true
		case r.first < 0:
			spans = append(spans, span{max(0, size-r.last), size})
		case r.first >= size:
			// Behind the end.
		case r.last < 0 || r.last >= size:
			spans = append(spans, span{r.first, size})
		default:
			spans = append(spans, span{r.first, r.last + 1})
		}
	}
	return spans, len(spans) > 0 && len(ranges) <= maxRanges && !greedy(spans)
}

// greedy reports whether the spans make the store send the same bytes over and over, or jump about.
func greedy(spans []span) bool {
	overlaps, ascending := 0, true
	for i, a := range spans {
		for _, b := range spans[i+1:] {
			if a.from < b.to && b.from < a.to {
				overlaps++
			}
		}
		if i > 0 && spans[i-1].from > a.from {
			ascending = false
		}
	}
	return overlaps > maxOverlaps || !ascending && len(spans) >= maxNonAscending
}

// joinSpans is the multipart body that has several spans of data.
func joinSpans(data []byte, spans []span, contentType string) (body []byte, boundary string) {
	boundary = randomHex(16)
	var b bytes.Buffer
	for _, s := range spans {
		fmt.Fprintf(&b, "--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n", boundary, contentType, s.contentRange(int64(len(data))))
		b.Write(data[s.from:s.to])
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "--")
	return b.Bytes(), boundary
}
