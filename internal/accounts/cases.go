package accounts

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Case says what the rules for callers should answer to each combination of its callers, accounts, methods and identities.
type Case struct {
	// Line is where the case begins in its file, counted from 1.
	Line     int
	Callers  []policy.Name
	Accounts []string
	Methods  []policy.Method
	// Tokens are the schemes of the tokens, Consumers the ids of the consumers that the callers name. Each is an identity.
	Tokens    []share.Scheme
	Consumers []string
	// Permitted is the expected answer.
	Permitted bool
}

// Requests calls yield for each combination, except sign-ins with an identity that they do not return.
func (c *Case) Requests(yield func(policy.Request) bool) {
	for _, name := range c.Callers {
		for _, account := range c.Accounts {
			for _, method := range c.Methods {
				q := policy.Request{Caller: policy.Caller{Name: name}, Account: account, Method: method}
				if !c.identities(q, yield) {
					return
				}
			}
		}
	}
}

func (c *Case) identities(q policy.Request, yield func(policy.Request) bool) bool {
	returned := q.Method.SignsIn()
	for _, q.Scheme = range c.Tokens {
		if (returned == "" || returned == q.Scheme) && !yield(q) {
			return false
		}
	}
	if returned != "" {
		return true
	}
	q.Scheme = share.ExternalConsumerID
	for _, q.Consumer = range c.Consumers {
		if !yield(q) {
			return false
		}
	}
	return true
}

// ReadCases reads a file with cases. The error is of type Faults: all errors, each with its line.
func ReadCases(file string) ([]Case, error) {
	r := &reader{file: file, rules: Rules{Reads: func(string) {}}}
	var cases []Case
	if body := r.body("cases, a list"); body != nil {
		r.mapping(body, "the file", keys{"cases": func(n ast.Node) {
			list, ok := n.(*ast.SequenceNode)
			if !ok {
				r.wrongType(n, "cases", "a list, each with callers, accounts, tokens or consumers, and want")
				return
			}
			for i, v := range list.Values {
				cases = append(cases, r.oneCase(v, fmt.Sprintf("case %d", i+1)))
			}
		}})
		if len(cases) == 0 && len(r.faults) == 0 {
			r.badLine(0, "has no cases; list at least one under cases")
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return cases, nil
}

func (r *reader) oneCase(n ast.Node, where string) Case {
	c := Case{Line: lineOf(n), Methods: policy.Methods()}
	before := len(r.faults)
	var methods []policy.Method
	var tokens []string
	wanted := false
	unused := new([]string) // what the checks below have parsed already
	r.mapping(n, where, keys{
		"callers": r.list(where+": callers", func(text string) error {
			name, err := policy.ParseName(text)
			c.Callers = append(c.Callers, name)
			return err
		}, unused),
		"accounts": r.list(where+": accounts", func(id string) error {
			if !share.ValidAccountID(id) {
				return fmt.Errorf("%.64q is not an account id; use %s", id, share.AccountIDRule)
			}
			return nil
		}, &c.Accounts),
		"methods": r.list(where+": methods", func(text string) error {
			m, err := policy.ParseMethods(text)
			methods = append(methods, m...)
			return err
		}, unused),
		"tokens": r.list(where+": tokens", checkTokenOf, &tokens),
		"consumers": r.list(where+": consumers", func(id string) error {
			if !share.IsPrintableWord(id) {
				return errors.New("must be a consumer's id")
			}
			return nil
		}, &c.Consumers),
		"want": func(n ast.Node) {
			text, _ := scalar(n)
			wanted, c.Permitted = true, text == "permitted"
			if text != "permitted" && text != "denied" {
				r.wrongType(n, where+": want", "permitted or denied")
			}
		},
	})
	if methods != nil {
		c.Methods = methods
	}
	for _, of := range tokens {
		c.Tokens = append(c.Tokens, tokensOf[of])
	}
	if len(r.faults) > before {
		return c
	}
	for _, missing := range []struct {
		is  bool
		key string
	}{
		{c.Callers == nil, "callers: their names, for example uri:spiffe://example.com/chat"},
		{c.Accounts == nil, "accounts: a list of ids"},
		{c.Tokens == nil && c.Consumers == nil, "tokens or consumers"},
		{!wanted, "want: permitted or denied"},
	} {
		if missing.is {
			r.bad(n, "%s needs %s", where, missing.key)
		}
	}
	if len(r.faults) == before && len(slices.Collect(c.Requests)) == 0 {
		r.bad(n, "%s asks nothing: its methods are sign-ins that do not return its tokens", where)
	}
	return c
}
