package accounts

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxRules is the maximum number of rules for callers.
const maxRules = 10_000

// callers reads the rules for callers. They can only name accounts that s serves.
func (r *reader) callers(n ast.Node, s *Set) *policy.Policy {
	list, ok := n.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		r.wrongType(n, "callers", "a list of rules, each with certificates or subjects, accounts, and tokens or consumers")
		return nil
	}
	if len(list.Values) > maxRules {
		r.bad(n, "callers has %d rules, the limit is %d; use patterns", len(list.Values), maxRules)
		return nil
	}
	rules := make([]policy.Rule, len(list.Values))
	for i, v := range list.Values {
		rules[i] = r.rule(v, fmt.Sprintf("callers, rule %d", i+1), s)
	}
	return policy.New(rules)
}

// rule reads one rule for callers.
func (r *reader) rule(n ast.Node, where string, s *Set) (rule policy.Rule) {
	before := len(r.faults)
	var certificates, subjects, tokens []string
	rule.Line = lineOf(n)
	r.mapping(n, where, keys{
		"certificates": r.list(where+": certificates", func(text string) error {
			_, err := policy.ParsePattern(text)
			return err
		}, &certificates),
		"subjects": r.list(where+": subjects", func(text string) error {
			_, err := policy.ParseSubject(text)
			return err
		}, &subjects),
		"accounts": func(n ast.Node) {
			if word, ok := scalar(n); ok && word == "all" {
				rule.AllAccounts = true
				return
			}
			r.list(where+": accounts", func(id string) error {
				if _, named := s.Named[id]; !named && s.Others == nil {
					return fmt.Errorf("this file has no account %.64q; name it under accounts, or write all", id)
				}
				return nil
			}, &rule.Accounts)(n)
		},
		"methods": r.list(where+": methods", func(text string) error {
			methods, err := policy.ParseMethods(text)
			rule.Methods = append(rule.Methods, methods...)
			return err
		}, new([]string)),
		"tokens":    r.list(where+": tokens", checkTokenOf, &tokens),
		"consumers": r.list(where+": consumers", policy.CheckConsumer, &rule.Consumers),
	})
	for _, text := range certificates {
		pattern, _ := policy.ParsePattern(text) // it was checked
		rule.Certificates = append(rule.Certificates, pattern)
	}
	for _, text := range subjects {
		pattern, _ := policy.ParseSubject(text) // it was checked
		rule.Subjects = append(rule.Subjects, pattern)
	}
	for _, of := range tokens {
		rule.Tokens = append(rule.Tokens, tokensOf[of])
	}
	if len(r.faults) > before {
		return rule
	}
	switch {
	case len(rule.Certificates) == 0 && len(rule.Subjects) == 0:
		r.bad(n, "%s needs certificates or subjects: the names of the callers that it permits, for example certificates: [\"uri:spiffe://example.com/chat\"], or subjects: [\"jwt:chat\"]", where)
	case len(rule.Accounts) == 0 && !rule.AllAccounts:
		r.bad(n, "%s needs accounts: a list of ids, or all", where)
	case len(rule.Tokens) == 0 && len(rule.Consumers) == 0:
		r.bad(n, "%s permits nothing; add tokens, for example [consumer, agent], or consumers, for example [\"*\"]", where)
	}
	return rule
}

// tokensOf are the schemes of tokens by the identity that they prove.
var tokensOf = map[string]share.Scheme{"consumer": share.ConsumerToken, "agent": share.AgentToken}

func checkTokenOf(name string) error {
	if _, ok := tokensOf[name]; !ok {
		return fmt.Errorf("there are no tokens of %.64q; write consumer or agent", name)
	}
	return nil
}
