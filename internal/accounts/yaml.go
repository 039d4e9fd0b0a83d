package accounts

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml/ast"
)

// A reader goes through the nodes of a file and gathers every fault, so that an operator mends all at once.
type reader struct {
	file   string
	rules  Rules
	faults Faults
}

// bad notes a fault at a node.
func (r *reader) bad(at ast.Node, format string, args ...any) {
	r.badLine(lineOf(at), format, args...)
}

func (r *reader) badLine(line int, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// lineOf is where a node begins; 0 for one that stands nowhere.
func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// keys are those that a mapping may have, and what reads the value of each.
type keys map[string]func(ast.Node)

// mapping reads a mapping; where names it in faults. One without content (null) is empty.
func (r *reader) mapping(n ast.Node, where string, known keys) {
	r.eachKey(n, where, func(name string, key, value ast.Node) {
		if read, ok := known[name]; ok {
			read(value)
			return
		}
		r.unknown(key, name, where, slices.Sorted(maps.Keys(known)))
	})
}

// eachKey gives the entries of a mapping in their order. Faults: what is no mapping, and keys that come twice.
func (r *reader) eachKey(n ast.Node, where string, entry func(name string, key, value ast.Node)) {
	if _, empty := n.(*ast.NullNode); empty {
		return
	}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		r.wrongType(n, where, "a mapping, that is lines of \"key: value\" below it")
		return
	}
	lines := map[string]int{}
	for _, v := range m.Values {
		name, line := v.Key.GetToken().Value, lineOf(v.Key)
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		default:
			r.bad(v.Key, "%s has a key that is no plain word; what all accounts share goes under defaults", where)
			continue
		}
		if first, twice := lines[name]; twice {
			r.bad(v.Key, "%s: %q stands here for the second time, after line %d; keep one", where, name, first)
			continue
		}
		lines[name] = line
		entry(name, v.Key, v.Value)
	}
}

// pastedSecrets are keys under which people write the secret itself.
var pastedSecrets = map[string]string{
	"secret": "secret", "client_secret": "secret", "password": "secret", "token": "secret",
	"key": "key", "private_key": "key", "pem": "key",
}

// unknown says what might have been meant.
func (r *reader) unknown(key ast.Node, name, where string, known []string) {
	for word, stem := range pastedSecrets {
		if name == word && slices.Contains(known, stem+"_file") {
			r.bad(key, "%s: a secret must not stand in this file; put it in a file of its own and name that as %s_file, or in an environment "+
				"variable and name that as %s_env", where, stem, stem)
			return
		}
	}
	best, distance := "", 4
	for _, k := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best != "" {
		r.bad(key, "%s has no key %.64q; did you mean %s?", where, name, best)
		return
	}
	r.bad(key, "%s has no key %.64q; there are %s", where, name, strings.Join(known, ", "))
}

func (r *reader) wrongType(n ast.Node, where, want string) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		r.bad(n, "%s: anchors and aliases are not read here; what all accounts share goes under defaults", where)
	case *ast.TagNode:
		r.bad(n, "%s: tags are not read here; leave the word with the exclamation mark out", where)
	default:
		r.bad(n, "%s must be %s", where, want)
	}
}

// scalar is a value's text as it stands in the file.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// word reads a text that is not empty and has no line breaks.
func (r *reader) word(where string, to *string) func(ast.Node) {
	return func(n ast.Node) {
		s, ok := scalar(n)
		switch {
		case !ok:
			r.wrongType(n, where, "a text")
		case s == "" || len(s) > 1024 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
			r.bad(n, "%s must be a text on one line, and not empty", where)
		default:
			*to = s
		}
	}
}

// list reads texts; one alone may stand without brackets.
func (r *reader) list(where string, check func(string) error, to *[]string) func(ast.Node) {
	return func(n ast.Node) {
		values := []ast.Node{n}
		if seq, ok := n.(*ast.SequenceNode); ok {
			values = seq.Values
		}
		var all []string
		for _, v := range values {
			s, ok := scalar(v)
			if !ok {
				r.wrongType(v, where, "a list of texts, for example [a, b]")
				return
			}
			if err := check(s); err != nil {
				r.bad(v, "%s: %v", where, err)
				return
			}
			all = append(all, s)
		}
		if len(all) == 0 {
			r.bad(n, "%s is empty; name at least one, or leave the key out", where)
			return
		}
		*to = all
	}
}

func (r *reader) boolean(where string, to *bool) func(ast.Node) {
	return func(n ast.Node) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			r.wrongType(n, where, "true or false")
			return
		}
		*to = b.Value
	}
}

// size reads a number of bytes as the flags take it.
func (r *reader) size(where string, to *int64) func(ast.Node) {
	return func(n ast.Node) {
		s, ok := scalar(n)
		if !ok {
			r.wrongType(n, where, "a size, for example 5MB")
			return
		}
		bytes, err := ParseSize(s)
		switch {
		case err != nil:
			r.bad(n, "%s: %v", where, err)
		case bytes == 0:
			r.bad(n, "%s must be more than 0", where)
		case bytes > r.rules.MaxBytes:
			r.bad(n, "%s: the server's --memory-budget has no room for %d bytes; %d is the most", where, bytes, r.rules.MaxBytes)
		default:
			*to = bytes
		}
	}
}

// pixels reads a count of pixels, of which the server has a limit of its own.
func (r *reader) pixels(where string, to *int64) func(ast.Node) {
	return func(n ast.Node) {
		s, ok := scalar(n)
		count, err := strconv.ParseInt(s, 10, 64)
		if !ok || err != nil || count <= 0 {
			r.wrongType(n, where, "a whole number more than 0")
			return
		}
		if most := r.rules.Flags.MaxImagePixels; count > most {
			r.bad(n, "%s: the server takes no image of %d pixels; raise its --max-image-pixels, which is %d", where, count, most)
			return
		}
		*to = count
	}
}

func (r *reader) duration(where string, least, most time.Duration, to *time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		s, _ := scalar(n)
		d, err := time.ParseDuration(s)
		if err != nil || d < least || d > most {
			r.wrongType(n, where, fmt.Sprintf("a time from %s to %s, for example 1h", least, most))
			return
		}
		*to = d
	}
}
