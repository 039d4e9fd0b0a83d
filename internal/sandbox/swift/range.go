package swift

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const (
	// Swift refuses requests with more ranges than maxRanges, more overlapping pairs than maxOverlaps, or at least
	// maxNonAscending ranges that are not in ascending order.
	maxRanges       = 50
	maxOverlaps     = 2
	maxNonAscending = 8
)

// A byteRange is one requested range. If first is -1, it is the last "last" bytes; if last is -1, it ends with the object.
type byteRange struct{ first, last int64 }

type byteRanges []byteRange

// A span is the range [from, to) of an object's bytes.
type span struct{ from, to int64 }

func (s span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.from, s.to-1, size)
}

// parseRange parses a Range header. It returns false if the header is malformed, in which case Swift sends the whole object.
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

// parsePosition parses an unsigned number into n; an empty string leaves n unchanged.
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

// of returns the ranges within an object of size bytes, in the requested order, without those that lie outside it. ok is false if
// none is left or the request exceeds a limit; nil spans with ok mean the whole object.
func (ranges byteRanges) of(size int64) (spans []span, ok bool) {
	for _, r := range ranges {
		switch {
		case r.first < 0 && r.last == 0:
			// The last 0 bytes: nothing.
		case r.first < 0 && size == 0:
			return nil, true
		case r.first < 0:
			spans = append(spans, span{max(0, size-r.last), size})
		case r.first >= size:
			// Beyond the end: nothing.
		case r.last < 0 || r.last >= size:
			spans = append(spans, span{r.first, size})
		default:
			spans = append(spans, span{r.first, r.last + 1})
		}
	}
	return spans, len(spans) > 0 && len(ranges) <= maxRanges && !greedy(spans)
}

// greedy reports whether the spans overlap too often or are too many out of order.
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

// joinSpans returns the multipart body of several spans of data.
func joinSpans(data []byte, spans []span, contentType string) (body []byte, boundary string) {
	boundary = hexString(16)
	var b bytes.Buffer
	for _, s := range spans {
		fmt.Fprintf(&b, "--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n", boundary, contentType, s.contentRange(int64(len(data))))
		b.Write(data[s.from:s.to])
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "--")
	return b.Bytes(), boundary
}
