package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// match compares a value of decoded JSON with what is wanted, and returns the first difference, or "".
//
// An object matches if each of its members does; others may be there. An array matches an array of the same length. An object
// whose members begin with "$" is a condition: $min, $max, $len, $has (a part of the text), $set (there, and not empty), $empty
// (absent, null, zero or empty), $any (one of them matches), $not, $all (each element matches), $some (one element matches).
func match(at string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		for k := range w {
			if strings.HasPrefix(k, "$") {
				return conditions(at, w, got)
			}
		}
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %s, want an object", at, short(got))
		}
		for k, v := range w {
			if diff := match(at+"."+k, v, g[k]); diff != "" {
				return diff
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s is %s, want %d elements", at, short(got), len(w))
		}
		for i, v := range w {
			if diff := match(fmt.Sprintf("%s[%d]", at, i), v, g[i]); diff != "" {
				return diff
			}
		}
		return ""
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Sprintf("%s is %s, want %s", at, short(got), short(want))
	}
	return ""
}

func conditions(at string, want map[string]any, got any) string {
	for name, v := range want {
		if !condition(at, name, v, got) {
			return fmt.Sprintf("%s is %s, want %s", at, short(got), short(want))
		}
	}
	return ""
}

func condition(at, name string, v, got any) bool {
	n, isNumber := got.(float64)
	limit, _ := v.(float64)
	list, _ := got.([]any)
	matches := func(e any) bool { return match(at, v, e) == "" }
	switch name {
	case "$min":
		return isNumber && n >= limit
	case "$max":
		return isNumber && n <= limit
	case "$len":
		return match(at, v, float64(len(list))) == ""
	case "$has":
		text, ok := got.(string)
		return ok && strings.Contains(text, v.(string))
	case "$set":
		return !empty(got)
	case "$empty":
		return empty(got)
	case "$not":
		return !matches(got)
	case "$any":
		for _, one := range v.([]any) {
			if match(at, one, got) == "" {
				return true
			}
		}
		return false
	case "$all":
		for _, e := range list {
			if !matches(e) {
				return false
			}
		}
		return true
	case "$some":
		for _, e := range list {
			if matches(e) {
				return true
			}
		}
		return false
	}
	return false
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}

// short is a value for people.
func short(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(text) > 600 {
		return string(text[:600]) + "..."
	}
	return string(text)
}

// expand replaces each text that begins with "$" by what lookup has, in a copy of a value.
func expand(v any, lookup func(name string) (any, error)) (any, error) {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "$") {
			return lookup(v[1:])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			x, err := expand(e, lookup)
			if err != nil {
				return nil, err
			}
			out[k] = x
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			x, err := expand(e, lookup)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	}
	return v, nil
}
