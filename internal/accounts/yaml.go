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

// A reader reads the nodes of a file and collects all faults, so that the operator can correct them together.
type reader struct {
	file   string
	rules  Rules
	faults Faults
}

// bad adds a fault at a node.
func (r *reader) bad(at ast.Node, format string, args ...any) {
	r.badLine(lineOf(at), format, args...)
}

func (r *reader) badLine(line int, format string, args ...any) {
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// lineOf returns the line where a node begins; 0 if it has no position.
func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// keys are the keys that a mapping may have, each with the function that reads its value.
type keys map[string]func(ast.Node)

// mapping reads a mapping; where names it in faults. null is an empty mapping.
func (r *reader) mapping(n ast.Node, where string, known keys) {
	r.eachKey(n, where, func(name string, key, value ast.Node) {
		if read, ok := known[name]; ok {
			read(value)
			return
		}
		r.unknown(key, name, where, slices.Sorted(maps.Keys(known)))
	})
}

// eachKey calls entry for the entries of a mapping in order. Duplicate keys are faults.
func (r *reader) eachKey(n ast.Node, where string, entry func(name string, key, value ast.Node)) {
	if _, empty := n.(*ast.NullNode); empty {
		return
	}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		r.wrongType(n, where, "a mapping: lines of \"key: value\" below it")
		return
	}
	lines := map[string]int{}
	for _, v := range m.Values {
		name, line := v.Key.GetToken().Value, lineOf(v.Key)
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		default:
			r.bad(v.Key, "%s has a key that is not a plain word; put settings that all accounts share under defaults", where)
			continue
		}
		if first, twice := lines[name]; twice {
			r.bad(v.Key, "%s: %q is a duplicate of line %d; keep one", where, name, first)
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

// unknown adds a fault for an unknown key, with a suggestion.
func (r *reader) unknown(key ast.Node, name, where string, known []string) {
	for word, stem := range pastedSecrets {
		if name == word && slices.Contains(known, stem+"_file") {
			r.bad(key, "%s: this file must not contain secrets; put the secret into a file of its own and name it in %s_file, or into an environment "+
				"variable and name it in %s_env", where, stem, stem)
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
	r.bad(key, "%s has no key %.64q; the keys are %s", where, name, strings.Join(known, ", "))
}

func (r *reader) wrongType(n ast.Node, where, want string) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode:
		r.bad(n, "%s: anchors and aliases are not supported; put settings that all accounts share under defaults", where)
	case *ast.TagNode:
		r.bad(n, "%s: tags are not supported; remove the word with the exclamation mark", where)
	default:
		r.bad(n, "%s must be %s", where, want)
	}
}

// scalar returns a value as it is written in the file.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// word reads a non-empty text on one line.
func (r *reader) word(where string, to *string) func(ast.Node) {
	return func(n ast.Node) {
		s, ok := scalar(n)
		switch {
		case !ok:
			r.wrongType(n, where, "a text")
		case s == "" || len(s) > 1024 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
			r.bad(n, "%s must be a non-empty text on one line", where)
		default:
			*to = s
		}
	}
}

// list reads texts. The brackets around a single text may be omitted.
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
			r.bad(n, "%s is empty; list at least one, or remove the key", where)
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

// size reads a number of bytes in the syntax of the flags.
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
			r.bad(n, "%s: %d bytes exceed the server's --memory-budget, which allows %d", where, bytes, r.rules.MaxBytes)
		default:
			*to = bytes
		}
	}
}

// pixels reads a number of pixels, at most the server's own limit.
func (r *reader) pixels(where string, to *int64) func(ast.Node) {
	return func(n ast.Node) {
		s, ok := scalar(n)
		count, err := strconv.ParseInt(s, 10, 64)
		if !ok || err != nil || count <= 0 {
			r.wrongType(n, where, "a whole number more than 0")
			return
		}
		if limit := r.rules.Flags.MaxImagePixels; count > limit {
			r.bad(n, "%s: %d pixels exceed the server's --max-image-pixels of %d; raise the flag or lower this value", where, count, limit)
			return
		}
		*to = count
	}
}

func (r *reader) duration(where string, shortest, longest time.Duration, to *time.Duration) func(ast.Node) {
	return func(n ast.Node) {
		s, _ := scalar(n)
		d, err := time.ParseDuration(s)
		if err != nil || d < shortest || d > longest {
			r.wrongType(n, where, fmt.Sprintf("a time from %s to %s, for example 1h", shortest, longest))
			return
		}
		*to = d
	}
}
